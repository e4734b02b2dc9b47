"""AlpacaEval's and FastChat's own code on our files, where benchmarks/evaluators.py has installed them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / "runs" / "evaluators"


@pytest.mark.slow
@pytest.mark.skipif(
    not (INSTALLED / "fastchat").exists(),
    reason="AlpacaEval and FastChat need packages of their own: python benchmarks/evaluators.py installs them",
)
def test_their_figures_are_ours(demo_base):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "evaluators.py", "--env", INSTALLED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "judged there" in done.stdout and "MT-bench pairs" in done.stdout
