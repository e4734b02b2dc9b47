"""Packs that turned out too large for the memory, split: the same examples in smaller packs, and so the same loss."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from ..data.collator import collate
from ..data.packs import build_pack
from ..data.plan import Planner
from ..errors import TrainingError


class PackLimit:
    """The most tokens a micro-batch may hold from now on: no limit until memory runs out, then half of what failed.

    Attributes:
        tokens: The limit; None where there is none.
    """

    def __init__(self) -> None:
        self.tokens: int | None = None

    def parts(self, inputs: dict[str, Any], planner: Planner) -> list[dict[str, Any]]:
        """A collated pack as it is, or as several that keep the limit; a single example is never split."""
        if self.tokens is None or inputs["input_ids"].numel() <= self.tokens or len(inputs["members"]) == 1:
            return [inputs]
        small = replace(planner, max_tokens=self.tokens, ranks=1)
        members = inputs["members"]
        plan = small.plan(members, min(small.packs_needed(members), len(members)))
        packs = [(part, build_pack(planner.examples, part, planner.layout, planner.multiple)) for part in plan.packs]
        return [collate([{"pack": pack, "members": part, "plan": inputs["plan"]}]) for part, pack in packs]

    def halve(self, inputs: dict[str, Any], planner: Planner, step: int) -> None:
        """Lower the limit after a pack did not fit.

        Raises:
            TrainingError: it holds a single example already.
        """
        parts = self.parts(inputs, planner)
        if all(len(part["members"]) == 1 for part in parts):
            longest = max(inputs["members"], key=lambda member: planner.examples.lengths[member])
            raise TrainingError(
                f"step {step}: record {planner.examples.record_numbers[longest]} alone, "
                f"{planner.examples.lengths[longest]} tokens, does not fit into memory. Lower cutoff_len, or set "
                "gradient_checkpointing=true or method=qlora."
            )
        size = max(part["input_ids"].numel() for part in parts)
        self.tokens = size // 2
        warnings.warn(
            f"step {step}: a micro-batch of {size} tokens did not fit into memory. The step is done again in "
            f"micro-batches of at most {self.tokens}, and so are all that follow: same examples, same loss, some more "
            "time.",
            stacklevel=3,
        )
