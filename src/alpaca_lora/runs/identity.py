"""What makes a run this run and no other: the settings that change its numbers, its data, base, template, tokenizer,
and the adapter it starts from.

Its data have a mark, too, that only the user who trained on them can make: files name data, and what a file from
elsewhere names is not opened. A run is continued only by itself. Settings that change nothing but memory, time, where
files go or how often they are written may differ.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError
from ..files import sha256_of_json
from ..models.demo import cache_dir

_MAY_DIFFER = {
    # `data`, `base_model`, `adapter` and `prompt_template` count by their content, not by where it is
    *("data", "val_data", "base_model", "adapter", "prompt_template", "columns", "output_dir", "resume"),
    *("max_tokens", "gradient_checkpointing", "compile", "cpu_offload", "sample_instructions"),
    *("eval_steps", "save_steps", "save_total_limit", "stop_after", "report_to"),
}
_LATER: dict[str, Any] = {
    "rank_pattern": None,
    "new_tokens": None,
    "early_stopping_patience": None,
    "early_stopping_threshold": 0.0,
    "keep": "last",
    "neftune_noise_alpha": None,
    "objective": "sft",
    "beta": 0.1,
    "label_smoothing": 0.0,
}
"""Settings that came after the first release, with their defaults: at these they are no part of an identity, so that
runs begun before there were such settings go on."""
_CONTENT = {
    "parent": "the adapter to start from",
    "mixture": "the weights or counts of the sources",
    "validation": "the records of val_data",
    "records": "the records",
    "base_fingerprint": "the base model's weights",
    "tokenizer_fingerprint": "the tokenizer",
    "template": "the prompt template",
}


def seal_of(data: Mapping[str, Any]) -> str:
    """A mark that tells data that were trained on here, by this user, from what a file of others names.

    Args:
        data: `source`, `fingerprint`, and where there are such, `sources` and `columns`.

    Returns:
        A hash, keyed with 32 random bytes that stay in this user's cache; "" where that cannot be written.
    """
    path = cache_dir() / "seal.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent) as made:  # only its owner may read it
                made.write(secrets.token_bytes(32))
                made.flush()
                with suppress(FileExistsError):  # another process was first
                    os.link(made.name, path)
        key = path.read_bytes()
    except OSError:
        return ""
    named = [data.get(name) or None for name in ("source", "fingerprint", "sources", "columns")]
    return hmac.digest(key, json.dumps(named, sort_keys=True).encode(), "sha256").hex()


def settings_of(config: FinetuneConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change a run's numbers, as JSON gives them back."""
    values = json.loads(json.dumps(config.to_dict() if isinstance(config, FinetuneConfig) else config))
    evaluations_decide = values.get("early_stopping_patience") is not None or values.get("keep") == "best"
    may_differ = _MAY_DIFFER - {"eval_steps"} if evaluations_decide else _MAY_DIFFER
    return {
        key: value
        for key, value in values.items()
        if key not in may_differ and not (key in _LATER and value == _LATER[key])
    }


def identity_of(
    config: Mapping[str, Any], records: str, contract: Mapping[str, Any], beside: Mapping[str, Any]
) -> dict[str, Any]:
    """A run's identity.

    Args:
        config: Its settings.
        records: Fingerprint of its records.
        contract: The contract, as a mapping.
        beside: What not every run has, None where it has it not: `parent`, SHA-256 of the weights of the adapter it
            starts from; `mixture`, weight or count of each source; `validation`, the fingerprint of `val_data`.
    """
    return {
        "settings": settings_of(config),
        "records": records,
        **{key: contract[key] for key in _CONTENT if key != "records" and key not in beside},
        **{key: value for key, value in beside.items() if value is not None},
    }


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of a run's identity."""
    return sha256_of_json(identity)


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError listing every setting that differs.

    Args:
        before: `settings_of` the run when it began.
        now: `settings_of` it now.
    """
    keys = sorted((before.keys() | now.keys()) - (_MAY_DIFFER & (before.keys() ^ now.keys())))
    pairs = {key: (before.get(key, _LATER.get(key)), now.get(key, _LATER.get(key))) for key in keys}
    differ = [
        f"resume: {key} was {old!r} and is {new!r} now; a run is continued with its own settings only. "
        "Give it as it was, or begin a new run in another output_dir."
        for key, (old, new) in pairs.items()
        if old != new
    ]
    if differ:
        raise ConfigError(differ)


def check_identity(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError listing whatever of a run is another now; the arguments are identities."""
    check_settings(before["settings"], now["settings"])
    differ = [
        f"resume: {what} changed since the run began. Restore what it began with, or start a new run in a new "
        "output_dir."
        for key, what in _CONTENT.items()
        if before.get(key) != now.get(key)
    ]
    if differ:
        raise ConfigError(differ)
