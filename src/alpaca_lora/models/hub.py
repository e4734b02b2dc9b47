"""Names on the Hugging Face hub: `owner/name`, or `owner/name@revision`, a branch, a tag or a commit of it.

`resolve_base` turns a base's name into `owner/name@COMMIT`, so that config, tokenizer and weights are of one commit,
which a run writes down. Adapters, and models with a contract, are read from a folder of the hub's cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors import ModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 10.0
_TELLING = ("adapter_config.json", "alpaca_lora.json")
LOADED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
"""Files of a model or an adapter."""
_OUT_OF_REACH: set[str] = set()
"""What `resolve_base` gave for models that only the cache has, since the hub could not be reached."""


def split_revision(name: str) -> tuple[str, str | None]:
    """A hub name and its revision; a path that is there has none, whatever it is called.

    Example:
        >>> split_revision("owner/name@v1"), split_revision("owner/name")
        (('owner/name', 'v1'), ('owner/name', None))
    """
    repo, at, revision = name.partition("@")
    if not at or os.path.exists(name):
        return name, None
    if not repo or not revision:
        raise ModelError(f"{name!r}: give a name on the hub and its revision, as in owner/name@main.")
    return repo, revision


def with_commit(name: str) -> str:
    """`owner/name@COMMIT`; the name as it is where neither hub nor cache know it: loading it says why.

    Raises:
        ModelError: the hub cannot be reached, and the cache has no such model.
    """
    from huggingface_hub import hf_hub_download

    repo, revision = split_revision(name)
    commit, unreachable = _asked(repo, revision)
    if commit:
        _OUT_OF_REACH.discard(f"{repo}@{commit}")
        return f"{repo}@{commit}"
    try:
        there = hf_hub_download(repo, "config.json", revision=revision, local_files_only=True)
    except Exception as error:
        if unreachable:
            raise ModelError(
                f"base_model: there is no folder {name!r} here, so it was taken for a hub id, and the hub cannot be "
                f"reached: {unreachable}. Give a folder with safetensors weights, a hub id you can reach, or 'demo'."
            ) from error
        return name
    kept = f"{repo}@{Path(there).parent.name}"
    if unreachable:
        _OUT_OF_REACH.add(kept)
    return kept


def _asked(repo: str, revision: str | None) -> tuple[str | None, str]:
    """A model's commit on the hub, None if the hub tells none; and why the hub could not be reached, "" if it was.

    Loading would try again for half a minute for each of several files.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT_SECONDS).sha, ""
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError):  # it answered; nobody asks it; that is no name
        return None, ""
    except Exception as error:  # of the network, by whichever library
        return None, str(error).strip().partition("\n")[0] or type(error).__name__


def commit_of(resolved: str) -> str | None:
    """The commit in what `resolve_base` gave; None for a folder."""
    revision = split_revision(resolved)[1]
    return revision if revision and _COMMIT.fullmatch(revision) else None


def pretrained(resolved: str) -> dict[str, Any]:
    """What `resolve_base` gave, as arguments of transformers' `from_pretrained`."""
    repo, revision = split_revision(resolved)
    arguments: dict[str, Any] = {"pretrained_model_name_or_path": repo}
    if revision:
        arguments["revision"] = revision
    if resolved in _OUT_OF_REACH:  # else transformers asks for lists of files, again and again
        arguments["local_files_only"] = True
    return arguments


def hub_name(base_model: str) -> str | None:
    """The name on the hub of a base, as users name bases; None for a folder."""
    from .demo import HUB_ID

    if base_model == "demo":
        return HUB_ID
    local = os.path.exists(os.path.expanduser(base_model)) or not re.fullmatch(r"[\w.-]+/[\w.-]+(@.+)?", base_model)
    return None if local else split_revision(base_model)[0]


def downloaded(name: str) -> str:
    """The folder of an adapter, or of a model with a contract, on the hub; anything else as it is.

    Raises:
        ModelError: it is there, and cannot be downloaded.
    """
    path = os.path.expanduser(name)
    if os.path.exists(path) or hub_name(name) is None or name == "demo":
        return name
    from huggingface_hub import snapshot_download

    repo, revision = split_revision(name)
    here = bool(_asked(repo, revision)[1])  # then what the cache has must do
    try:
        small = Path(snapshot_download(repo, revision=revision, allow_patterns=list(_TELLING), local_files_only=here))
    except Exception:  # as above: a base's own loading says why
        return name
    if not any((small / file).exists() for file in _TELLING):
        return name
    try:
        return snapshot_download(repo, revision=revision, allow_patterns=LOADED, local_files_only=here)
    except Exception as error:
        raise ModelError(f"{name}: cannot be downloaded: {str(error).strip().partition(chr(10))[0]}") from error
