"""A model's safetensors files: which they are, what their headers say, and whether that fits the config.

In: what `resolve_base` gave. Out: paths, names, dtypes and shapes. Cost: the headers; no tensor is read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError
from ..textfiles import read_json_file
from .hub import split_revision
from .tokenizer import cannot_load

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_AGAIN = "Copy the model again."


class Stored(NamedTuple):
    """A tensor as its file's header describes it; `dtype` in safetensors' words, such as BF16."""

    dtype: str
    shape: tuple[int, ...]


def weight_files(base_model: str) -> list[str]:
    """The safetensors files of a folder or of a hub model, which is downloaded where it is not yet.

    If a hub model has both, the single file counts, as for transformers; in a folder both are refused.

    Raises:
        ModelError: there are none, or one that the index names is missing.
    """
    from transformers.utils.hub import cached_file

    name, (repo, revision) = SINGLE, split_revision(base_model)
    at: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        single = cached_file(repo, SINGLE, _raise_exceptions_for_missing_entries=False, **at)
        if single is not None:
            return [single]
        index = cached_file(repo, INDEX, **at)
        found = []
        for name in sorted(set(weight_map(Path(index)).values())):
            found.append(cached_file(repo, name, **at))
        return found
    except OSError as error:
        if not os.path.isdir(base_model):
            raise ModelError(cannot_load("model", base_model, error, SINGLE)) from error
        raise ModelError(f"base_model: cannot load the model of {base_model!r}: it lacks {name}. {_AGAIN}") from error


def weight_map(index: Path) -> dict[str, str]:
    """Name of each tensor's file, as a safetensors index says.

    Raises:
        ModelError: it is damaged, or names files outside the folder.
    """
    files = read_json_file(index, ModelError, _AGAIN).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{index}: not a safetensors index: weight_map must name a file for each tensor. {_AGAIN}")
    folder = os.path.normpath(index.parent)
    for file in files.values():
        if not file.isprintable() or not 0 < len(os.path.basename(file).encode()) <= 255:
            raise ModelError(f"{index}: names {file[:60]!r}, which is no file name. {_AGAIN}")
        if not Path(os.path.normpath(index.parent / file)).is_relative_to(folder):
            raise ModelError(f"{index}: names {file!r}, which lies outside the model's folder; refused.")
    return files


def stored_tensors(base_model: str) -> dict[str, Stored]:
    """What is stored, by name.

    Raises:
        ModelError: a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in weight_files(base_model):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    piece = file.get_slice(name)
                    found[name] = Stored(piece.get_dtype(), tuple(piece.get_shape()))
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"base_model: cannot load the model of {base_model!r}: {path} is damaged: {error}. {_AGAIN}"
            ) from error
    return found


def check_stored(base_model: str, config: Any) -> None:
    """Refuse weights of other shapes or depth than the config says, and narrow ones, before any memory is taken.

    transformers fills what does not fit with random values, at the size the config says, and leaves out layers that the
    config does not count.
    """
    import torch
    from transformers import AutoModelForCausalLM

    stored = stored_tensors(base_model)
    narrow = {entry.dtype for entry in stored.values()} - {"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL"}
    if narrow:  # read as if the integers were the weights, without their scales
        raise ModelError(
            f"base_model: weights of {base_model!r} are quantised ({', '.join(sorted(narrow))}), though its "
            "config.json does not say so. Name the full-precision model."
        )
    layers = getattr(config, "num_hidden_layers", None) or 0
    found = {int(match[1]) for name in stored if (match := re.match(r"model\.layers\.(\d+)\.", name))}
    if found and layers != len(found):
        raise ModelError(
            f"base_model: config.json of {base_model!r} says num_hidden_layers={layers}, and its weights have "
            f"{len(found)}. Copy the model again."
        )
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise ModelError(cannot_load("model", base_model, error, "config.json")) from error
    wrong = [
        name
        for name, tensor in model.state_dict().items()
        if name in stored and stored[name].shape != tuple(tensor.shape)
    ]
    if wrong:
        raise ModelError(
            f"base_model: {base_model!r} has {len(wrong)} of the model's tensors in another shape than its config.json "
            f"says, first {wrong[:2]}. Copy the model again."
        )


def check_weight_files(folder: Path) -> None:
    """Refuse pickles, and weight files outside the folder: transformers opens whatever `weight_map` names (its issue
    47176). Names decide, not what links point to: the hub's cache keeps the bytes elsewhere."""
    index = folder / INDEX
    if not index.exists():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
        if pickles and not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"base_model: {str(folder)!r} holds {pickles[0]}, a pickle that can run code when it is read; only "
                "safetensors are read. Convert it where you trust it, or use a safetensors copy of the model."
            )
        return
    names = set(weight_map(index).values())
    if (folder / SINGLE).exists() and SINGLE not in names:
        raise ModelError(
            f"base_model: {str(folder)!r} holds {SINGLE} and {index.name}, which names other files: two models in one "
            "folder. Remove the one that is not meant."
        )
