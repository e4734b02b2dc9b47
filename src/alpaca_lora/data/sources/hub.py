"""Data sets of the package `datasets`: from the hub, from a folder written by `save_to_disk`, or from memory."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..columns import list_keys
from .rows import Rows

_HUB_TIMEOUT_SECONDS = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_dataset(data: object) -> bool:
    """Whether an object is a data set of `datasets`, told without importing it."""
    return any(kind.__module__.split(".")[0] == "datasets" for kind in type(data).__mro__)


def open_saved(path: Path, source: str, split: str | None = None) -> Rows:
    """The rows of a folder written by `save_to_disk`; of a DatasetDict those of one split, "train" if left out."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # what a damaged folder raises is not documented
        raise DataError(
            f"{source}: datasets.load_from_disk cannot read this folder: {error}. Save it again."
        ) from error
    if split is not None and not isinstance(loaded, dict):
        raise DataError(f"{source}: split is {split!r}, but this folder has no splits. Leave it out.")
    return open_dataset(loaded, source, split or "train")


def open_dataset(data: Any, source: str, split: str = "train") -> Rows:
    """The rows of a Dataset, or of a split of a DatasetDict; table types are kept, nothing is decoded."""
    if isinstance(data, dict):
        if split not in data:
            raise DataError(
                f"{source}: no split {split!r}; there are {list_keys(data)}. Pass one split: data[<its name>], or for "
                "a source {'path': ..., 'split': <its name>}."
            )
        data = data[split]
    plain = data.with_format(None)
    # A streamed data set is walked: not every version of datasets gives it a to_list.
    return Rows(list(plain) if type(data).__name__ == "IterableDataset" else plain.to_list(), source)


def open_hub(hub_id: str, *, split: str | None = None, config: str | None = None, revision: str | None = None) -> Rows:
    """The rows of a split of a data set on the Hugging Face hub, or of its copy in the cache of `datasets`.

    Args:
        hub_id: Its name, or `name@revision`.
        split: "train" if left out.
        config: Its configuration.
        revision: Commit, tag or branch.

    Raises:
        ConnectionError: There is none, or the hub cannot be reached, or the data set cannot be built.
        DataError: Two revisions are named.
    """
    import datasets

    name, _, pinned = hub_id.partition("@")
    if pinned and revision is not None and pinned != revision:
        raise DataError(f"{hub_id}: revision is {revision!r}, and the name says {pinned!r}. Give one.")
    revision = revision or pinned or None
    unreachable, commit = _look_up(name, revision)
    if unreachable and not _in_cache(name, Path(datasets.config.HF_DATASETS_CACHE)):
        raise ConnectionError(f"the hub cannot be reached ({unreachable}), and the cache has no copy")
    try:
        loaded = datasets.load_dataset(name, config, split=split or "train", revision=commit or revision)
    except Exception as error:  # the hub, the network and the builders each raise their own kinds
        raise ConnectionError(str(error)) from error
    files = [Path(file["filename"]).parent.name for file in getattr(loaded, "cache_files", [])]
    if commit is None:  # `datasets` then takes what it read last, whatever revision is asked for
        commit = next((name for name in files if _COMMIT.fullmatch(name)), None)
        if revision is not None and commit != revision:
            raise ConnectionError(
                f"{f'the hub cannot be reached ({unreachable})' if unreachable else 'the hub does not know it'}, and "
                f"the cache holds commit {commit or 'unknown'} of it, not revision {revision!r}; without the hub a "
                "revision is known by its whole commit only"
            )
    return replace(open_dataset(loaded, hub_id), commits=(commit,))


def _look_up(hub_id: str, revision: str | None) -> tuple[str, str | None]:
    """Why the hub does not answer, or "" when it does, be it with "no such data set"; and the commit that it names.

    `load_dataset` retries for 24 s before it says that there is no network; one plain request says so at once.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = huggingface_hub.HfApi().dataset_info(hub_id, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
    except HfHubHTTPError:
        return "", None
    except Exception as error:  # of whichever HTTP client huggingface_hub uses
        return str(error).splitlines()[0] if str(error) else type(error).__name__, None
    return "", found.sha


def _in_cache(hub_id: str, cache: Path) -> bool:
    """Whether the cache has a folder for this id; its names are `owner___snake_case_name`."""
    wanted = re.sub("[/_]", "", hub_id).lower()
    return cache.is_dir() and any(child.name.replace("_", "").lower() == wanted for child in cache.iterdir())
