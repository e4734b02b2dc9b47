"""A base model's fingerprint: cheap to take, the same for the same weights, another for others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_SAMPLES = 64  # values of each tensor


def fingerprint(base_model: str) -> str:
    """Hash of the names and shapes of a base model's tensors, and of 64 values of each, rounded to bfloat16.

    Read from its files, so that nobody has to hold the model: the same whether it is then loaded in float32 or in 4
    bits, whole or sharded, and however its files are split; about a second for 13B.

    Args:
        base_model: What `resolve_base` gave.
    """
    from safetensors import safe_open

    shapes, samples = {}, {}
    for path in _weight_files(base_model):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        for name in names:
            with safe_open(path, framework="pt") as file:  # opened each time, so that pages once read can be let go
                tensor = file.get_slice(name)
                shapes[name] = tensor.get_shape()
                samples[name] = _sample(tensor, shapes[name])
    digest = hashlib.sha256(json.dumps([[name, shapes[name]] for name in sorted(shapes)]).encode())
    for name in sorted(samples):
        digest.update(samples[name])
    return digest.hexdigest()


def _sample(tensor: Any, shape: list[int]) -> bytes:
    import torch

    count = torch.Size(shape).numel()
    places = torch.linspace(0, count - 1, _SAMPLES, dtype=torch.float64).long()
    if len(shape) < 2:
        values = tensor[:][places] if shape else tensor[:].flatten()
    else:
        rows, within = places // (count // shape[0]), places % (count // shape[0])
        picks = zip(rows.tolist(), within, strict=True)
        values = torch.stack([tensor[row : row + 1].flatten()[at] for row, at in picks])
    return values.to(torch.bfloat16).float().numpy().tobytes()


def narrow_dtypes(base_model: str) -> list[str]:
    """Types of a base model's stored tensors that are no full precision: weights quantised without a word of it."""
    from safetensors import safe_open

    found = set()
    for path in _weight_files(base_model):
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return sorted(found - {"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL"})


def _weight_files(base_model: str) -> list[str]:
    """The safetensors files of a folder or of a hub model, which is downloaded where it is not yet."""
    from transformers.utils.hub import cached_file

    index = cached_file(base_model, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    if index is None:
        names = ["model.safetensors"]
    else:
        names = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    return [cached_file(base_model, name) for name in names]
