"""The GPU's benchmark, rehearsed on a CPU with a tiny model: it ends with its table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.rehearsal
def test_the_benchmark_ends_with_a_row_for_each_layout(demo_base, tmp_path):
    program = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--model", "tiny"]
    smallest = ["--batch-size", "8", "--peer-batch", "8", "--steps", "1", "--warmup", "1", "--max-tokens", "512"]
    peers = ["--gradient-checkpointing", "off", "--peers", "hf", "--compile", "--json", str(tmp_path / "gpu.json")]
    ended = subprocess.run([*program, *smallest, *peers], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]}
    assert rows.keys() == {"tree", "packed", "padded", "tree+compile", "hf"}
    for name, row in rows.items():
        assert "error" not in row and row["seconds"] > 0 and row["computed_per_second"] > 0, row
        assert abs(row["first_loss"] / rows["hf"]["first_loss"] - 1) < 1e-5, name
        assert f"\n{name} " in ended.stdout
    assert rows["tree"]["fused_head"]
    assert "tree / packed at 512, checkpointing off" in ended.stdout
