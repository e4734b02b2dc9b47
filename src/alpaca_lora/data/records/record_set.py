"""What a source gave: its records, their numbers in it, and what was dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ...errors import DataError, counted
from ..record import AnyRecord, Conversation, Preference, Record, content_of
from ..sources.entry import SourceEntry
from ..sources.rows import name_numbers


@dataclass(frozen=True)
class RecordSet:
    """What a source gave; `len`, loops and `records[3]` are those of its list of records.

    Attributes:
        records: The records kept, in the order of the source.
        numbers: For each of them its 1-based number in the source.
        source: File path, hub id, "seeds", "<list>" or "<dataset>", for messages.
        dropped: Reason -> numbers of the records of the source that were dropped for it.
        unread: Key that no field was read from -> rows in which it holds something.
        parts: Name and number of rows of each of several sources; their records are numbered through.
        unlearned: Reason -> answers of trees of replies that are not learned for it.
        entries: For each source the entry of `data` that it belongs to.
        commits: For each source the commit of the hub that was read; None for others.
        notes: What sources tell of their rows.
    """

    records: list[AnyRecord]
    numbers: list[int]
    source: str
    dropped: dict[str, list[int]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    parts: tuple[tuple[str, int], ...] = ()
    unlearned: dict[str, int] = field(default_factory=dict)
    entries: tuple[SourceEntry, ...] = ()
    commits: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[AnyRecord]:
        return iter(self.records)

    def __getitem__(self, index: int) -> AnyRecord:
        return self.records[index]

    @property
    def instructions(self) -> list[Record]:
        """The records, none of which may be a conversation.

        Raises:
            DataError: one is.
        """
        found = [record for record in self.records if isinstance(record, Record)]
        if len(found) < len(self.records):
            numbers = [n for n, one in zip(self.numbers, self.records, strict=True) if not isinstance(one, Record)]
            said = shown_numbers(numbers, len(self.records), self.parts)
            raise DataError(f"{self.source}: conversations cannot be used here, and these are: {said}. Remove them.")
        return found

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the texts of the records, in order; the same in every process and on every platform.

        Computed anew at each use: about 0.1 s for 52,000 records.
        """
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(content_of(record))
        return digest.hexdigest()

    def subset(self, indices: Sequence[int]) -> RecordSet:
        """The records at `indices` (from 0), in that order, with their numbers. `dropped` stays the source's."""
        return replace(
            self, records=[self.records[index] for index in indices], numbers=[self.numbers[index] for index in indices]
        )

    def describe(self) -> str:
        """Counts and drops in one line: `data.json: 98 records, 40 with an input; dropped 2 (empty output: 7, 31)`."""
        with_input = sum(1 for record in self.records if isinstance(record, Record) and record.input)
        text = f"{self.source}: {counted(len(self), 'record')}, {with_input:,} with an input"
        for kind, noun in ((Conversation, "conversation"), (Preference, "preference")):
            if found := sum(isinstance(record, kind) for record in self.records):
                text += f", {counted(found, noun)}"
        total = sum(len(found) for found in self.dropped.values())
        if total:
            named = (f"{reason}: {_first(found, self.parts)}" for reason, found in self.dropped.items() if found)
            text += f"; dropped {total:,} ({'; '.join(named)})"
        return text


def shown_numbers(numbers: list[int], total: int, parts: Sequence[tuple[str, int]] = ()) -> str:
    """How many records of how many, and the first of them; `parts` as in `RecordSet`.

    Example:
        >>> shown_numbers([3, 8], 40)
        '2 of 40 records (5.0%; numbers 3, 8)'
    """
    count = len(numbers)
    return f"{count:,} of {counted(total, 'record')} ({count / total:.1%}; numbers {_first(numbers, parts)})"


def _first(found: list[int], parts: Sequence[tuple[str, int]]) -> str:
    return name_numbers(found, parts, 5, " and {:,} more")
