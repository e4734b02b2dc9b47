"""Examples on the disk: one safetensors file, with a hash of what it holds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from ...files import unfinished
from .examples import Examples

_LISTS = ("truncated", "too_long", "same", "special_text", "changed_text")


def read_examples(path: Path, train_on_inputs: bool) -> Examples | None:
    """Examples of a cache file, or None if there is none or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            if file.metadata() != {"sha256": _hash_arrays(arrays)}:
                return None
    except (OSError, SafetensorError):
        return None
    lists = {name: arrays.pop(name).tolist() for name in _LISTS if name in arrays}
    return Examples(**arrays, **lists, train_on_inputs=train_on_inputs)


def write_examples(path: Path, examples: Examples) -> None:
    """Write atomically: a reader sees the whole file or none, also when two runs start at once."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "ids": examples.ids,
        "starts": examples.starts,
        "ends": examples.ends,
        "prompt_lens": examples.prompt_lens,
        "record_numbers": examples.record_numbers,
        **{name: np.asarray(getattr(examples, name), np.int32) for name in _LISTS},
    }
    with unfinished(path, wait=True) as part:
        save_file(arrays, part, metadata={"sha256": _hash_arrays(arrays)})
        os.replace(part, path)


def _hash_arrays(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
