"""A source as it is asked for: where it is, which part of it is meant, and how much of it an epoch takes.

    "a.json"                                                     all of it
    {"path": "a.json", "weight": 3}                              three times as many records an epoch as weight 1
    {"path": "b.csv", "columns": {"output": "answer"}}           keys of its own
    {"path": "org/chats", "split": "test", "revision": "v1.0"}   a data set of the hub, pinned
    {"path": "mine-vs-base", "votes": "every"}                   a comparison, each of its votes a preference

A mapping is known from a row by its key `path` and by the record that it does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import DataError, a, did_you_mean
from ..columns import Columns, check_columns, fields_of, names_record


@dataclass(frozen=True, eq=False)
class SourceEntry:
    """One entry of `data`; a folder or a pattern is one, too.

    Raises:
        DataError: A value cannot be meant.
    """

    path: str | Path
    weight: float | None = None
    """How many records an epoch takes of this source, relative to the others."""
    count: int | None = None
    """How many records an epoch takes of this source."""
    columns: Columns | None = None
    """As the setting `columns`, for this source alone."""
    split: str | None = None
    """Of a data set of the hub, or of a saved DatasetDict; "train" if left out."""
    config: str | None = None
    """Configuration ("subset") of a data set of the hub."""
    revision: str | None = None
    """Commit, tag or branch of a data set of the hub; `path@revision` says the same."""
    votes: str | None = None
    """Of a comparison's folder: "majority" (if left out), a record for each pair that most votes decide, or "every", a
    record for each vote."""
    raters: str | None = None
    """Of a comparison's folder: whose votes count, "people" or "judges"; needed if it has both."""

    def __post_init__(self) -> None:
        for name in ("split", "config", "revision"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise DataError(f"{self.path}: {name} is {value!r}, and must be a name.")
        for name, choices in (("votes", ("majority", "every")), ("raters", ("people", "judges"))):
            if getattr(self, name) not in (None, *choices):
                raise DataError(f"{self.path}: {name} is {getattr(self, name)!r}, and must be {' or '.join(choices)}.")
        if self.weight is not None:
            if not 0 < (weight := _number(self.weight)) < math.inf:
                raise DataError(f"{self.path}: weight is {self.weight!r}, and must be a number above 0.")
            object.__setattr__(self, "weight", weight)
        if self.count is not None:
            if not 1 <= (count := _number(self.count)) < math.inf or count != int(count):
                raise DataError(f"{self.path}: count is {self.count!r}, and must be a whole number of at least 1.")
            object.__setattr__(self, "count", int(count))
        if self.weight is not None and self.count is not None:
            raise DataError(f"{self.path}: weight and count both say how many records are taken. Give one.")
        if self.columns is not None:
            if not isinstance(self.columns, Mapping):
                raise DataError(f"{self.path}: columns is {self.columns!r}; write {{our field: your key}}.")
            check_columns(self.columns, fields_of(self.columns))

    def plain(self) -> str | dict[str, Any]:
        """As a run's file keeps it: a name, or a mapping where more was said."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return str(self.path) if said.keys() == {"path"} else {**said, "path": str(self.path)}

    def only_of_data_sets(self) -> str:
        """What was said that a file does not have: `split`, `config` or `revision`; or ""."""
        return next((name for name in ("split", "config", "revision") if getattr(self, name) is not None), "")


KEYS = tuple(entry.name for entry in fields(SourceEntry))


def is_source(entry: object) -> bool:
    """Whether an entry of a list names a source, and is no row."""
    if not isinstance(entry, Mapping):
        return isinstance(entry, (str, Path))
    if isinstance(entry.get("path"), (str, Path)):
        return not names_record(entry)
    return bool(entry) and {*entry} <= {*KEYS} and not names_record(entry)


def source_entries(data: object) -> list[SourceEntry] | None:
    """The sources that `data` names, or None if it holds rows, or is something else.

    Raises:
        DataError: An entry of a list of sources is none, or says what no source can be told.
    """
    if is_source(data):
        return [_entry(data, "data")]
    if not isinstance(data, Sequence) or not any(map(is_source, data)):
        return None
    return [_entry(one, f"data: entry {place} of the list") for place, one in enumerate(data, 1)]


def _entry(entry: Any, named: str) -> SourceEntry:
    if not is_source(entry) or not str(entry).strip():
        what = repr(entry) if isinstance(entry, (str, Path)) else a(type(entry).__name__)
        raise DataError(
            f"{named} is {what}, and others name sources. Give either a list of files, folders, patterns and hub ids, "
            "or a list of records; save the records to a file to use both."
        )
    if isinstance(entry, (str, Path)):
        return SourceEntry(entry)
    if not isinstance(entry.get("path"), (str, Path)):
        given = f"path is {entry['path']!r}" if "path" in entry else f"no path, but {', '.join(map(repr, entry))}"
        raise DataError(f"{named}: {given}. A source is told where it is by one name: path: a.json.")
    if unknown := next((key for key in entry if key not in KEYS), None):
        raise DataError(
            f"{named}, {entry['path']}: {unknown!r} is no key of a source."
            f"{did_you_mean(str(unknown), KEYS)} Beside path there are {', '.join(KEYS[1:])}."
        )
    return SourceEntry(**entry)


def _number(value: object) -> float:
    """A number, also one that YAML takes for a text (1e-1); NaN if it is none."""
    with suppress(ValueError, OverflowError):
        return float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    return math.nan
