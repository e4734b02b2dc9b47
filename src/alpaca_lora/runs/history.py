"""history.jsonl: one line per optimizer step and per evaluation (step 0, before the first step, included).

{"step": 1, "epoch": 0.07, "loss": 2.31, "learning_rate": 3e-05, "grad_norm": 0.9, "supervised_tokens": 1204,
 "computed_tokens": 2310, "seconds": 4.1}
{"step": 0, "epoch": 0, "eval_loss": 2.18}

Lines of preference training also have means over the step's pairs (an evaluation's over all, with `eval_` before the
name): "rewards/chosen", "rewards/rejected", "rewards/margins" (their difference), "rewards/accuracies" (how often the
chosen answer's is the higher one).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_atomically
from ..textfiles import parse_json, read_text_file, read_whole_file

NAME = "history.jsonl"


def read_history(output_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's history, oldest first; an unfinished last line (a killed run) is left out."""
    path = Path(output_dir) / NAME
    if not os.path.exists(path):
        return []
    found = []
    for number, line in enumerate(read_whole_file(path, DataError).split(b"\n")[:-1], 1):  # a whole one ends so
        try:
            entry = parse_json(line.decode(), "", DataError)
            if type(entry["step"]) is not int or not all(type(value) in (int, float) for value in entry.values()):
                raise ValueError("what is no number")
            found.append(entry)
        except (ValueError, KeyError) as error:
            raise DataError(
                f"{path}: line {number} is not a line of a run's history. The run's checkpoints hold copies of this "
                "file; copy the newest one here."
            ) from error
    return found


def begin_history(output_dir: Path, checkpoint: Path | None) -> None:
    """Begin a run's history, or take it up as it was when a checkpoint was saved.

    Lines after the checkpoint belong to steps that are done again. What became of the run's own file since does not
    matter: the checkpoint's copy is as durable as the checkpoint.

    Args:
        output_dir: The run's folder.
        checkpoint: The checkpoint the run continues from; None where it starts.
    """
    if checkpoint is None:
        text = ""
    elif (copy := checkpoint / NAME).exists():
        text = read_text_file(copy, DataError)
    else:  # saved by a version that kept no copy
        done = [line for line in read_history(output_dir) if line["step"] <= int(checkpoint.name.rpartition("-")[2])]
        text = "".join(json.dumps(line) + "\n" for line in done)
    write_atomically(output_dir / NAME, text)
