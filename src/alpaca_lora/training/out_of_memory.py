"""Packs that turned out too large for the memory, split: the same examples in smaller packs, and so the same loss.

The trainer catches the error (`trainer.py`) and does the step again with these."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.packs import per_example
from ..data.plan import Planner
from ..data.step_dataset import collate
from ..errors import TrainingError
from ..models.distributed import processes


class MicroBatch(NamedTuple):
    """A collated pack, and the examples in it."""

    inputs: dict[str, Any]
    members: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens the model processes, padding included."""
        return self.inputs["input_ids"].numel()

    def targets_of_examples(self, supervised: np.ndarray) -> np.ndarray:
        """Which targets each example has.

        Args:
            supervised: Supervised tokens of every example there is.

        Returns:
            bool, shape (len(members), targets).
        """
        counts = supervised[self.members]
        owners = np.repeat(np.arange(len(counts)), counts)
        places = self.inputs["rows"].cpu().numpy() if "rows" in self.inputs else np.arange(len(owners))
        found = np.zeros((len(counts), len(self.inputs["targets"])), bool)
        found[owners, places] = True
        return found

    def by_example(self, values_M: torch.Tensor, supervised: np.ndarray) -> np.ndarray:
        """A value at each target, summed over those of each example; a target of several counts for each of them.

        Args:
            values_M: float32, shape (targets,).
            supervised: Supervised tokens of every example there is.

        Returns:
            float64, shape (len(members),).
        """
        rows = self.inputs["rows"].cpu().numpy() if "rows" in self.inputs else None
        return per_example(values_M.cpu().numpy().astype(np.float64), rows, supervised[self.members])


class PackLimit:
    """The most tokens a micro-batch may hold from now on: no limit until memory runs out, then half of what failed.

    Attributes:
        tokens: The limit; None where there is none.
    """

    def __init__(self) -> None:
        self.tokens: int | None = None

    def parts(self, batch: MicroBatch, planner: Planner) -> list[MicroBatch]:
        """A micro-batch as it is, or as several that keep the limit; what cannot be split stays."""
        if self.tokens is None or batch.tokens <= self.tokens or not planner.divisible(batch.members):
            return [batch]
        small = replace(planner, max_tokens=self.tokens, ranks=1)
        plan = small.plan(batch.members, min(small.packs_needed(batch.members), len(batch.members)))
        return [MicroBatch(collate([planner.build(part)]), part) for part in plan.packs]

    def share(self) -> None:
        """Take the smallest limit of all processes; all must call this. What is too large for one is so for most."""
        state = processes()
        most = torch.iinfo(torch.long).max
        limit = torch.tensor(most if self.tokens is None else self.tokens, device=state.device)
        torch.distributed.all_reduce(limit, torch.distributed.ReduceOp.MIN)
        self.tokens = None if int(limit) == most else int(limit)

    def halve(self, batch: MicroBatch, planner: Planner, step: int) -> None:
        """Lower the limit after a micro-batch did not fit.

        Raises:
            TrainingError: it holds a single example, or pair of answers, already.
        """
        parts = self.parts(batch, planner)
        if not any(planner.divisible(part.members) for part in parts):
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
