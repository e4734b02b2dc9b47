"""What a model is: a fingerprint of its weights, another where any of them differs, and what its config computes.

    0f3a...-91bc...
    '--+--' '--+--'
    samples  every value

The first half is cheap and says which model it is; the second covers every value. Both see values rounded to bfloat16,
so that a float32 model and its bfloat16 copy are the same base; changes smaller than that rounding are not seen.

Cost: one pass over the files the first time (a core hashes about 1 GB/s, four at most work), then none: the result is
kept in the user's cache for as long as the files' sizes, times and inodes stay what they are; they may move.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import ModelError
from ..files import sha256_of_json, write_atomically
from .demo import cache_dir
from .weight_files import weight_files

# What config.json says beside what the model computes: where it came from, how it is held, trained or stopped.
_BESIDE = {
    *("_name_or_path", "architectures", "auto_map", "transformers_version"),
    *("dtype", "torch_dtype", "attn_implementation", "use_cache", "return_dict", "chunk_size_feed_forward"),
    *("attention_dropout", "initializer_range", "pretraining_tp", "output_attentions", "output_hidden_states"),
    *("id2label", "label2id", "problem_type", "is_encoder_decoder"),
}
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

    Raises:
        ModelError: its files are missing or damaged.
    """
    paths = weight_files(base_model)
    try:
        return _fingerprint(paths)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"base_model: cannot read the weights of {base_model!r}: {error}. Copy it again.") from error


def _fingerprint(paths: list[str]) -> str:
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


def computes(config: Any) -> dict[str, Any]:
    """What a transformers config says of what its model computes, as JSON gives it back; files may leave defaults out.

    Args:
        config: What `load_config` gave.
    """
    content = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in content.items() if key not in _BESIDE and not key.endswith("_token_id")}


def differing(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """ "KEY is X, not Y" for each key that two `computes` both have with other values.

    Another version of transformers may know more or fewer keys than the one that recorded.

    Example:
        >>> differing({"rms_norm_eps": 1e-06, "old": 1}, {"rms_norm_eps": 1e-05, "new": 2})
        ['rms_norm_eps is 1e-05, not 1e-06']
    """
    found = []
    for key in sorted(recorded.keys() & now.keys()):
        before, after = recorded[key], now[key]
        if isinstance(before, dict) and isinstance(after, dict):
            found += [f"{key}.{inner}" for inner in differing(before, after)]
        elif before != after:
            found.append(f"{key} is {after!r}, not {before!r}")
    return found


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
    """What changes when a file does, and not when its folder moves."""
    state = Path(path).stat()
    return [Path(path).name, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
