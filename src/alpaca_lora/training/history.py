"""history.jsonl: a line an optimizer step, and a line an evaluation (step 0, before the first step, included).

{"step": 1, "epoch": 0.07, "loss": 2.31, "learning_rate": 3e-05, "grad_norm": 0.9, "supervised_tokens": 1204,
 "computed_tokens": 2310, "seconds": 4.1}
{"step": 0, "epoch": 0, "eval_loss": 2.18}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.files import write_atomically

NAME = "history.jsonl"


def read_history(output_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's history, oldest first; an unfinished last line (a killed run) is left out."""
    path = Path(output_dir) / NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a whole line ends in a newline
    return [json.loads(line) for line in lines]


def write_history(output_dir: str | Path, lines: list[dict[str, Any]]) -> None:
    """Replace a run's history."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(Path(output_dir) / NAME, text)
