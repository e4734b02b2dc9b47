"""The benchmark of preferences for short answers, with a tiny model: its pairs, its stages, its table."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alpaca_lora import load_records

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "preferences.py"
_SPEC = importlib.util.spec_from_file_location("preferences_benchmark", SCRIPT)
assert _SPEC and _SPEC.loader
benchmark = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark)


@pytest.mark.parametrize(
    ("output", "chosen"),
    [
        ("It is 2.5 m, say. Or more?", "It is 2.5 m, say."),
        ("1. Dip it.\n2. Dry it.", "1. Dip it."),
        ("def f():\n    return 1\n", "def f():"),
        ("Yes!", None),
        ("a list of words without an end", None),
        ("", None),
    ],
)
def test_first_sentence_or_line(output, chosen):
    pair = benchmark.pair_of("Say it.", "", output)
    assert pair is None if chosen is None else (pair["chosen"], pair["rejected"]) == (chosen, output.strip())


def test_two_hundred_pairs_each_shorter():
    pairs = benchmark.preferences(200)
    assert len(pairs) == 200
    assert all(pair["rejected"].startswith(pair["chosen"]) and pair["rejected"] != pair["chosen"] for pair in pairs)


@pytest.mark.parametrize(("short", "long", "holds"), [(10, 90, True), (40, 90, False), (10, 40, False)])
def test_the_table_says_what_moved(capsys, short, long, holds):
    spread = np.arange(40) % 7
    lengths = {"before": 40 + spread, "short": short + spread, "long": long + spread}
    assert benchmark.report(lengths, 128) is holds
    assert f"| short | {short + 3} | " in capsys.readouterr().out


@pytest.mark.slow
def test_stages_with_a_tiny_model(short_base_bpe, tmp_path):
    size = ["--pairs", "20", "--questions", "3", "--max_new_tokens", "4", "--base_model", short_base_bpe]
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), *size]
    for only in (["--only", "short"], []):
        done = subprocess.run([*command, *only], capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
    assert "holds this run, finished" in done.stdout  # what was done by itself
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[-3:]] == ["| before", "| short", "| long"]
    short, long = (load_records(str(tmp_path / f"prefers-{name}.jsonl"), objective="dpo") for name in ("short", "long"))
    assert [record.chosen for record in short.records] == [record.rejected for record in long.records]
    for name in ("short", "long"):
        assert (tmp_path / name / "loss.png").exists()
        history = [json.loads(line) for line in (tmp_path / name / "history.jsonl").read_text("utf-8").splitlines()]
        assert "eval_rewards/accuracies" in history[-1]
