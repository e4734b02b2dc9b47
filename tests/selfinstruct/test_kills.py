"""A run killed with SIGKILL again and again, against a server that misbehaves: no record lost, none twice, no budget
passed, the key nowhere. benchmarks/selfinstruct.py does the same at length."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from alpaca_lora import refilter
from alpaca_lora.llm.journal import read_journal

KEY = "sk-written-nowhere-4711"
SERVER = Path(__file__).with_name("scripted_server.py")


def test_killed_at_random_moments(tmp_path):
    figures = run_with_kills(tmp_path, num_records=200, kills=4, concurrency=3, answer_seconds=0.25, seed=11)
    assert figures["kills"] == 4
    assert figures["accepted"] >= 200


def run_with_kills(
    scratch: Path,
    *,
    num_records: int,
    kills: int,
    concurrency: int,
    answer_seconds: float,
    seed: int,
    life_seconds: float = 0.6,
    token_budget: int = 10**8,
) -> dict:
    """Start the command, kill it, start it again, and check what it leaves each time.

    Args:
        scratch: An empty folder.
        num_records: Records asked for.
        kills: How many processes are killed, each at a random moment of the `life_seconds` after it wrote its first
            line; every fourth while it still starts.
        concurrency: Requests in flight.
        answer_seconds: About how long the server takes to answer.
        seed: Of the moments, and of what the server does.
        life_seconds: See `kills`.
        token_budget: Budget.

    Returns:
        What was counted, by the run and by the server.
    """
    generator = random.Random(seed)
    out, printed = scratch / "out", scratch / "printed.txt"
    journal, records = out / "journal.jsonl", out / "records.jsonl"
    options = {"model": "m", "num_records": num_records, "concurrency": concurrency, "timeout_seconds": 1.5}
    options |= {"token_budget": token_budget, "max_new_tokens": 1500, "price_in": 1, "price_out": 2}
    command = [sys.executable, "-m", "alpaca_lora", "self-instruct", "run", str(out)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    killed, kept_lines, kept_records = 0, b"", b""
    with _server(seed, answer_seconds) as url, printed.open("ab") as log:
        environment = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
        while True:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            if killed < kills:
                if killed % 4 == 3:
                    time.sleep(generator.uniform(0, 2))
                else:
                    _wait_for_growth(journal, process)
                    time.sleep(generator.uniform(0, life_seconds))
                process.send_signal(signal.SIGKILL)
            code = process.wait(timeout=1500)
            if journal.exists():
                lines = journal.read_bytes()
                assert lines.startswith(kept_lines), "a line of the journal was lost"
                kept_lines = lines[: lines.rfind(b"\n") + 1]
            if records.exists():
                now = records.read_bytes()
                # The file is made anew from the journal at each start, and may have been killed in between.
                kept_records = max(kept_records, now[: now.rfind(b"\n") + 1], key=len)
            if code != -signal.SIGKILL:
                break
            killed += 1
        counted = json.load(urllib.request.urlopen(f"{url}/stats"))
    assert code == 0, printed.read_text()

    state = read_journal(out)
    final = records.read_bytes()
    assert final.startswith(kept_records), "an accepted record was lost"
    instructions = [json.loads(line)["instruction"] for line in final.splitlines()]
    assert len(instructions) == state.accepted
    assert max(Counter(instructions).values()) == 1, "a record is there twice"
    assert max(Counter(answer["request"] for answer in state.answers).values()) == 1, "a request was answered twice"
    assert len(state.judged) == len(state.answers)

    at_server = counted["prompt_tokens"] + counted["completion_tokens"]
    accounted = state.spent.tokens + state.unanswered.tokens
    assert at_server <= accounted <= token_budget, "the budget was passed"
    assert counted["most_at_once"] == concurrency
    for path in [printed, *out.iterdir()]:
        assert KEY.encode() not in path.read_bytes(), f"the key is in {path.name}"

    shutil.copytree(out, scratch / "again")
    refilter(scratch / "again")
    assert (scratch / "again" / "records.jsonl").read_bytes() == final, "other records from the same answers"
    return {
        "kills": killed,
        "accepted": state.accepted,
        "answers": len(state.answers),
        "attempts": dict(state.attempts),
        "torn": state.torn,
        "rejected": dict(state.rejected),
        "tokens at the server": at_server,
        "tokens accounted for": accounted,
        "server": counted,
        "last words": printed.read_text().rpartition("in flight]")[2].strip(),
    }


@contextmanager
def _server(seed: int, answer_seconds: float):
    arguments = [sys.executable, str(SERVER), str(seed), KEY, str(answer_seconds)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _wait_for_growth(journal: Path, process: subprocess.Popen) -> None:
    """Return when the process has added a line, or ended."""
    size = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > size):
        time.sleep(0.01)
