"""Candidates: what a completion holds before it is known to be records, and the names their fields go by."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..data.records import Record

NAMES = {
    "instruction": ("instruction", "instructions", "task", "question", "prompt", "request"),
    "input": ("input", "inputs", "context"),
    "output": ("output", "outputs", "answer", "response", "expected output", "solution"),
}
"""Field of a record -> the names that models give it, in any case."""

_NO_INPUT = re.compile(
    r"[\s<\[({\"'*_`]*(?:(?:no[\s_-]?inputs?|none)(?:\s+(?:is\s+)?(?:needed|required|provided|given|necessary))?|n\s*/?\s*a|"
    r"nil|null|empty|blank|not\s+(?:applicable|needed|required|provided)|[-–—]*)[\s>\])}\"'*_`.]*",
    re.IGNORECASE,
)
_LONGEST_PLACEHOLDER = 60


class Candidate(NamedTuple):
    """One task in a completion.

    Attributes:
        raw: Its text as it stood there.
        record: Its texts, stripped, perhaps empty; None if they cannot be told apart.
        whole: Whether it was written to its end.
    """

    raw: str
    record: Record | None
    whole: bool


def without_placeholder(value: str) -> str:
    """An input, stripped; "" for the many ways to say that there is none.

    Example:
        >>> [without_placeholder(text) for text in ("<noinput>", "N/A", "*None*", "No input needed.", "None of them.")]
        ['', '', '', '', 'None of them.']
    """
    value = value.strip()
    return "" if len(value) <= _LONGEST_PLACEHOLDER and _NO_INPUT.fullmatch(value) else value
