"""The packaged probe: 50 questions on known limits, each with a line on what a good answer does."""

from __future__ import annotations

import json
from pathlib import Path

PROBE_FILE = Path(__file__).with_name("probe.jsonl")


def probe_questions() -> list[tuple[str, str]]:
    """Instruction and input of each."""
    rows = map(json.loads, PROBE_FILE.read_text(encoding="utf-8").splitlines())
    return [(row["instruction"], row["input"]) for row in rows]
