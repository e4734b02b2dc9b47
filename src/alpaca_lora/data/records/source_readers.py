"""The reader of each source: those that name columns of their own have one each, the others share one."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from ...errors import ConfigError, DataError, did_you_mean
from ..columns import Columns, list_keys
from ..sources import Rows
from .key_rules import UnreadKey
from .preferences import PreferenceReader
from .reader import RowReader
from .unread_keys import UnreadKeys


def compares(objective: str) -> bool:
    """Whether an objective is for preferences.

    Raises:
        ConfigError: there is none of that name.
    """
    if objective not in ("sft", "dpo", "orpo"):
        raise ConfigError(f"objective: {objective!r} must be sft, dpo or orpo.")
    return objective != "sft"


def reader_for(compared: bool) -> type[RowReader]:
    """What reads rows, which are preferences if `compared`."""
    return PreferenceReader if compared else RowReader


class SourceReader(NamedTuple):
    """How rows are read, and what is left of them."""

    reader: RowReader
    unread: UnreadKeys
    first: int
    """Index of the first row that it reads."""


class SourceReaders:
    """Which reader reads a row.

    Args:
        rows: What sources hold.
        columns: For the sources that name none of their own.
        compared: Rows are preferences.

    Raises:
        ConfigError: every source names its own, and these are for none; or they are wrong.
        DataError: a source is a comparison, which has preferences only.
    """

    def __init__(self, rows: Rows, columns: Columns | None, compared: bool = False) -> None:
        if rows.notes and not compared:
            raise DataError(
                f"{rows.source}: it holds a comparison, whose votes say which of two answers is better. To train on "
                "them, set objective=dpo, or orpo."
            )
        own = [entry.columns for entry in rows.entries] or [None]
        if columns is not None and all(one is not None for one in own):
            raise ConfigError("columns: each source of data names its own, so that these are for none. Leave them out.")
        self._ends = list(accumulate(count for _, count in rows.parts)) or [len(rows.values)]
        self._readers: list[SourceReader] = []
        made: dict[int, SourceReader] = {}
        for start, given in zip([0, *self._ends], own, strict=False):
            key = id(given) if given is not None else 0
            if key not in made:
                reader = reader_for(compared)(given if given is not None else columns)
                made[key] = SourceReader(reader, UnreadKeys(reader), start)
            self._readers.append(made[key])
        self._each = [*made.values()]

    def of(self, index: int) -> SourceReader:
        """The reader of row `index` (from 0)."""
        return self._readers[0 if len(self._readers) == 1 else bisect_right(self._ends, index)]

    def unread(self) -> list[UnreadKey]:
        """What `UnreadKeys.found` says of all sources, errors first."""
        found = [one for each in self._each for one in each.unread.found()]
        return sorted(found, key=lambda one: ("error", "warn", "").index(one.severity))

    def unlearned(self) -> Counter[str]:
        """Answers of trees that are not learned, by reason."""
        return sum((each.reader.unlearned for each in self._each), Counter())

    def unanswered(self) -> int:
        """Conversations that end in turns that nobody answers."""
        return sum(each.reader.unanswered for each in self._each)

    def repeated_prompts(self, rows: Rows) -> Iterator[str]:
        """What is said if most answers of preferences begin with the prompt, so that it would stand twice."""
        count = sum(each.reader.repeated for each in self._each)
        if 2 * count > len(rows.values):
            yield (
                f"both answers begin with the prompt in {count:,} of {len(rows.values):,} rows, where it would stand "
                "twice. Take it out of the answers, or leave the prompt's key out and give both as lists of messages."
            )

    def column_problems(self, rows: Rows) -> Iterator[str]:
        """What `columns` names and no row has."""
        for reader, unread, first in self._each:
            row = rows.values[first]
            if missing := reader.missing_column():
                yield (
                    f"columns reads 'input' from {missing!r}, which no record has. "
                    f"Keys of the first record: {list_keys(row)}."
                )
            for key in unread.never_there():
                yield (
                    f"columns leaves out {key!r}, which no record has.{did_you_mean(key, map(str, row))} Keys of the "
                    f"first record: {list_keys(row)}."
                )
