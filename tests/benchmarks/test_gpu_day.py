"""The script for a day with a GPU, rehearsed on a CPU: every part ends with its rows, and the table has them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {
    "2": {"tree+casts", "tree", "tree+compile"},
    "3": {"packed", "padded", "hf"},
    "4": {"qlora", "qlora, larger", "full, 8-bit AdamW"},
}


@pytest.fixture(scope="module")
def day(demo_base, tmp_path_factory):
    """Runs a part."""
    folder = tmp_path_factory.mktemp("day")

    def day(part):
        program = [sys.executable, str(ROOT / "benchmarks" / "gpu_day.py"), part, "--out", str(folder / "day.json")]
        smallest = ["--batch-size", "8", "--steps", "1", "--warmup", "1", "--tokens", "512", "--seconds", "100"]
        tiny = ["--device", "cpu", "--model", "tiny", "--bases", str(folder)]
        ended = subprocess.run([*program, *smallest, *tiny], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, json.loads((folder / "day.json").read_text(encoding="utf-8"))

    return day


@pytest.mark.slow
@pytest.mark.rehearsal
@pytest.mark.parametrize("part", ["1", "2", "3", "4"])
def test_a_part_ends_with_its_rows(day, part):
    printed, report = day(part)
    if part == "1":
        assert "skipped" in report["check"]["tests"] or "passed" in report["check"]["tests"]
        for layout in ("tree", "packed", "padded"):
            assert max(report["check"]["float32"][layout]) < 1e-4
        assert "| float32, `tree` |" in printed
        return
    rows = {row["name"]: row for row in report["rows"]}
    assert rows.keys() >= OURS[part]
    assert [name for name, row in rows.items() if "error" in row] == []
    for name in OURS[part]:
        assert rows[name]["seconds"] > 0 and f"| tiny {name} |" in printed
        assert ("predicted_bytes" in rows[name]) == (name != "hf")
    if part == "2":
        assert rows["tree"]["first_loss"] == pytest.approx(rows["tree+compile"]["first_loss"], rel=1e-5)
        assert rows["tree"]["profile_ms"]["products"] > 0 and "| products |" in printed
    printed, _ = day("table")
    assert all(f"| tiny {name} |" in printed for name in OURS[part])
