"""The journal: what it holds survives, what was left unfinished is cut off and counted, and nobody else writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpaca_lora.errors import ConfigError, DataError
from alpaca_lora.generation.completion import Completion
from alpaca_lora.llm.budget import Usage
from alpaca_lora.llm.journal import Journal, read_journal
from alpaca_lora.llm.journal_state import completion_of, fields_of
from alpaca_lora.selfinstruct.task_pool import rejudge

SETTINGS = {"model": "m", "seed": 1, "domain": None}
FILTERS = {"threshold": 0.7}
TEXT = "### Task 4\nInstruction: Say “ä” \ud800.\n"  # with half a character, as a model may write


def judged(request, accepted, **rejected):
    samples = [{"reason": reason, "detail": "", "text": "x"} for reason in rejected]
    return {"request": request, "parsed": 9, "accepted": accepted, "rejected": rejected, "samples": samples}


def sent(journal, request):
    journal.append("sent", request=request, prompt_tokens=100, completion_tokens=50)


def done(journal, request, text=TEXT):
    fields = fields_of(Completion(text, "stop", 10, 5))
    journal.append("done", request=request, **fields, first=4, cost=None, seconds=0.5)


@pytest.fixture
def folder(tmp_path):
    """A run with an answer that is judged, one that is not, a refused request and one without an answer."""
    with Journal(tmp_path / "run", SETTINGS, FILTERS) as journal:
        for request in (0, 1, 2, 3):
            sent(journal, request)
        done(journal, 1)
        journal.append("refused", request=2)
        journal.append("failed", request=2, problem="HTTP 400")
        done(journal, 0)
        journal.append("judged", **judged(1, [0, 2], similar=3))
        sent(journal, 3)
    return tmp_path / "run"


def test_what_was_written_is_read(folder):
    state = read_journal(folder)
    assert [answer["request"] for answer in state.answers] == [1, 0]
    assert completion_of(state.answers[0]) == Completion(TEXT, "stop", 10, 5)
    assert list(state.judged) == [1]
    assert (state.accepted, state.rejected) == (2, {"similar": 3})
    assert state.samples == {"similar": [{"reason": "similar", "detail": "", "text": "x"}]}
    assert state.failed == {2: "HTTP 400"}
    assert state.spent == Usage(20, 10)
    assert state.unanswered == Usage(200, 100)  # request 3, twice
    assert state.attempts == {"sent": 5, "refused": 1, "done": 2}


def test_a_state_kept_while_writing_is_the_one_read_later(folder):
    with Journal(folder, SETTINGS, FILTERS) as journal:
        done(journal, 3)
        journal.append("judged", **judged(0, [1]))
        assert journal.state == read_journal(folder)


def test_requests_without_an_answer_are_sent_again_and_others_not(folder):
    assert read_journal(folder).unfinished() == [3, 4]


def test_a_new_run_begins_with_request_0(tmp_path):
    with Journal(tmp_path, SETTINGS, FILTERS) as journal:
        assert journal.state.unfinished() == [0]


@pytest.mark.parametrize("cut", [1, 20, 90])
def test_a_torn_line_is_cut_off_and_counted_once(folder, cut):
    path = folder / "journal.jsonl"
    with Journal(folder, SETTINGS, FILTERS) as journal:
        before = path.read_bytes()
        done(journal, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(read_journal(folder).answers) == 2  # reading alone changes nothing
    for _ in range(2):
        with Journal(folder, SETTINGS, FILTERS) as journal:
            assert journal.state.torn == 1
            assert journal.state.unfinished() == [3, 4]
    lines = path.read_bytes().removeprefix(before).decode().splitlines()
    assert [json.loads(line)["line"] for line in lines] == ["torn"]


def test_a_damaged_line_is_named(folder):
    path = folder / "journal.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[3][:20] + "\n", *lines[4:]]), encoding="utf-8")
    with pytest.raises(DataError, match="journal.jsonl, line 4: damaged"):
        Journal(folder, SETTINGS, FILTERS)
    path.write_text("".join([*lines[:3], '{"line": "sold"}\n']), encoding="utf-8")
    with pytest.raises(DataError, match="line 4: not a line of a journal .*unknown line 'sold'"):
        Journal(folder, SETTINGS, FILTERS)
    path.write_text("".join(lines).replace('"version": 1', '"version": 2', 1), encoding="utf-8")
    with pytest.raises(DataError, match="line 1: version 2; this library reads 1"):
        read_journal(folder)


def test_an_emptied_journal_is_told(folder):
    (folder / "journal.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="journal.jsonl: has lost its first line. Restore it from a copy"):
        read_journal(folder)


def test_no_journal(tmp_path):
    with pytest.raises(DataError, match="holds no journal.jsonl"):
        read_journal(tmp_path)


def test_other_settings_are_named_together(folder):
    with pytest.raises(ConfigError) as caught:
        Journal(folder, {**SETTINGS, "model": "n", "domain": "law"}, {"threshold": 0.5})
    assert len(caught.value.problems) == 3
    assert "model: the run in" in str(caught.value) and "has 'm', not 'n'; a run is continued with" in str(caught.value)
    assert f"self-instruct refilter {folder} --threshold 0.5" in str(caught.value)
    Journal(folder, SETTINGS, FILTERS).__exit__()  # the lock was given back


def test_a_run_that_asked_nothing_binds_nobody(tmp_path):
    Journal(tmp_path, {**SETTINGS, "model": "n"}, {"threshold": 0.5}).__exit__()
    with Journal(tmp_path, SETTINGS, FILTERS) as journal:
        assert (journal.state.head["settings"], journal.state.head["filters"]) == (SETTINGS, FILTERS)
        assert read_journal(tmp_path) == journal.state
        sent(journal, 0)
    with pytest.raises(ConfigError, match="model: the run in .* has 'm', not 'n'"):
        Journal(tmp_path, {**SETTINGS, "model": "n"}, FILTERS)


def test_hashes_are_not_told(folder):
    with Journal(folder / "own", {"seeds": "abc"}, {}) as journal:
        sent(journal, 0)
    with pytest.raises(ConfigError, match="^seeds: the file of seeds has changed since .* or another folder.$"):
        Journal(folder / "own", {"seeds": "def"}, {})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: cannot be written: it is a file. Name another folder.$"):
        Journal(tmp_path / "file", SETTINGS, FILTERS)
    with pytest.raises(ConfigError, match="^m.json: cannot be written: Not a directory. Name another file.$"):
        Journal(tmp_path / "file" / "own", SETTINGS, FILTERS, Path("m.json"))


def test_two_never_write_at_once(folder):
    with Journal(folder, SETTINGS, FILTERS), pytest.raises(ConfigError, match="another process is writing in it"):
        Journal(folder, SETTINGS, FILTERS)
    Journal(folder, SETTINGS, FILTERS).__exit__()


def test_judging_again_replaces_judgements_and_nothing_else(folder):
    asked = []

    def judge(answer):
        asked.append(answer["request"])
        return judged(answer["request"], [5], too_long=1)

    before = read_journal(folder)
    state = rejudge(folder, {"threshold": 0.5}, judge)
    assert asked == [1, 0]
    assert (state.accepted, state.rejected) == (2, {"too_long": 2})
    assert state.head["filters"] == {"threshold": 0.5}
    for part in ("answers", "failed", "attempts", "spent", "unanswered", "torn"):
        assert getattr(state, part) == getattr(before, part)
