"""Which single sources a list, a pattern or a folder of data files stands for, in which order; nothing is read here.

A list keeps its order; what a pattern or a folder gives is sorted by name. Names are given back as they were written,
so that messages and a run's file show what the user knows.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from alpaca_lora.data.columns import list_keys
from alpaca_lora.errors import DataError, did_you_mean

SAVED = ("state.json", "dataset_dict.json")
"""Files that mark a folder written by `Dataset.save_to_disk`, which is one source."""

_KINDS = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "JSON"),
    **dict.fromkeys((".csv", ".tsv"), "CSV"),
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
}
_NO_DATA = re.compile(r"(readme|licen[cs]e|notice|changelog|citation)\b.*|.*\.(md|rst|lint\.json)", re.IGNORECASE)
_HELD_OUT = re.compile(r"(?:^|[-_.])(test|valid|validation|val|dev|eval)(?:[-_.]|$)", re.IGNORECASE)


def are_sources(data: object) -> TypeGuard[Sequence[object]]:
    """Whether a list names sources, as far as its entries tell; a list of rows does not."""
    return isinstance(data, (list, tuple)) and any(isinstance(entry, (str, Path)) for entry in data)


def list_sources(data: str | Path | Sequence[object]) -> list[str | Path]:
    """The single sources that a name, or a list of names, stands for.

    Raises:
        DataError: An entry is no name, a pattern matches no file, a folder holds no data files or files that do not
            belong together, or one source is named twice.
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
    return found


def _listed(entry: str | Path) -> list[str | Path]:
    name = str(entry)
    path = Path(name).expanduser()
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
    held_out = [name for name in names if _HELD_OUT.search(name)]
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
        pattern = os.path.join(str(entry), f"*{data[0].suffix}") if data else ""
        advice = f" Name the files, or a pattern: {pattern!r}." if data else ""
        raise DataError(f"{entry}: this folder, which Dataset.save_to_disk did not write, holds {problem}{advice}")
    return [type(entry)(os.path.join(str(entry), name)) for name in names]


def _identity(name: str | Path) -> str:
    path = Path(str(name)).expanduser()
    return os.path.realpath(path) if os.path.exists(path) else str(name)


def _shown(entry: object) -> str:
    return repr(str(entry)) if isinstance(entry, (str, Path)) else f"a {type(entry).__name__}"
