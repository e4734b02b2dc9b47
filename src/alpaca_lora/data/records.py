"""Records: validated instruction, input and output texts, from any source.

`load_records` reads a file (JSON, JSON Lines, CSV, Parquet), a hub id, a list of dicts or a `datasets.Dataset` and
either returns records that training can use as they are, or raises an error that names the place and the fix.
`split_records` sets some aside for validation. 52,000 records (Alpaca's size) load in under a second; all of them
are held in memory.

    rows.py        one row -> one Record        jsonreader.py  JSON text -> rows
    sources.py     any source -> rows           tables.py      CSV, Parquet -> rows
"""

from __future__ import annotations

import hashlib
import math
import numbers
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, a, counted, did_you_mean
from .columns import Columns
from .oddities import OddTexts
from .rows import BLANK, FIELDS, Record, RowProblem, RowReader, Rows, is_blank, list_keys, name_numbers
from .sources import SEEDS, open_source
from .unread import UnreadKeys
from .unusable import Unusable

if TYPE_CHECKING:
    import datasets

__all__ = ["FIELDS", "SEEDS", "Record", "RecordSet", "load_records", "split_records"]

MAX_DROPPED_PERCENT = 5
_EMPTY_OUTPUT = "empty output"


@dataclass(frozen=True)
class RecordSet:
    """What a source gave.

    Attributes:
        records: The records kept, in the order of the source.
        numbers: For each of them its 1-based number in the source.
        source: File path, hub id, "seeds", "<list>" or "<dataset>"; for messages.
        dropped: Reason -> numbers of the records of the source that were dropped for it.
        unread: Key that no field was read from -> rows in which it holds something.
        parts: Name and number of rows of each of several sources; their records are numbered through.
    """

    records: list[Record]
    numbers: list[int]
    source: str
    dropped: dict[str, list[int]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    parts: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the texts of the records, in order; the same in every process and on every platform.

        Computed anew at each use: about 0.1 s for 52,000 records.
        """
        digest = hashlib.sha256()
        for record in self.records:
            for text in record:
                content = text.encode("utf-8")
                digest.update(len(content).to_bytes(8, "big"))  # so that ("ab", "c") is not ("a", "bc")
                digest.update(content)
        return digest.hexdigest()

    def subset(self, indices: Sequence[int]) -> RecordSet:
        """The records at `indices` (from 0), in that order, with their numbers. `dropped` stays the source's."""
        return RecordSet(
            [self.records[index] for index in indices],
            [self.numbers[index] for index in indices],
            self.source,
            self.dropped,
            self.unread,
            self.parts,
        )

    def describe(self) -> str:
        """Counts and drops in one line: `data.json: 98 records, 40 with an input; dropped 2 (empty output: 7, 31)`."""
        with_input = sum(1 for record in self.records if record.input)
        text = f"{self.source}: {counted(len(self), 'record')}, {with_input:,} with an input"
        total = sum(len(found) for found in self.dropped.values())
        if total:
            reasons = "; ".join(
                f"{reason}: {_first(found, self.parts)}" for reason, found in self.dropped.items() if found
            )
            text += f"; dropped {total:,} ({reasons})"
        return text


def load_records(
    data: str | Path | list[str | Path] | list[dict[str, Any]] | datasets.Dataset, *, columns: Columns | None = None
) -> RecordSet:
    """Reads and validates instruction data.

    Rows hold Alpaca keys (`instruction`, `input`, `output`) or one ShareGPT exchange (`conversations` or `messages`);
    `columns` names other keys. An absent or null input is "". Rows with an empty output are dropped with one warning,
    up to 5% of them. A key that is not read and would be missed is an error or a warning (unread.py says which). Texts
    such as "NaN", and control characters in texts, get a warning.

    Args:
        data: Path of a JSON, JSON Lines, CSV or Parquet file or of a folder written by `Dataset.save_to_disk`; a folder
            of such files, or a pattern (`data/*.json`), which are read in the order of their names; a Hugging Face hub
            id (its split "train"); "seeds" for the packaged records; a list of these, read one after the other; a list
            of dicts; or a `datasets.Dataset` (of a `DatasetDict`, the split "train").
        columns: Our field -> the source's key; a key of the source -> None leaves it out on purpose.

    Returns:
        The records in source order.

    Raises:
        DataError: A source or a record in it cannot be used; the message names file, record, line and fix.
        ConfigError: `columns` names a field that a record does not have.
        MissingDependencyError: The source needs a package that is not installed.

    Examples:
        >>> found = load_records([{"question": "2 + 3?", "answer": "5"}],
        ...                      columns={"instruction": "question", "output": "answer"})
        >>> found.records
        [Record(instruction='2 + 3?', input='', output='5')]
    """
    reader = RowReader(columns)
    rows = open_source(data)
    if not rows.values:
        raise DataError(f"{rows.source}: the source holds no records (0 rows). Add some, or name another source.")
    records: list[Record] = []
    kept: list[int] = []
    dropped: list[int] = []
    unread, unusable, odd = UnreadKeys(reader, rows.source), Unusable(rows), OddTexts()
    for index, row in enumerate(rows.values):
        try:
            record = reader.read(row)
            unread.see(index + 1, row, record)
            if is_blank(record.output):
                dropped.append(index + 1)
                continue
            if is_blank(record.instruction) and is_blank(record.input):
                raise RowProblem(BLANK, "instruction and input are both blank")
        except RowProblem as problem:
            unusable.add(index, problem)
            continue
        odd.see(index + 1, record)
        records.append(record)
        kept.append(index + 1)
    found = unread.found()
    lost = [one for one in found if one.severity == "error"]
    problems = list(_column_problems(reader, unread, rows)) if not unusable else []
    empty = _empty_outputs(rows, dropped)
    if empty and not empty.endswith("dropped."):
        problems.append(empty)
    if unusable or lost or problems:
        raise DataError(unusable.message(lost, problems))
    # Level 2: the caller of load_records.
    if empty:
        warnings.warn(f"{rows.source}: {empty} Fill them in or remove them.", stacklevel=2)
    told = [one.sentences(len(rows.values), rows.parts) for one in found if one.severity == "warn"]
    if told := [*told, *odd.sentences(len(rows.values), rows.parts)]:
        warnings.warn(f"{rows.source}: {' '.join(told)}", stacklevel=2)
    return RecordSet(
        records,
        kept,
        rows.source,
        {_EMPTY_OUTPUT: dropped} if dropped else {},
        {one.key: len(one.records) for one in found},
        rows.parts,
    )


def split_records(records: RecordSet, val_set_size: int | float, seed: int) -> tuple[RecordSet, RecordSet]:
    """Sets records aside for validation.

    Each record gets a random number and the smallest win: the same (content, seed) gives the same split on every
    platform and Python version, and a larger `val_set_size` only adds records to the validation set.

    Args:
        records: What to split.
        val_set_size: A count of records, or a fraction in [0, 1), rounded, of at least one record when above 0.
        seed: Seed of the draw.

    Returns:
        (train, validation), both in source order; validation is empty for 0.

    Raises:
        ConfigError: The size is negative, no number, a fraction outside [0, 1), or leaves nothing to train on.
    """
    size = _validation_count(val_set_size, len(records), records.source)
    # Only `random()` is promised to repeat across versions of Python; `shuffle` and `sample` are not.
    generator = random.Random(int(seed))
    keys = [generator.random() for _ in range(len(records))]
    chosen = set(sorted(range(len(records)), key=keys.__getitem__)[:size])
    train = [index for index in range(len(records)) if index not in chosen]
    return records.subset(train), records.subset(sorted(chosen))


def _validation_count(val_set_size: Any, total: int, source: str) -> int:
    name = f"val_set_size: {val_set_size!r}"
    if isinstance(val_set_size, bool) or not isinstance(val_set_size, numbers.Real):
        raise ConfigError(
            f"{name} is {a(type(val_set_size).__name__)}; give a count of records, or a fraction in [0, 1)."
        )
    if isinstance(val_set_size, numbers.Integral):
        size = int(val_set_size)
        if size < 0:
            raise ConfigError(f"{name} is negative; give a count from 0 (no validation) to {max(total - 1, 0):,}.")
        shown = f"{size:,}"
    else:
        fraction = float(val_set_size)
        if not (math.isfinite(fraction) and 0 <= fraction < 1):
            advice = f" For a count write {int(fraction)}." if math.isfinite(fraction) and fraction >= 1 else ""
            raise ConfigError(f"{name} is a fraction outside [0, 1).{advice}")
        size = max(1, round(fraction * total)) if fraction else 0
        shown = f"{fraction:g} of {total:,} rounds to {size:,}, and {size:,}"
    if size and size >= total:
        raise ConfigError(
            f"{name}: {shown} for validation of {counted(total, 'record')} in {source} leaves "
            f"{total:,} - {size:,} = {total - size:,} to train on. "
            + (f"Give at most {total - 1:,}." if total > 1 else "Give 0, or more data.")
        )
    return size


def _column_problems(reader: RowReader, unread: UnreadKeys, rows: Rows) -> Iterator[str]:
    """What `columns` names and no row has."""
    if missing := reader.missing_column():
        yield (
            f"columns reads 'input' from {missing!r}, which no record has. "
            f"Keys of the first record: {list_keys(rows.values[0])}."
        )
    for key in unread.never_there():
        near = did_you_mean(key, map(str, rows.values[0]))
        yield f"columns leaves out {key!r}, which no record has.{near} Keys of the first record: " + (
            f"{list_keys(rows.values[0])}."
        )


def _empty_outputs(rows: Rows, dropped: list[int]) -> str:
    """What to say of empty outputs; it ends in "they are dropped." where that is allowed."""
    if not dropped:
        return ""
    count, total = len(dropped), len(rows.values)
    found = f"{shown_numbers(dropped, total, rows.parts)} have an empty output"
    if count * 100 <= total * MAX_DROPPED_PERCENT:
        return f"{found}; they are dropped."
    left = "none is left" if count == total else f"at most {MAX_DROPPED_PERCENT}% may be dropped"
    return (
        f"{found}; {left}. Fill them in, remove these records, or name the right column with columns={{'output': ...}}."
    )


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
