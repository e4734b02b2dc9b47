"""Rows: what a source holds, before it is known to be records, with the place of each."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from .entry import SourceEntry


@dataclass(frozen=True)
class Rows:
    """The rows of a source, or of several one after the other, in order.

    Attributes:
        values: The rows; each should be a dict, which nobody has checked yet.
        source: File path, hub id, or "<list>" and the like; for several, their names with " + " between them.
        lines: For text files, the 1-based line each row starts on.
        parts: Name and number of rows of each of several sources; else empty.
        entries: For each source the entry of `data` that it belongs to; empty for rows that no source holds.
        commits: For each source the commit of the hub that was read; None for others.
        left_out: Index of a row (from 0) -> why its source leaves it out, for rows that only keep a place.
        notes: What sources tell of their rows.
    """

    values: list[Any]
    source: str
    lines: list[int] | None = None
    parts: tuple[tuple[str, int], ...] = ()
    entries: tuple[SourceEntry, ...] = ()
    commits: tuple[str | None, ...] = ()
    left_out: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def where(self, index: int) -> str:
        """The place of row `index` (from 0) in words: `data.json, record 3 (line 12)`."""
        source, number = place_in(self.parts, index + 1)
        line = f" (line {self.lines[index]})" if self.lines and self.lines[index] else ""
        return f"{source or self.source}, record {number}{line}"

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Several sources as one, in this order; each row keeps its place in its own."""
        firsts = accumulate((len(part.values) for part in parts), initial=0)
        lines = [line for part in parts for line in (part.lines or [0] * len(part.values))]
        return cls(
            [row for part in parts for row in part.values],
            " + ".join(part.source for part in parts),
            lines if any(lines) else None,
            tuple((part.source, len(part.values)) for part in parts),
            tuple(entry for part in parts for entry in part.entries),
            tuple(commit for part in parts for commit in part.commits),
            {first + at: why for first, part in zip(firsts, parts, strict=False) for at, why in part.left_out.items()},
            tuple(note for part in parts for note in part.notes),
        )


def place_in(parts: Sequence[tuple[str, int]], number: int) -> tuple[str, int]:
    """The source of record `number` (from 1) and its number there; ("", number) if there is only one source.

    Example:
        >>> place_in([("a.json", 3), ("b.json", 2)], 5)
        ('b.json', 2)
    """
    if not parts:
        return "", number
    ends = list(accumulate(count for _, count in parts))
    part = min(bisect_right(ends, number - 1), len(parts) - 1)
    return parts[part][0], number - (ends[part - 1] if part else 0)


def name_numbers(found: Sequence[int], parts: Sequence[tuple[str, int]], limit: int = 1, more: str = "") -> str:
    """The first `limit` record numbers of a list, with their source if there are several: `b.json 3, b.json 7, ...`."""
    places = (place_in(parts, number) for number in found[:limit])
    shown = ", ".join(f"{source} {number}" if source else str(number) for source, number in places)
    return shown + (more.format(len(found) - limit) if len(found) > limit else "")


def path_of(name: str | Path) -> Path:
    """The path a source's name means: `~` and `~user` are homes, if there is one; `~$my.json` is a file's name."""
    return Path(os.path.expanduser(name))
