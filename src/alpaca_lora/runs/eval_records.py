"""eval_records.jsonl: the loss of every validation record at every evaluation, so that runs can be compared in pairs.

{"records": [7, 31], "hashes": ["9f86d081884c7d65", "60303ae22b998861"], "tokens": [12, 30]}
{"step": 0, "losses": [31.20418, 70.0125]}
{"step": 200, "losses": [20.7161, 55.90033]}

A record's loss is the sum over its supervised tokens; a conversation is one record. So sum(losses) / sum(tokens) is
that evaluation's `eval_loss`. A pair of `objective: dpo` counts as one token, one of `orpo` as its chosen answer's.
Costs about 9 bytes a record and evaluation; checkpoints hold copies.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.record import content_of
from ..data.records import RecordSet
from ..data.tokens import Examples
from ..errors import DataError
from ..files import write_atomically
from ..textfiles import parse_json, read_text_file, read_whole_file

NAME = "eval_records.jsonl"
_DIGITS = 7  # significant; float32 has no more


@dataclass(frozen=True)
class EvalRecords:
    """Validation records and their losses; n records, in the order of the validation set.

    Args:
        records: Record numbers, shape (n,).
        hashes: 16 hex digits of the SHA-256 of each record's content.
        tokens: Supervised tokens of each, int64, shape (n,).
        losses: By optimizer step, 0 before the first: sums of token losses, float64, shape (n,).
    """

    records: list[int]
    hashes: list[str]
    tokens: np.ndarray
    losses: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, source: RecordSet, examples: Examples, objective: str = "sft") -> EvalRecords:
        """Those of encoded records, no evaluation yet; `source` holds them and maybe others."""
        contents = dict(zip(source.numbers, source.records, strict=True))
        starts = examples.record_starts[:-1]
        numbers = examples.record_numbers[starts].tolist()
        hashes = [hashlib.sha256(content_of(contents[number])).hexdigest()[:16] for number in numbers]
        tokens = np.add.reduceat(examples.supervised, starts)
        if objective != "sft":
            tokens = np.ones_like(tokens) if objective == "dpo" else examples.supervised[starts]
        return cls(numbers, hashes, tokens)

    def mean(self, step: int) -> float:
        """Loss per supervised token after a step: that evaluation's `eval_loss`."""
        return float(self.losses[step].sum() / self.tokens.sum())

    def begin(self, output_dir: Path, checkpoint: Path | None) -> None:
        """Begin a run's file, or take it up as it was when a checkpoint was saved.

        Args:
            output_dir: The run's folder.
            checkpoint: The checkpoint the run continues from; None where it starts. One saved by a version that kept
                no such file leaves the earlier evaluations out.
        """
        first = {"records": self.records, "hashes": self.hashes, "tokens": self.tokens.tolist()}
        text = json.dumps(first) + "\n"
        if checkpoint is not None and (copy := checkpoint / NAME).exists():
            text = read_text_file(copy, DataError)
        write_atomically(output_dir / NAME, text)


def append_losses(output_dir: Path, step: int, losses: np.ndarray) -> None:
    """Add an evaluation; `losses` are sums of token losses by record."""
    rounded = [float(f"{loss:.{_DIGITS}g}") for loss in losses]
    with (output_dir / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "losses": rounded}) + "\n")


def read_eval_records(output_dir: str | Path) -> EvalRecords | None:
    """A run's; None where it has no such file. An unfinished last line (a killed run) is left out.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(output_dir) / NAME
    if not os.path.exists(path):
        return None
    found: EvalRecords | None = None
    for number, line in enumerate(read_whole_file(path, DataError).split(b"\n")[:-1], 1):  # a whole one ends so
        try:
            entry = parse_json(line.decode(), "", DataError)
            if found is None:
                found = EvalRecords(entry["records"], entry["hashes"], np.asarray(entry["tokens"], np.int64))
                _check(found)
            else:
                losses = np.asarray(entry["losses"], np.float64)
                fits = losses.shape == found.tokens.shape and bool(np.isfinite(losses).all())
                if type(entry["step"]) is not int or not fits:
                    raise ValueError("not a loss for each record")
                found.losses[entry["step"]] = losses
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(
                f"{path}: line {number} is not a line of a run's validation losses by record. The run's checkpoints "
                "hold copies of this file; copy the newest one here."
            ) from error
    return found


def _check(found: EvalRecords) -> None:
    """Raise ValueError if a first line does not say the same of each record."""
    for values, kind in ((found.records, int), (found.hashes, str)):
        if not isinstance(values, list) or any(type(value) is not kind for value in values):
            raise ValueError("another type")
    if not len(found.records) == len(found.hashes) == len(found.tokens) > 0 or (found.tokens < 1).any():
        raise ValueError("not one of each")
