"""Faults of preferences: those of both answers, and those between them and among pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import counted
from ..record import Preference, Record, as_record, exchanges
from ..records.preferences import EMPTY_ANSWER, OTHER_PROMPT, SAME_ANSWERS, why_unusable
from .findings import Found, excerpt
from .leftovers import check_leftovers
from .personal import check_personal
from .tasks import check_tasks
from .texts import check_texts

_UNUSABLE = {EMPTY_ANSWER: "empty-output", SAME_ANSWERS: "same-answers", OTHER_PROMPT: "other-prompt"}
_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen_rating", "rejected_rating"))


class PairChecks:
    """Checks the preferences of a source, one after the other.

    Args:
        removed: What `fix` does about a pair that it takes out.
    """

    def __init__(self, removed: str) -> None:
        self._removed = removed
        self._seen: dict[str, int] = {}
        self._prompts: set[tuple[str, str]] = set()
        self._lengths: list[tuple[int, int]] = []

    def check(self, number: int, row: Mapping[str, Any], pair: Preference) -> tuple[Record | None, list[Found]]:
        """The prompt and both answers as one record, None if the pair is removed; and its faults."""
        if reason := why_unusable(pair):
            texts = " | ".join(excerpt(text) for text in pair.answers)
            return None, [Found(_UNUSABLE[reason], "chosen", texts, self._removed)]
        key, turned = pair.canonical, pair.turned().canonical
        if key in self._seen:
            before = f"record {self._seen[key]}: {excerpt(pair.answers[0])}"
            return None, [Found("duplicate", "chosen", before, self._removed)]
        found = []
        if turned in self._seen:
            found.append(Found("contradiction", "chosen", f"record {self._seen[turned]}: {excerpt(pair.answers[0])}"))
        self._seen[key] = number
        chosen, rejected = (len(text.split()) for text in pair.answers)
        self._lengths.append((chosen, rejected))
        found += _scores(row)
        return as_record(pair), found + _of_texts(pair)

    def is_new(self, record: Record) -> bool:
        """Whether a prompt is asked for the first time; several pairs on one are no fault."""
        prompt = record[:2]
        new = prompt not in self._prompts
        self._prompts.add(prompt)
        return new

    @property
    def figures(self) -> list[str]:
        """How long the better answers are against the others, in a sentence."""
        if not self._lengths:
            return []
        chosen, rejected = np.array(self._lengths).T
        return [
            f"The chosen answer is longer in {np.mean(chosen > rejected):.1%} of {counted(len(chosen), 'pair')} and "
            f"shorter in {np.mean(chosen < rejected):.1%}; the median is {np.median(chosen):.0f} words against "
            f"{np.median(rejected):.0f}."
        ]


def _of_texts(pair: Preference) -> list[Found]:
    """Faults of the prompt, told once, and of either answer under its name, each check's first one."""
    found: dict[tuple[str, str], Found] = {}
    for name, told in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        for record in exchanges(told):
            for check in (check_texts, check_leftovers, check_personal, check_tasks):
                for fault in check(record):
                    field = name if fault.field == "output" else fault.field
                    found.setdefault((fault.check, field), fault._replace(field=field))
    return [*found.values()]


def _scores(row: Mapping[str, Any]) -> list[Found]:
    """A finding if scores of the answers stand in the row and do not prefer the chosen one."""
    for names in _SCORES:
        chosen, rejected = (row.get(name) for name in names)
        if isinstance(chosen, (int, float)) and isinstance(rejected, (int, float)) and chosen <= rejected:
            return [Found("score-order", names[0], f"{names[0]} {chosen:g}, {names[1]} {rejected:g}")]
    return []
