"""Sources to rows: finds out what `data` is and opens it; several sources become one (listing.py says which).

A file is recognised by its content; only CSV, which has no mark of its own, goes by its suffix. The hub is asked only
for what looks like a hub id, and `datasets` is imported only when it is needed.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingDependencyError, a, did_you_mean
from .encodings import decode_text
from .filetypes import HEAD_BYTES, foreign_bytes, foreign_text, special
from .jsonreader import read_json
from .listing import are_sources, list_sources, path_of
from .nearly_json import mixed
from .rows import Record, Rows, list_keys
from .tables import csv_header, read_csv, read_parquet
from .wrapped import wrapping

SEEDS = "seeds"
"""The word for the packaged seed records; a file of that name is `./seeds`."""

_FORMATS = "JSON, JSON Lines, CSV or Parquet"
_FILE_SUFFIX = re.compile(
    r"\.(jsonl?|ndjson|csv|tsv|parquet|pq|arrow|txt|xlsx?|ya?ml|gz|zip|zst|xz|bz2)$", re.IGNORECASE
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_HUB_TIMEOUT_SECONDS = 10.0


def open_source(data: object) -> Rows:
    """The rows of any source.

    Args:
        data: A file or folder path, a pattern, a hub id, "seeds", a list of these, a list of dicts, or a
            `datasets.Dataset`.

    Raises:
        DataError: There is no such file, the hub has no such data set or is out of reach, or the content is not data.
        MissingDependencyError: `datasets` or `pyarrow` is needed and absent.
    """
    if isinstance(data, str) and not data.strip():
        raise DataError(f"data is {data!r}; name a file, a hub id or {SEEDS!r}.")
    if isinstance(data, (str, Path)) or are_sources(data):
        parts = [_open_one(name) for name in list_sources(data)]
        empty = next((part.source for part in parts if not part.values), None)
        if empty is not None and len(parts) > 1:
            raise DataError(f"{empty}: the source holds no records (0 rows). Add some, or leave it out of the list.")
        return parts[0] if len(parts) == 1 else Rows.joined(parts)
    if isinstance(data, (list, tuple)) and not isinstance(data, Record):
        return Rows([row._asdict() if isinstance(row, Record) else row for row in data], "<list>")
    if any(kind.__module__.split(".")[0] == "datasets" for kind in type(data).__mro__):
        return _open_dataset(data, "<dataset>")
    if isinstance(data, dict):
        problem = wrapping(data) or "pass a list of dicts, also for a single record: [record]."
        raise DataError(f"data is a dict: {problem}")
    advice = " Pass json.loads(df.to_json(orient='records'))." if type(data).__name__ == "DataFrame" else ""
    raise DataError(
        f"data is {a(type(data).__name__)}; it should be a path, a hub id, a list of dicts or a "
        f"datasets.Dataset.{advice}"
    )


def _open_one(name: str | Path) -> Rows:
    return _open_path(path_of(name), str(name)) if isinstance(name, Path) else _open_name(name)


def _open_name(name: str) -> Rows:
    if name == SEEDS:
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
        return _open_path(path, name)
    return _open_hub(name)


def _open_path(path: Path, source: str) -> Rows:
    if not os.path.exists(path):
        raise DataError(
            f"{source}: no such file (looked in {path.parent.absolute()}).{_similar_file(path)} Check the path."
        )
    if path.is_dir():
        return _open_folder(path, source)
    if problem := special(path):
        raise DataError(f"{source}: {problem}")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if problem := foreign_bytes(head, path):
                raise DataError(f"{source}: {problem}")
            data = b"" if head.startswith(b"PAR1") else head + file.read()
    except OSError as error:
        raise DataError(f"{source}: the file cannot be read: {error.strerror}. Check its permissions.") from error
    if not data and head:
        return read_parquet(path, source)
    text = decode_text(data, source)
    suffix = path.suffix.lower()
    names = csv_header(text, source) if text.lstrip()[0] not in "[{|" else []
    if names and suffix not in (".csv", ".tsv"):
        raise DataError(
            f"{source}: this is CSV, with the columns {list_keys(names)}. A CSV file needs a name that ends in .csv or "
            f".tsv: rename it to {path.with_suffix('.csv').name!r}."
        )
    if not names and (problem := foreign_text(text, path)):
        raise DataError(f"{source}: {problem}")
    if text.lstrip()[0] in "[{" or suffix in (".json", ".jsonl", ".ndjson"):
        return read_json(text, source)
    if suffix in (".csv", ".tsv"):
        return read_csv(text, source)
    if problem := mixed(text, source):
        raise DataError(problem)
    raise DataError(
        f"{source}: it begins with {text.lstrip()[:20]!r}, which is neither JSON, JSON Lines nor Parquet. "
        f"Data comes as {_FORMATS}. A CSV file needs a name that ends in .csv or .tsv."
    )


def _open_folder(path: Path, source: str) -> Rows:
    datasets = _import_datasets(source)
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # what a damaged folder raises is not documented
        raise DataError(
            f"{source}: datasets.load_from_disk cannot read this folder: {error}. Save it again."
        ) from error
    return _open_dataset(loaded, source)


def _open_dataset(data: Any, source: str) -> Rows:
    """The rows of a Dataset, or of the "train" split of a DatasetDict; table types are kept, nothing is decoded."""
    if isinstance(data, dict):
        if "train" not in data:
            raise DataError(
                f"{source}: no split 'train'; there are {list_keys(data)}. Pass one split: data[<its name>]."
            )
        data = data["train"]
    plain = data.with_format(None)
    # A streamed data set is walked: not every version of datasets gives it a to_list.
    return Rows(list(plain) if type(data).__name__ == "IterableDataset" else plain.to_list(), source)


def _open_hub(hub_id: str) -> Rows:
    """Loads the split "train". Out of reach of the hub, a copy in the cache of `datasets` still serves."""
    datasets = _import_datasets(hub_id)
    try:
        unreachable = _why_unreachable(hub_id)
        if unreachable and not _in_cache(hub_id, Path(datasets.config.HF_DATASETS_CACHE)):
            raise ConnectionError(f"the hub cannot be reached ({unreachable}), and the cache has no copy")
        loaded = datasets.load_dataset(hub_id, split="train")
    except Exception as error:  # the hub, the network and the builders each raise their own kinds
        raise DataError(
            f"{hub_id}: there is no such file or folder (looked in {Path.cwd()}), and it could not be loaded from the "
            f"Hugging Face hub either: {error}.{_similar_file(Path(hub_id))} Check the name, the network, and for a "
            f"gated data set the login (hf auth login); or pass a {_FORMATS} file, or {SEEDS!r}."
        ) from error
    return _open_dataset(loaded, hub_id)


def _why_unreachable(hub_id: str) -> str:
    """Why the hub does not answer, or "" when it does, be it with "no such data set".

    `load_dataset` retries for 24 s before it says that there is no network; one plain request says so at once.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        huggingface_hub.HfApi().dataset_info(hub_id, timeout=_HUB_TIMEOUT_SECONDS)
    except HfHubHTTPError:
        return ""
    except Exception as error:  # of whichever HTTP client huggingface_hub uses
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


def _in_cache(hub_id: str, cache: Path) -> bool:
    """Whether the cache has a folder for this id; its names are `owner___snake_case_name`."""
    wanted = re.sub("[/_]", "", hub_id).lower()
    return cache.is_dir() and any(child.name.replace("_", "").lower() == wanted for child in cache.iterdir())


def _import_datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{source}: loading it needs datasets. Run: pip install datasets") from error
    return datasets


def _similar_file(path: Path) -> str:
    try:
        names = [child.name for child in path.parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)
