"""Any source to rows: finds out what `data` is and opens it; several sources become one (paths.py says which).

A file is recognised by its content; only CSV, which has no mark of its own, goes by its suffix. The hub is asked only
for what looks like a hub id.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from dataclasses import replace
from pathlib import Path

from ...errors import DataError, a, did_you_mean
from ..columns import list_keys
from ..record import Record
from .comparisons import is_comparison, open_comparison
from .compressed import compression_of, decompress, inner_suffix
from .containers import unwrapping
from .encodings import decode_text
from .entry import SourceEntry, source_entries
from .file_types import HEAD_BYTES, foreign_bytes, foreign_text, not_a_file
from .hub import is_dataset, open_dataset, open_hub, open_saved
from .json_advice import foreign_lines
from .json_text import read_json
from .paths import Source, list_sources
from .rows import Rows, path_of
from .tables import csv_header, read_csv, read_parquet

SEEDS = "seeds"
"""The word for the packaged seed records; a file of that name is `./seeds`."""

_FORMATS = "JSON, JSON Lines, CSV or Parquet"
_FILE_SUFFIX = re.compile(
    r"\.(jsonl?|ndjson|csv|tsv|parquet|pq|arrow|txt|xlsx?|ya?ml|gz|zip|zst|xz|bz2)$", re.IGNORECASE
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?", re.ASCII)


def open_source(data: object) -> Rows:
    """The rows of any source.

    Args:
        data: A file or folder path, a pattern, a hub id (`name@revision` pins it), "seeds", a mapping that says more of
            one (entry.py), a list of these, a list of dicts, or a `datasets.Dataset`.

    Raises:
        DataError: There is no such file, the hub has no such data set or is out of reach, or the content is not data.
    """
    if isinstance(data, str) and not data.strip():
        raise DataError(f"data is {data!r}; name a file, a hub id or {SEEDS!r}.")
    if entries := source_entries(data):
        parts = [_open_one(source) for source in list_sources(entries)]
        empty = next((part.source for part in parts if not part.values), None)
        if empty is not None and len(parts) > 1:
            raise DataError(f"{empty}: the source holds no records (0 rows). Add some, or leave it out of the list.")
        _check_twins(parts)
        return parts[0] if len(parts) == 1 else Rows.joined(parts)
    if isinstance(data, (list, tuple)) and not isinstance(data, Record):
        return Rows([row._asdict() if isinstance(row, Record) else row for row in data], "<list>")
    if is_dataset(data):
        return open_dataset(data, "<dataset>")
    if isinstance(data, dict):
        problem = unwrapping(data) or "pass a list of dicts, also for a single record: [record]."
        raise DataError(f"data is a dict: {problem}")
    advice = " Pass json.loads(df.to_json(orient='records'))." if type(data).__name__ == "DataFrame" else ""
    raise DataError(
        f"data is {a(type(data).__name__)}; it should be a path, a hub id, a list of dicts or a "
        f"datasets.Dataset.{advice}"
    )


def _open_one(source: Source) -> Rows:
    name, entry = source
    rows = _open_path(path_of(name), str(name), entry) if isinstance(name, Path) else _open_name(name, entry)
    return replace(rows, entries=(entry,), commits=rows.commits or (None,))


def _open_name(name: str, entry: SourceEntry) -> Rows:
    if name == SEEDS:
        _check_no_votes(entry, SEEDS)
        _check_file(entry, SEEDS)
        seeds = importlib.resources.files("alpaca_lora.data").joinpath("seeds.jsonl")
        return read_json(decode_text(seeds.read_bytes(), SEEDS), SEEDS)
    if name.lstrip()[0] in "[{":
        raise DataError(
            "data is JSON text, not the name of a source; pass json.loads(data), or save it and pass the path."
        )
    if "://" in name:
        raise DataError(f"{name}: addresses are not opened; download the file first and pass its path.")
    path = path_of(name)
    if os.path.exists(path) or _FILE_SUFFIX.search(name) or not _HUB_ID.fullmatch(name):
        return _open_path(path, name, entry)
    _check_no_votes(entry, name)
    try:
        return open_hub(name, split=entry.split, config=entry.config, revision=entry.revision)
    except ConnectionError as error:
        raise DataError(
            f"{name}: there is no such file or folder (looked in {Path.cwd()}), and it could not be loaded from the "
            f"Hugging Face hub either: {error}.{_similar_file(Path(name))} Check the name, the network, and for a "
            f"gated data set the login (hf auth login); or pass a {_FORMATS} file, or {SEEDS!r}."
        ) from error


def _open_path(path: Path, source: str, entry: SourceEntry) -> Rows:
    if not os.path.exists(path):
        if path.is_symlink():
            raise DataError(f"{source}: this is a link to {os.readlink(path)}, which is not there. Check the path.")
        raise DataError(
            f"{source}: no such file (looked in {path.parent.absolute()}).{_similar_file(path)} Check the path."
        )
    if path.is_dir() and is_comparison(path):
        _check_file(entry, source)
        return open_comparison(path, source, entry)
    _check_no_votes(entry, source)
    if path.is_dir():
        return open_saved(path, source, entry.split)
    _check_file(entry, source)
    if problem := not_a_file(path):
        raise DataError(f"{source}: {problem}")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if kind := compression_of(head):
                data = decompress(path, kind, source)
                head = data[:HEAD_BYTES]
                if compression_of(head) or head.startswith((b"PAR1", b"PK\x03\x04")):
                    raise DataError(f"{source}: the file is compressed twice. Unpack it, and pass what was inside.")
            if problem := foreign_bytes(head, path):
                raise DataError(f"{source}: {problem}")
            if not kind:
                data = b"" if head.startswith(b"PAR1") else head + file.read()
    except OSError as error:
        raise DataError(f"{source}: the file cannot be read: {error.strerror}. Check its permissions.") from error
    if not data and head:
        return read_parquet(path, source)
    text = decode_text(data, source)
    suffix = inner_suffix(path)
    names = csv_header(text, source) if text.lstrip()[0] not in "[{|" else []
    if names and suffix not in (".csv", ".tsv"):
        raise DataError(
            f"{source}: this is CSV, with the columns {list_keys(names)}. A CSV file needs a name that ends in .csv or "
            f".tsv: rename it to {path.name.partition('.')[0] + '.csv' + path.suffix * bool(kind)!r}."
        )
    if not names and (problem := foreign_text(text, path)):
        raise DataError(f"{source}: {problem}")
    if text.lstrip()[0] in "[{" or suffix in (".json", ".jsonl", ".ndjson"):
        return read_json(text, source)
    if suffix in (".csv", ".tsv"):
        return read_csv(text, source)
    if problem := foreign_lines(text, source):
        raise DataError(problem)
    raise DataError(
        f"{source}: it begins with {text.lstrip()[:20]!r}, which is neither JSON, JSON Lines nor Parquet. "
        f"Data comes as {_FORMATS}. A CSV file needs a name that ends in .csv or .tsv."
    )


def _check_twins(parts: list[Rows]) -> None:
    """Raise DataError where two sources hold the same rows, be it in another form."""
    for place, part in enumerate(parts):
        twin = next((one for one in parts[:place] if one.values == part.values), None)
        if twin is not None:
            raise DataError(
                f"data: {twin.source!r} and {part.source!r} hold the same rows, and each record would count twice. "
                "Remove one; a weight has its records seen more often."
            )


def _check_file(entry: SourceEntry, source: str) -> None:
    if name := entry.only_of_data_sets():
        raise DataError(f"{source}: {name} is for data sets of the hub, and this is a file. Leave {name} out.")


def _check_no_votes(entry: SourceEntry, source: str) -> None:
    if name := next((one for one in ("votes", "raters") if getattr(entry, one) is not None), ""):
        raise DataError(f"{source}: {name} is for the folder of a comparison, and this is none. Leave {name} out.")


def _similar_file(path: Path) -> str:
    try:
        names = [child.name for child in path.parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)
