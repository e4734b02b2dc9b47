"""Packs that turned out too large for the memory, split: the same examples in smaller packs, and so the same loss.

`AlpacaTrainer.training_step` catches the error and does the step again with these."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..data.plan import Planner
from ..data.steps import collate
from ..errors import TrainingError


class MicroBatch(NamedTuple):
    """A collated pack, and the examples in it."""

    inputs: dict[str, Any]
    members: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens the model processes, padding included."""
        return self.inputs["input_ids"].numel()


class PackLimit:
    """The most tokens a micro-batch may hold from now on: no limit until memory runs out, then half of what failed.

    Attributes:
        tokens: The limit; None where there is none.
    """

    def __init__(self) -> None:
        self.tokens: int | None = None

    def parts(self, batch: MicroBatch, planner: Planner) -> list[MicroBatch]:
        """A micro-batch as it is, or as several that keep the limit; a single example is never split."""
        if self.tokens is None or batch.tokens <= self.tokens or len(batch.members) == 1:
            return [batch]
        small = replace(planner, max_tokens=self.tokens, ranks=1)
        plan = small.plan(batch.members, min(small.packs_needed(batch.members), len(batch.members)))
        return [MicroBatch(collate([planner.build(part)]), part) for part in plan.packs]

    def halve(self, batch: MicroBatch, planner: Planner, step: int) -> None:
        """Lower the limit after a micro-batch did not fit.

        Raises:
            TrainingError: it holds a single example already.
        """
        parts = self.parts(batch, planner)
        if all(len(part.members) == 1 for part in parts):
            longest = max(batch.members, key=lambda member: planner.examples.lengths[member])
            raise TrainingError(
                f"step {step}: record {planner.examples.record_numbers[longest]} alone, "
                f"{planner.examples.lengths[longest]} tokens, does not fit into memory. Lower cutoff_len, or set "
                "gradient_checkpointing=true or method=qlora."
            )
        size = max(part.tokens for part in parts)
        self.tokens = size // 2
        warnings.warn(
            f"step {step}: a micro-batch of {size} tokens did not fit into memory. The step is done again in "
            f"micro-batches of at most {self.tokens}, and so are all that follow: same examples, same loss, some more "
            "time.",
            stacklevel=3,
        )
