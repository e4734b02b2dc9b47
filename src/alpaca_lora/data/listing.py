"""Which single sources a list, a pattern or a folder of data files stands for, in which order.

A list keeps its order; what a pattern or a folder gives is sorted by name. Names are given back as they were written,
so that messages and a run's file show what the user knows. Nothing is read, but for files of the same size, which are
compared: a copy would count twice.
"""

from __future__ import annotations

import filecmp
import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from ..errors import DataError, a, did_you_mean
from .columns import list_keys

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
# A part of a data set, `train-00000-of-00002.parquet`, also with the hash that datasets once wrote after it.
_PART = re.compile(
    r"(?P<name>.*?)(?<!\d)(?P<number>\d+)(?P<of>[-_. ]?of[-_. ]?)(?P<total>\d+)(?!\d)"
    r"(?P<hash>-[0-9a-f]{16}(?=\.))?(?P<end>.*)",
    re.IGNORECASE,
)
_SHOWN = 8


def path_of(name: str | Path) -> Path:
    """The path a name means: `~` and `~user` are homes, where there is one; `~$my.json` is a file's name."""
    return Path(os.path.expanduser(name))


def are_sources(data: object) -> TypeGuard[Sequence[object]]:
    """Whether a list names sources, as far as its entries tell; a list of rows does not."""
    return isinstance(data, (list, tuple)) and any(isinstance(entry, (str, Path)) for entry in data)


def list_sources(data: str | Path | Sequence[object]) -> list[str | Path]:
    """The single sources that a name, or a list of names, stands for.

    Warns of parts of a data set (`train-00000-of-00002.parquet`) whose other parts are missing.

    Raises:
        DataError: An entry is no name, a pattern matches no file, a folder holds no data files or files that do not
            belong together, one source is named twice, two files hold the same bytes, or other parts of a data set
            lie beside the one that is named.
    """
    entries = [data] if isinstance(data, (str, Path)) else data
    found: list[str | Path] = []
    for place, entry in enumerate(entries, 1):
        if not isinstance(entry, (str, Path)) or not str(entry).strip():
            raise DataError(
                f"data: entry {place} of the list is {_shown(entry)}, and others name sources. Give either a list of "
                "files, folders, patterns and hub ids, or a list of records; save the records to a file to use both."
            )
        found += _listed(entry)
    places = Counter(_identity(name) for name in found)
    twice = next((name for name in found if places[_identity(name)] > 1), None)
    if twice is not None:
        raise DataError(
            f"data: {str(twice)!r} is named {places[_identity(twice)]} times, by a list, a pattern or a folder, and "
            "its records would count as often. Name it once."
        )
    _check_copies(found)
    for problem in _missing_parts(found):
        # Level 4: the caller of load_records, which calls open_source, which calls this.
        warnings.warn(problem, stacklevel=4)
    return found


def _listed(entry: str | Path) -> list[str | Path]:
    name = str(entry)
    path = path_of(name)
    if isinstance(entry, str) and ("://" in name or name.lstrip()[0] in "[{"):
        return [entry]
    if os.path.isdir(path):
        return [entry] if any((path / mark).is_file() for mark in SAVED) else _of_folder(path, entry)
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
    data = [child for child in children if child.is_file() and child.suffix.lower() in _KINDS]
    others = [child.name + "/" * child.is_dir() for child in children if child not in data]
    kinds = sorted({_KINDS[child.suffix.lower()] for child in data})
    names = [child.name for child in data]
    held_out = [name for name in names if HELD_OUT.search(name)]
    problem = ""
    if not data:
        problem = f"no data files{f', but {list_keys(others)}' if others else ''}. Name a JSON, CSV or Parquet file."
    elif others:
        problem = f"{list_keys(names)}, and what is not read: {list_keys(others)}."
    elif len(kinds) > 1:
        problem = f"files of different kinds, {' and '.join(kinds)}, maybe of the same records: {list_keys(names)}."
    elif held_out and len(held_out) < len(names):
        problem = f"what seems to be set aside for testing: {list_keys(held_out)}, beside {list_keys(names)}."
    if problem:
        advice = _advice(entry, names, held_out) if data else ""
        raise DataError(f"{entry}: this folder, which Dataset.save_to_disk did not write, holds {problem}{advice}")
    return [type(entry)(os.path.join(str(entry), name)) for name in names]


def _advice(entry: str | Path, names: list[str], held_out: list[str]) -> str:
    """Which files of a folder to name; a pattern would take what is set aside for testing, too."""
    rest = [name for name in names if name not in held_out] or names
    alike = [name for name in names if Path(name).suffix == Path(rest[0]).suffix]
    if not {*alike} & {*held_out}:
        return f" Name the files, or a pattern: {os.path.join(str(entry), f'*{Path(rest[0]).suffix}')!r}."
    paths = [repr(os.path.join(str(entry), name)) for name in alike if name in rest]
    return f" Name the files to train on: {', '.join(paths[:8])}{', ...' * (len(paths) > 8)}"


def _identity(name: str | Path) -> str:
    path = path_of(name)
    return os.path.realpath(path) if os.path.exists(path) else str(name)


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


def _missing_parts(found: Sequence[str | Path]) -> Iterator[str]:
    """What to say of data sets in parts, `train-00000-of-00002.parquet`, that are not whole."""
    sets: dict[tuple[str, str], list[tuple[int, str | Path]]] = {}
    totals: dict[tuple[str, str], tuple[int, int]] = {}  # with the digits of a number
    for name in found:
        path = path_of(name)
        match = _PART.fullmatch(path.name)
        # "2 of 2024" is a date: numbers of many parts are written at the same length.
        alike = match and len(match["total"]) in (1, 2, len(match["number"])) and len(match["total"]) < 7
        if match and alike and path.is_file() and int(match["number"]) <= int(match["total"]) > 1:
            end = ("*" if match["hash"] else "") + glob.escape(match["end"])
            pattern = f"{glob.escape(match['name'])}[0-9]*{match['of']}{match['total']}{end}"
            key = (os.path.dirname(str(name)), pattern)
            sets.setdefault(key, []).append((int(match["number"]), name))
            totals[key] = int(match["total"]), len(match["number"])
    for (folder, pattern), parts in sets.items():
        here, (total, digits) = {number for number, _ in parts}, totals[folder, pattern]
        named = {path_of(name).name for _, name in parts}
        beside = sorted({Path(other).name for other in glob.glob(str(path_of(glob.escape(folder)) / pattern))} - named)
        first = f"{parts[0][1]}: this is part of a data set in {total:,} parts, of which {len(parts):,}"
        if beside:
            every = os.path.join(glob.escape(folder), pattern)
            raise DataError(
                f"{first} {'is' if len(parts) == 1 else 'are'} named here, and others lie beside it: "
                f"{list_keys(beside)}. For all of them, pass the pattern {every!r}. To read some alone on purpose, "
                "copy them to other names."
            )
        if len(here) < total:
            start = 0 if 0 in here else 1 if total in here else None
            missing = [] if start is None else sorted({*range(start, start + total)} - here)
            shown = ", ".join(f"{number:0{digits}}" for number in missing[:_SHOWN])
            numbers = f" (missing: {shown}{', ...' if len(missing) > _SHOWN else ''})"
            yield (
                f"{first} {'is' if len(parts) == 1 else 'are'} there{numbers if missing else ''}. The records of the "
                "others are not read. Download or copy the other parts into this folder, and pass the folder or a "
                "pattern."
            )


def _shown(entry: object) -> str:
    return repr(str(entry)) if isinstance(entry, (str, Path)) else a(type(entry).__name__)
