"""Pairs: two models' answers to the same instructions, matched by instruction, whatever their order and white space."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .outputs import ModelOutput


@dataclass(frozen=True)
class Pair:
    """Two answers to one instruction; `id` is the instruction's, with a number if it occurs more than once."""

    id: str
    instruction: str
    input: str
    output_a: str
    output_b: str
    category: str = ""


def pair_up(paths: Sequence[Path], outputs_a: list[ModelOutput], outputs_b: list[ModelOutput]) -> list[Pair]:
    """The pairs of two files of answers, in the order of the first.

    Texts are stripped of white space around them: a leading space would tell some models apart. Warns of answers
    without a partner, which are left out.

    Raises:
        DataError: the two have no instruction in common.
    """
    by_id_a, by_id_b = _by_id(outputs_a), _by_id(outputs_b)
    pairs = [
        Pair(
            id,
            one.instruction.strip(),
            one.input.strip(),
            one.output.strip(),
            by_id_b[id].output.strip(),
            one.category or by_id_b[id].category,
        )
        for id, one in by_id_a.items()
        if id in by_id_b
    ]
    alone = [
        (path, [made for id, made in own.items() if id not in other])
        for path, own, other in ((paths[0], by_id_a, by_id_b), (paths[1], by_id_b, by_id_a))
    ]
    told = "; ".join(
        f"{path} has {len(left):,} of {len(left) + len(pairs):,} alone, the first "
        f"{' '.join(left[0].instruction.split())[:60]!r}"
        for path, left in alone
        if left
    )
    if not pairs:
        raise DataError(f"the two files answer no instruction in common: {told}. Answer the same file with both.")
    if told:
        warnings.warn(f"answers without a partner in the other file are left out: {told}.", stacklevel=4)
    return pairs


def _by_id(outputs: Sequence[ModelOutput]) -> dict[str, ModelOutput]:
    """Answers by id; the second to the same instruction has `-2` after it, and so on."""
    seen: Counter[str] = Counter()
    found = {}
    for made in outputs:
        id = made.asked.id
        seen[id] += 1
        found[id if seen[id] == 1 else f"{id}-{seen[id]}"] = made
    return found
