"""Votes of a comparison in AlpacaEval's format, for its own functions and for `compare --preferences`.

    [{"instruction": ..., "output_1": b's answer, "generator_1": b, "output_2": a's answer, "generator_2": a,
      "annotator": rater, "preference": 2 (a is better), 1 (b is), 1.5 (a tie), "dataset": category}, ...]

So `a` is AlpacaEval's model and `b` its baseline, as preferences.py reads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .comparison import Comparison
from .outputs import Instruction
from .statistics.votes import Vote


def write_annotations(path: Path, comparison: Comparison, votes: Sequence[Vote]) -> None:
    """Write a row per vote, in the order of the pairs; whole or not at all."""
    place = {pair.id: number for number, pair in enumerate(comparison.pairs)}
    rows: list[dict[str, Any]] = []
    for vote in sorted(votes, key=lambda vote: place[vote.item]):
        pair, told = comparison.pairs[place[vote.item]], vote if vote.a == comparison.a else vote.turned()
        rows.append(
            {
                "instruction": Instruction(pair.instruction, pair.input).text,
                "output_1": pair.output_b,
                "generator_1": comparison.b,
                "output_2": pair.output_a,
                "generator_2": comparison.a,
                "annotator": vote.rater,
                "preference": 1 + told.preference,
                **({"dataset": pair.category} if pair.category else {}),
            }
        )
    write_atomically(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n", errors="replace")
