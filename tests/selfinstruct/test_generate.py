"""Whole runs of self-instruct against a server on loopback: what ends them, and how they go on."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alpaca_lora import cli, load_records, refilter, self_instruct
from alpaca_lora.errors import ConfigError, DataError, RunInterrupted
from alpaca_lora.llm import client as endpoint
from alpaca_lora.llm.endpoint_errors import EndpointError
from alpaca_lora.llm.journal import Journal, read_journal
from alpaca_lora.selfinstruct import generate
from alpaca_lora.selfinstruct.request import draw
from alpaca_lora.selfinstruct.task_pool import TaskPool

_SPEC = importlib.util.spec_from_file_location("scripted_server", Path(__file__).with_name("scripted_server.py"))
_server = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_server)
ScriptedServer = _server.ScriptedServer
GOOD = ["good"] * 400


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.01)


def write(server, out, **settings):
    values = {"model": "m", "key": "sk-secret-1", "timeout_seconds": 2.0, "concurrency": 4, "num_records": 60}
    return self_instruct(out, base_url=server.url, **{**values, **settings})


def records(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text(encoding="utf-8").splitlines()]


# A run


@pytest.mark.parametrize("kind", ["chat", "completions"])
def test_a_run_writes_records_and_counts_what_it_took(tmp_path, kind):
    with ScriptedServer(GOOD) as server:
        summary = write(server, tmp_path, kind=kind, price_in=1, price_out=10)
    assert summary.ended == "num_records"
    assert 60 <= summary.accepted == len(records(tmp_path)) < 60 + 4 * 20
    assert (summary.prompt_tokens, summary.completion_tokens) == (server.prompt_tokens, server.completion_tokens)
    assert summary.cost == pytest.approx((server.prompt_tokens + 10 * server.completion_tokens) / 1e6)
    assert summary.projected_cost == pytest.approx(summary.cost / summary.accepted * 52_000)
    assert summary.answers == summary.attempts == len(server.bodies)
    assert load_records(tmp_path / "records.jsonl").records == pool_of(tmp_path).records
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["accepted"] == summary.accepted
    said = str(summary)
    assert "60 records were asked for, and are there." in said
    assert f"{summary.accepted} records accepted" in said and "52,000 records at this rate: " in said


def pool_of(out):
    state = read_journal(out)
    pool = TaskPool(load_records("seeds").records, state.head["settings"], state.head["filters"])
    pool.restore(state)
    return pool


def test_answers_in_json(tmp_path):
    tasks = [
        {"instruction": f"Name the {word} largest river.", "input": "", "output": "Rhine"} for word in ("4th", "5th")
    ]
    with ScriptedServer([{"text": json.dumps({"tasks": tasks})}]) as server:
        summary = write(server, tmp_path, mode="json", threshold=1.0, num_records=2, tasks_per_request=2)
    assert summary.accepted == 2
    assert records(tmp_path) == tasks


def test_trouble_costs_attempts_and_no_records(tmp_path):
    with ScriptedServer(seed=3, key="sk-secret-1") as server:
        summary = write(server, tmp_path, num_records=300)
    assert summary.ended == "num_records"
    instructions = [record["instruction"] for record in records(tmp_path)]
    assert len(instructions) == len(set(instructions)) == summary.accepted >= 300
    assert summary.rejected["truncated"] >= 1 and summary.rejected["duplicate"] >= 1
    assert summary.refused == server.kinds["429"] + server.kinds["500"]
    assert summary.unanswered == server.kinds["cut"] + server.kinds["hang"]
    counted = server.prompt_tokens + server.completion_tokens
    answered = summary.prompt_tokens + summary.completion_tokens
    assert answered < counted <= answered + summary.unanswered_tokens
    assert server.most_at_once == 4
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {"truncated", "duplicate"} <= report["samples"].keys()
    assert all(len(samples) <= 5 for samples in report["samples"].values())
    for path in tmp_path.iterdir():
        assert b"sk-secret-1" not in path.read_bytes()


def test_three_seeds_a_request_drawn_by_its_number():
    numbers = [f"record {number}" for number in range(175)]
    assert draw(numbers, 42, 0) == ["record 46", "record 143", "record 18"]
    assert draw(numbers, 42, 0) != draw(numbers, 42, 1) != draw(numbers, 43, 1)
    assert sorted(draw(numbers[:2], 42, 0)) == numbers[:2]
    seen = {one for request in range(500) for one in draw(numbers, 1, request)}
    assert seen == set(numbers)


# Going on


def test_the_same_command_goes_on_and_more_records_can_be_asked_for(tmp_path):
    with ScriptedServer(GOOD) as server:
        first = write(server, tmp_path)
        lines = (tmp_path / "records.jsonl").read_bytes()
        sent = len(server.bodies)
        assert write(server, tmp_path).accepted == first.accepted
        assert len(server.bodies) == sent  # all there already
        more = write(server, tmp_path, num_records=150, concurrency=2, token_budget=10**7)
    assert more.accepted >= 150
    assert (tmp_path / "records.jsonl").read_bytes().startswith(lines)
    numbers = [answer["request"] for answer in read_journal(tmp_path).answers]
    assert sorted(numbers) == list(range(len(numbers)))


def test_a_request_left_by_a_dead_process_is_sent_again_as_it_was(tmp_path):
    with ScriptedServer(GOOD) as server:
        write(server, tmp_path / "whole", num_records=40, concurrency=1)
        shutil.copytree(tmp_path / "whole", tmp_path / "dead")
        journal = tmp_path / "dead" / "journal.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        sent = next(number for number, line in enumerate(lines) if '"sent"' in line and '"request": 1,' in line)
        journal.write_text("".join(lines[: sent + 1]), encoding="utf-8")
        before = server.bodies[1]
        server.bodies.clear()
        summary = write(server, tmp_path / "dead", num_records=40, concurrency=1)
    assert server.bodies[0] == before
    assert summary.unanswered == 1
    assert "attempts without an answer" in str(summary)


def test_an_answer_that_nobody_judged_is_judged_first(tmp_path):
    with ScriptedServer(GOOD) as server:
        whole = write(server, tmp_path)
        wanted = (tmp_path / "records.jsonl").read_bytes()
        journal = tmp_path / "journal.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        last = max(number for number, line in enumerate(lines) if '"judged"' in line)
        journal.write_text("".join(lines[:last] + lines[last + 1 :]), encoding="utf-8")
        sent = len(server.bodies)
        again = write(server, tmp_path, num_records=whole.accepted)
        assert len(server.bodies) == sent
    assert again.accepted == whole.accepted
    assert (tmp_path / "records.jsonl").read_bytes() == wanted


@pytest.mark.parametrize("kind", ["judged", "done"])
def test_a_journal_with_a_line_taken_out_is_told_and_judged_again(tmp_path, kind):
    with ScriptedServer(GOOD) as server:
        before = write(server, tmp_path).accepted
        journal = tmp_path / "journal.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        first = next(line for line in lines if f'"line": "{kind}"' in line)
        journal.write_text("".join(line for line in lines if line is not first), encoding="utf-8")
        asked = len(server.bodies)
        with pytest.raises(DataError, match="a line was taken out .* alpaca-lora self-instruct refilter"):
            write(server, tmp_path, num_records=before + 5)
        assert len(server.bodies) == asked
        refilter(tmp_path)
        assert write(server, tmp_path, num_records=before + 5).accepted >= before + 5


def test_what_requests_are_made_from_may_not_change(tmp_path):
    with ScriptedServer(GOOD) as server:
        write(server, tmp_path, num_records=5)
        with pytest.raises(ConfigError) as caught:
            write(server, tmp_path, model="n", domain="law", seeds=[{"instruction": "a", "output": "b"}])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["model", "seeds", "domain"]


# What ends a run


def test_the_budget_is_never_passed_and_well_used(tmp_path):
    with ScriptedServer(seed=5) as server:
        summary = write(server, tmp_path, num_records=9999, token_budget=60_000, max_new_tokens=900)
        counted = server.prompt_tokens + server.completion_tokens
        assert counted <= 60_000
        assert summary.prompt_tokens + summary.completion_tokens + summary.unanswered_tokens > 50_000
        assert summary.ended == "budget"
        assert str(summary).startswith("The budget allows no further request. token_budget: ")
        sent = len(server.bodies)
        assert write(server, tmp_path, num_records=9999, token_budget=60_000, max_new_tokens=900).ended == "budget"
        assert len(server.bodies) == sent
        more = write(server, tmp_path, num_records=9999, token_budget=90_000, max_new_tokens=900)
    assert more.accepted > summary.accepted


def test_a_budget_below_the_first_request_names_the_least_that_does(tmp_path):
    with ScriptedServer(GOOD) as server:
        with pytest.raises(ConfigError, match="^token_budget: 500 allows no request; the first may take ") as caught:
            write(server, tmp_path, token_budget=500, max_new_tokens=900)
        least = int(str(caught.value).partition("at least ")[2].partition(",")[0])
        with pytest.raises(ConfigError, match="^token_budget: "):
            write(server, tmp_path, token_budget=least - 1, max_new_tokens=900)
        with pytest.raises(ConfigError, match="^max_cost: 0.0001 allows no request; the first may cost 0.0"):
            write(server, tmp_path, max_cost=0.0001, price_in=1, price_out=10, max_new_tokens=900)
        assert not server.bodies
        assert write(server, tmp_path, token_budget=least, max_new_tokens=900).answers >= 1


def test_the_command_fails_where_nothing_was_accepted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    with ScriptedServer(["garbage"] * 9) as server, pytest.raises(SystemExit) as ended:
        cli.main(
            ["self-instruct", "run", str(tmp_path), "--model", "m", "--base_url", server.url, "--token_budget", "9000"]
        )
    assert ended.value.code == 1 and "\n0 records accepted" in capsys.readouterr().out


def test_a_model_that_writes_nothing_of_use_is_not_asked_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "BARREN_ANSWERS", 12)
    seeds = [{"instruction": "Name a pet.", "output": "A cat."}]
    known = "### Task 4\nInstruction: Name a pet.\nOutput: A dog."
    with ScriptedServer([{"text": known}] * 100) as server:
        summary = write(server, tmp_path, seeds=seeds)
    assert (summary.ended, summary.accepted) == ("no progress", 0)
    assert 12 <= len(server.bodies) <= 12 + 2 * 4
    assert "12 requests in a row gave no record that could be accepted" in str(summary)
    assert (tmp_path / "records.jsonl").read_bytes() == b""


APART = {"choices": [{"message": {"content": None, "reasoning_content": "Hm."}, "finish_reason": "stop"}]}
DRAFT = "### Task 4\nInstruction: Say how a draft becomes a record.\nInput: <noinput>\nOutput: By mistake."
FILTERED = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
USELESS = {
    "garbage": ("garbage", "malformed", "Another model"),
    "thoughts without end": ({"text": f"<think>\n{DRAFT}"}, "thought_only", "switch thinking off"),
    "thoughts apart": ({"text": "", **APART}, "thought_only", "switch thinking off"),
    "nothing": ({"text": ""}, "empty_reply", "Nothing comes back"),
    "filtered": ({"text": "", **FILTERED}, "filtered_reply", "content filter kept the reply back"),
    "without end": ({"text": '{"a":' * 60_000}, "too_long_reply", "does not keep to the limit"),
}


@pytest.mark.parametrize("concurrency", [1, 8, 32])
@pytest.mark.parametrize("kind", USELESS)
def test_a_writer_none_of_whose_answers_holds_a_record_is_paid_for_ten(tmp_path, kind, concurrency):
    reply, reason, words = USELESS[kind]
    with ScriptedServer([reply] * 99, seconds=0.001) as server:
        with pytest.raises(
            EndpointError, match=rf"none of its first 10 answers holds a record(.|\n)*{words}"
        ) as caught:
            write(server, tmp_path, concurrency=concurrency, timeout_seconds=5)
        assert len(server.bodies) == 10
    assert "The same command goes on from here." in str(caught.value)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["answers"], report["accepted"]) == (10, 0) and report["rejected"][reason] >= 10
    assert report["samples"][reason]
    with ScriptedServer(GOOD) as server:
        assert write(server, tmp_path, concurrency=concurrency).accepted >= 60


@pytest.mark.parametrize("mark", [("<think>", "</think>"), ("", "</think>"), ("[THINK]", "[/THINK]")])
def test_a_draft_is_no_record(tmp_path, mark):
    answer = "### Task 4\nInstruction: Say what is kept of an answer.\nInput: <noinput>\nOutput: Its end."
    with ScriptedServer([{"text": f"{mark[0]}\n{DRAFT}\n{mark[1]}\n\n{answer}"}]) as server:
        summary = write(server, tmp_path, num_records=1, concurrency=1)
    assert [record["instruction"] for record in records(tmp_path)] == ["Say what is kept of an answer."]
    assert summary.thoughts == 1 and "1 with thoughts, which were left out" in str(summary)


def test_what_a_content_filter_cut_is_no_record(tmp_path):
    whole = "### Task 4\nInstruction: Say what is kept of an answer.\nInput: <noinput>\nOutput: Its end."
    text = f"{whole}\n\n### Task 5\nInstruction: Tell me about the old king.\nInput: <noinput>\nOutput: There was a"
    choices = [{"message": {"content": text}, "finish_reason": "content_filter"}]
    with ScriptedServer([{"text": "", "choices": choices}]) as server:
        summary = write(server, tmp_path, num_records=1, concurrency=1)
    assert [record["instruction"] for record in records(tmp_path)] == ["Say what is kept of an answer."]
    assert summary.rejected["truncated"] == 1


def test_half_a_character_costs_a_record_and_no_file(tmp_path):
    halves = "### Task 4\nInstruction: Say something about \ud83d halves.\nOutput: Ha.\n\n"
    whole = "### Task 5\nInstruction: Say something about whole ones.\nOutput: Ha."
    with ScriptedServer([{"text": halves + whole}]) as server:
        summary = write(server, tmp_path, num_records=1, concurrency=1)
    assert (summary.accepted, summary.rejected) == (1, {"malformed": 1})
    assert "\ufffd halves" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_a_server_that_fails_ends_a_run_that_can_go_on(tmp_path):
    with ScriptedServer([*GOOD[:2], *["403"] * 8], key="sk-secret-1") as server:
        with pytest.raises(EndpointError, match=r"HTTP 403(.|\n)*records accepted(.|\n)*The same command goes on"):
            write(server, tmp_path)
        kept = len(records(tmp_path))
        server.script = GOOD[:]
        assert write(server, tmp_path).accepted > kept
    with ScriptedServer(key="another") as server, pytest.raises(EndpointError, match="HTTP 401") as caught:
        write(server, tmp_path / "new")
    assert "sk-secret-1" not in str(caught.value)


def test_a_request_that_the_server_never_takes_is_left_out(tmp_path):
    with ScriptedServer(["good", "400", *GOOD]) as server:
        summary = write(server, tmp_path, concurrency=1)
        assert (summary.ended, summary.failed) == ("num_records", 1)
        assert list(read_journal(tmp_path).failed) == [1]
        assert write(server, tmp_path, num_records=100, concurrency=1).failed == 1
    with ScriptedServer(["400"] * 9) as server, pytest.raises(EndpointError, match="HTTP 400"):
        write(server, tmp_path / "new")  # none was taken: something else is wrong


def send_when_all_hang(server, number):
    """Send this process a signal once four requests wait for answers that never come; give up after a minute."""
    deadline = time.monotonic() + 600
    while server.kinds["hang"] < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_in_good_order(tmp_path, number):
    before = signal.getsignal(number)
    with ScriptedServer([*GOOD[:6], *["hang"] * 20]) as server:
        threading.Thread(target=send_when_all_hang, args=(server, number)).start()
        with pytest.raises(RunInterrupted, match=f"Stopped by {number.name}; requests in flight") as caught:
            write(server, tmp_path, num_records=9999, timeout_seconds=60)
    assert caught.value.signal == number
    assert signal.getsignal(number) == before
    state = read_journal(tmp_path)
    assert len(state.judged) == len(state.answers) == 6
    assert len(records(tmp_path)) == state.accepted
    assert "4 attempts without an answer" in str(caught.value)


def test_who_handles_sigterm_does_so_again_afterwards(tmp_path):
    def own(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, own)
    try:
        with ScriptedServer(GOOD) as server:
            write(server, tmp_path, num_records=1)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_full_disk_ends_a_run_at_once(tmp_path, monkeypatch):
    def extend(self, folder, first):
        raise OSError(28, "No space left")

    monkeypatch.setattr(TaskPool, "extend", extend)  # what it says: tests/faults/test_kills.py
    with ScriptedServer(GOOD) as server, pytest.raises(OSError, match="No space left"):
        write(server, tmp_path)
    monkeypatch.undo()
    with ScriptedServer(GOOD) as server:
        write(server, tmp_path, num_records=1)
    assert len(records(tmp_path)) == read_journal(tmp_path).accepted > 0


def test_in_a_notebook_which_has_a_loop_already(tmp_path):
    async def cell(server, **settings):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook's cell
        return write(server, tmp_path, **settings)

    with ScriptedServer([*GOOD[:2], *["hang"] * 20]) as server:
        assert asyncio.run(cell(server, num_records=15)).ended == "num_records"
        threading.Thread(target=send_when_all_hang, args=(server, signal.SIGINT)).start()
        with pytest.raises(RunInterrupted, match="Stopped by SIGINT"):
            asyncio.run(cell(server, num_records=9999, timeout_seconds=60))


# Judging again


def test_judging_again_gives_the_same_records_or_those_of_another_threshold(tmp_path):
    with ScriptedServer(seed=7) as server:
        write(server, tmp_path, num_records=200)
        lines, journal = (tmp_path / "records.jsonl").read_bytes(), read_journal(tmp_path)
        refilter(tmp_path)
        assert (tmp_path / "records.jsonl").read_bytes() == lines
        again = read_journal(tmp_path)
        assert (again.accepted, again.rejected, again.samples) == (journal.accepted, journal.rejected, journal.samples)

        strict = refilter(tmp_path, threshold=0.2)
        assert strict.ended == "refilter" and strict.accepted == len(records(tmp_path)) < journal.accepted
        with pytest.raises(ConfigError, match="threshold: .* has 0.2, not 0.7. Give that again, or judge all answers"):
            write(server, tmp_path)
        assert write(server, tmp_path, threshold=0.2).accepted >= 60
        refilter(tmp_path)
        assert (tmp_path / "records.jsonl").read_bytes().startswith(lines)


def test_judging_again_needs_the_seeds_and_a_run_that_is_over(tmp_path):
    with pytest.raises(DataError, match="holds no journal"):
        refilter(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with ScriptedServer(GOOD) as server:
        write(server, tmp_path, num_records=5)
    with pytest.raises(ConfigError, match="seeds: <list> holds other records than the run"):
        refilter(tmp_path, seeds=[{"instruction": "a", "output": "b"}])
    head = read_journal(tmp_path).head
    with Journal(tmp_path, head["settings"], head["filters"]), pytest.raises(ConfigError, match="another process"):
        refilter(tmp_path)
    with pytest.raises(ConfigError, match="threshold: 0 must be above 0"):
        refilter(tmp_path, threshold=0)


# The command line, without a server, and settings


def test_the_commands(tmp_path, monkeypatch, capsys):
    """As a user calls them: key and address from the environment, no torch loaded, exit codes."""
    program = "import sys\nfrom alpaca_lora import cli\ntry: cli.main()\nfinally: assert 'torch' not in sys.modules"
    with ScriptedServer([*GOOD[:2], *["garbage"] * 99], key="sk-secret-1") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
        words = ["self-instruct", "run", str(tmp_path), "--model", "m", "--num_records"]
        command = [sys.executable, "-c", program, *words, "40"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
        assert "40 records were asked for, and are there.\n40 records accepted (100% of 40)" in ended.stdout
        assert f"alpaca-lora finetune --data {tmp_path}/records.jsonl --base_model " in ended.stdout
        assert "40/40" in ended.stderr
        with pytest.raises(SystemExit, match="1"):
            cli.main([*words, "400"])
        assert "50 requests in a row gave no record" in capsys.readouterr().out
    cli.main(["self-instruct", "refilter", str(tmp_path), "--threshold", "0.6"])
    assert "Judged again, with threshold 0.6." in capsys.readouterr().out
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(SystemExit, match="OPENAI_API_KEY .in Python: key.: holds a space") as caught:
        cli.main([*words, "50", "--threshold", "0.6"])
    assert "two words" not in str(caught.value)


def test_a_model_of_this_machine_writes_too(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "BARREN_ANSWERS", 4)
    settings = {"max_new_tokens": 6, "concurrency": 3, "seeds": [{"instruction": "Name a cat.", "output": "Tom."}]}
    summary = self_instruct(tmp_path, base_model=tiny_base, num_records=5, **settings)
    assert (summary.ended, summary.accepted, summary.cost) == ("no progress", 0, None)
    assert 4 <= summary.answers <= 4 + 2 * 3
    assert 0 < summary.completion_tokens <= 7 * summary.answers
    assert summary.unanswered == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base_model": "demo"}, "model, base_model: give one of them"),
        ({"model": None}, "model, base_model: give one of them"),
        ({"num_records": 0}, "num_records: 0 must be at least 1"),
        ({"threshold": 1.5}, "threshold: 1.5 must be above 0 and at most 1"),
        ({"max_cost": 5}, "max_cost: 5 needs price_in and price_out"),
        ({"tasks_per_request": 0}, "0"),
    ],
)
def test_wrong_settings_write_nothing(tmp_path, values, words):
    with ScriptedServer() as server, pytest.raises(ConfigError, match=words):
        write(server, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()
