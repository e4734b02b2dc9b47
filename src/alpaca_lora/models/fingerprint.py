"""A base model's fingerprint: the same for the same weights, another where any weight differs.

    0f3a...-91bc...
    '--+--' '--+--'
    samples  every value

The first half is cheap and says which model it is; the second covers every value. Both see values rounded to bfloat16,
so that a float32 model and its bfloat16 copy are the same base; changes smaller than that rounding are not seen.

Cost: one pass over the files the first time (a core hashes about 1 GB/s, four at most work), then none: the result is
kept in the user's cache for as long as the files' sizes, times and inodes stay what they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.files import sha256_of_json, write_atomically
from .demo import cache_dir

_SAMPLES = 64  # values of each tensor
_PIECE_VALUES = 1 << 18  # converted and hashed at a time: 2 MB a thread
_THREADS = 4


def fingerprint(base_model: str) -> str:
    """Hash of the names, shapes and values of a base model's tensors.

    Read from its files, so that nobody has to hold the model: the same whether it is then loaded in float32 or in 4
    bits, whole or sharded, and however its files are split.

    Args:
        base_model: What `resolve_base` gave.

    Returns:
        Two SHA-256 hashes in hex, joined by a hyphen: of samples, and of everything.
    """
    paths = _weight_files(base_model)
    kept = cache_dir() / "fingerprints" / sha256_of_json([_state(path) for path in paths])
    with suppress(OSError, UnicodeDecodeError):
        found = kept.read_text(encoding="utf-8")
        if len(found) == 129:
            return found
    found = _taken(paths)
    with suppress(OSError):  # a cache that cannot be written costs time only
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, found)
    return found


def same_base(recorded: str, now: str) -> bool:
    """Whether a recorded fingerprint and one taken now are of the same weights.

    Args:
        recorded: By a run; runs of earlier versions recorded the samples' half alone.
        now: What `fingerprint` gives.
    """
    return recorded == now or recorded == now.partition("-")[0]


def _taken(paths: list[str]) -> str:
    from safetensors import safe_open

    names = []
    for path in paths:
        with safe_open(path, framework="pt") as file:
            names += [(name, path) for name in file.keys()]  # noqa: SIM118
    names.sort()
    with ThreadPoolExecutor(_THREADS) as pool:  # hashing and reading both let other threads run
        parts = list(pool.map(lambda entry: _hashed(*entry), names))
    shapes = json.dumps([[name, shape] for (name, _), (shape, _, _) in zip(names, parts, strict=True)]).encode()
    samples, everything = hashlib.sha256(shapes), hashlib.sha256(shapes)
    for _, sample, digest in parts:
        samples.update(sample)
        everything.update(digest)
    return f"{samples.hexdigest()}-{everything.hexdigest()}"


def _hashed(name: str, path: str) -> tuple[list[int], bytes, bytes]:
    """A tensor's shape, samples, and hash of all its values; read once, a piece at a time."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        shape = file.get_slice(name).get_shape()
    places = torch.linspace(0, torch.Size(shape).numel() - 1, _SAMPLES, dtype=torch.float64).long()
    digest, sample, start = hashlib.sha256(), b"", 0
    for rows in _pieces(shape):
        with safe_open(path, framework="pt") as file:  # opened each time, so that pages once read can be let go
            values = file.get_slice(name)[rows].flatten().to(torch.bfloat16)
        end = start + values.numel()
        sample += values[places[(start <= places) & (places < end)] - start].float().numpy().tobytes()
        digest.update(values.view(torch.int16).numpy())
        start = end
    return shape, sample, digest.digest()


def _pieces(shape: list[int]) -> Iterator[Any]:
    """Slices of rows of about `_PIECE_VALUES` values that make the whole tensor."""
    import torch

    if not shape or 0 in shape:
        yield ...
        return
    step = max(_PIECE_VALUES * shape[0] // torch.Size(shape).numel(), 1)
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def _state(path: str) -> list[Any]:
    """What changes when a file does."""
    state = Path(path).stat()
    return [str(Path(path).resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def narrow_dtypes(base_model: str) -> list[str]:
    """Types of a base model's stored tensors that are no full precision: weights quantised without a word of it."""
    from safetensors import safe_open

    found = set()
    for path in _weight_files(base_model):
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return sorted(found - {"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL"})


def _weight_files(base_model: str) -> list[str]:
    """The safetensors files of a folder or of a hub model, which is downloaded where it is not yet.

    Of a hub model that has both, the single file counts, as for transformers; in a folder both are refused.
    """
    from transformers.utils.hub import cached_file

    single = cached_file(base_model, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    if single is not None:
        return [single]
    index = cached_file(base_model, "model.safetensors.index.json")
    names = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    return [cached_file(base_model, name) for name in names]
