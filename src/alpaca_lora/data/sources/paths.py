"""Which single sources a list, a pattern or a folder of data files stands for, in which order.

A list keeps its order; what a pattern or a folder gives is sorted by name. Names are given back as they were written,
so that messages and a run's file show what the user knows. Nothing is read, except files of the same size, which are
compared: a copy would count twice.
"""

from __future__ import annotations

import filecmp
import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError, did_you_mean
from ..columns import list_keys
from .comparisons import is_comparison
from .compressed import inner_suffix
from .entry import SourceEntry
from .parts import missing_parts
from .rows import path_of

SAVED = ("state.json", "dataset_dict.json")
"""Files that mark a folder written by `Dataset.save_to_disk`, which is one source."""

_KINDS = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "JSON"),
    **dict.fromkeys((".csv", ".tsv"), "CSV"),
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
}
_NO_DATA = re.compile(r"(readme|licen[cs]e|notice|changelog|citation)\b.*|.*\.(md|rst|lint\.json)", re.IGNORECASE)
HELD_OUT = re.compile(
    r"(?:^|[-_. ])(tests?|testing|valid|validation|val|dev|development|eval|evaluation|hold[-_ ]?out|held[-_ ]?out)"
    r"(?:[-_. ]|$)",
    re.IGNORECASE,
)
"""What the name of a file or a split has in it that is set aside and not trained on."""


class Source(NamedTuple):
    """A single source, and the entry of `data` that it belongs to."""

    name: str | Path
    entry: SourceEntry


def list_sources(entries: Sequence[SourceEntry]) -> list[Source]:
    """The single sources that entries stand for.

    Warns of parts of a data set (`train-00000-of-00002.parquet`) whose other parts are missing.

    Raises:
        DataError: A pattern matches no file, a folder holds no data files or files that do not belong together, one
            source is named twice, two files hold the same bytes, or other parts of a data set lie beside the one that
            is named.
    """
    found = [Source(name, entry) for entry in entries for name in _listed(entry.path)]
    places = Counter(map(_identity, found))
    twice = next((source for source in found if places[_identity(source)] > 1), None)
    if twice is not None:
        raise DataError(
            f"data: {str(twice.name)!r} is named {places[_identity(twice)]} times, by a list, a pattern or a folder, "
            "and its records would count as often. Name it once; with a weight, if they are to be seen more often."
        )
    names = [source.name for source in found]
    _check_copies(names)
    for problem in missing_parts(names):
        # Level 4: the caller of load_records, which calls open_source, which calls this.
        warnings.warn(problem, stacklevel=4)
    return found


def _listed(entry: str | Path) -> list[str | Path]:
    name = str(entry)
    path = path_of(name)
    if isinstance(entry, str) and ("://" in name or name.lstrip()[0] in "[{"):
        return [entry]
    if os.path.isdir(path):
        whole = is_comparison(path) or any((path / mark).is_file() for mark in SAVED)
        return [entry] if whole else _of_folder(path, entry)
    if not os.path.exists(path) and glob.has_magic(name):
        matches = sorted(match for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
        if not matches:
            folder = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            inside = sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []
            holds = f"holds {list_keys(inside)}" if inside else "is empty" if folder.is_dir() else "does not exist"
            near = did_you_mean(path.name, inside)
            raise DataError(f"{name}: the pattern matches no file; {folder.absolute()} {holds}.{near} Correct it.")
        return [type(entry)(match) for match in matches]
    return [entry]


def _of_folder(path: Path, entry: str | Path) -> list[str | Path]:
    children = sorted(child for child in path.iterdir() if child.name[0] != "." and not _NO_DATA.fullmatch(child.name))
    data = [child for child in children if child.is_file() and inner_suffix(child) in _KINDS]
    others = [child.name + "/" * child.is_dir() for child in children if child not in data]
    names = [child.name for child in data]
    twins = _twins(data)
    held_out = [name for name in names if HELD_OUT.search(name)]
    problem = ""
    if not data:
        problem = f"no data files{f', but {list_keys(others)}' if others else ''}. Name a JSON, CSV or Parquet file."
    elif others:
        problem = f"{list_keys(names)}, and what is not read: {list_keys(others)}."
    elif twins:
        problem = f"files of one name and different kinds, maybe of the same records: {list_keys(twins)}."
    elif held_out and len(held_out) < len(names):
        problem = f"what seems to be set aside for testing: {list_keys(held_out)}, beside {list_keys(names)}."
    if problem:
        advice = _advice(entry, names, held_out) if data else ""
        raise DataError(f"{entry}: this folder, which Dataset.save_to_disk did not write, holds {problem}{advice}")
    return [type(entry)(os.path.join(str(entry), name)) for name in names]


def _twins(files: Sequence[Path]) -> list[str]:
    """Names of files that differ in their kind only, such as `a.json` and `a.csv`."""
    stems = Counter(child.name.partition(".")[0] for child in files)
    return (
        [child.name for child in files if stems[child.name.partition(".")[0]] > 1]
        if len({_KINDS[inner_suffix(child)] for child in files}) > 1
        else []
    )


def _advice(entry: str | Path, names: list[str], held_out: list[str]) -> str:
    """Which files of a folder to name; a pattern would take what is set aside for testing, too."""
    rest = [name for name in names if name not in held_out] or names
    alike = [name for name in names if Path(name).suffix == Path(rest[0]).suffix]
    if not {*alike} & {*held_out}:
        return f" Name the files, or a pattern: {os.path.join(str(entry), f'*{Path(rest[0]).suffix}')!r}."
    paths = [repr(os.path.join(str(entry), name)) for name in alike if name in rest]
    return f" Name the files to train on: {', '.join(paths[:8])}{', ...' * (len(paths) > 8)}"


def _identity(source: Source) -> tuple[str | None, ...]:
    path, entry = path_of(source.name), source.entry
    name = os.path.realpath(path) if os.path.exists(path) else str(source.name)
    return (name, entry.split, entry.config, entry.revision)


def _check_copies(found: Sequence[str | Path]) -> None:
    by_size: dict[int, list[str | Path]] = {}
    for name in found:
        path = path_of(name)
        with suppress(OSError):  # what cannot be read is said when it is opened
            if not path.is_file() or not path.stat().st_size:
                continue
            alike = by_size.setdefault(path.stat().st_size, [])
            copy = next((other for other in alike if filecmp.cmp(path_of(other), path, shallow=False)), None)
            if copy is not None:
                raise DataError(
                    f"data: {str(copy)!r} and {str(name)!r} are copies, the same byte for byte, and each record would "
                    "count twice. Remove one, or name the files to read."
                )
            alike.append(name)
