"""A judge under fire: 20 kills at random moments over 252 pairs, and a known position bias measured many times.

    python benchmarks/judge.py [SEED]

First, every check of `run_with_kills` in tests/evaluation/test_judge.py is made and its figures printed: a tenth of the
replies cannot be read, 8 in 100 requests are refused or cut off, and the process is killed 20 times. What is left is
read as preferences, whose counts are those of the verdicts. Then 100 judges of known bias, each with other pairs, are
measured: how often the interval covers the truth. Takes some four minutes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from alpaca_lora import load_records
from alpaca_lora.evaluation.judge import judge_pairs
from alpaca_lora.evaluation.statistics.bias import position_bias
from alpaca_lora.evaluation.verdicts import read_verdicts

_PATH = Path(__file__).parents[1] / "tests" / "evaluation" / "test_judge.py"
_SPEC = importlib.util.spec_from_file_location("judged", _PATH)
assert _SPEC and _SPEC.loader
tests = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tests)

PAIRS, JUDGES = 60, 100

seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
with tempfile.TemporaryDirectory() as scratch:
    started = time.monotonic()
    figures = tests.run_with_kills(Path(scratch), pairs=252, kills=20, answer_seconds=0.3, seed=seed, life_seconds=2)
    print(f"252 pairs, 20 kills: {time.monotonic() - started:.0f} s\n{json.dumps(figures, indent=2)}", flush=True)
    out = Path(scratch) / "out"
    verdicts = read_verdicts(out)
    decided = sum(vote.preference != 0.5 for vote in verdicts.votes)
    found = load_records(str(out), objective="dpo")
    left_out = {reason: len(numbers) for reason, numbers in found.dropped.items()}
    print(
        f"as preferences: {len(found)} records, and {decided} verdicts that name a winner; left out {left_out}, and "
        f"{verdicts.disagreed} verdicts that followed the order",
        flush=True,
    )

for bias in (0.0, 0.2, 0.5):
    truth, rates, covered = bias + (1 - bias) / 2, [], 0
    for number in range(JUDGES):
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            comparison = tests.comparison_of(Path(scratch), PAIRS, seed=f"{seed}/{bias}/{number}")
            with tests.JudgeServer(seed=f"{seed}/{number}", bias=bias, malformed=0.1, seconds=0) as server:
                found = position_bias(judge_pairs(comparison, tests.asked(server)).single)
        rates.append(found.rate)
        covered += found.low <= truth <= found.high
    mean = sum(rates) / JUDGES
    print(
        f"bias {bias}: the first answer should win {truth:.1%}; measured {mean:.2%} on average over {JUDGES} judges of "
        f"{PAIRS} pairs; {covered} of {JUDGES} 95% intervals cover it",
        flush=True,
    )
