"""Adapters on disk: saved, read back and compared; loaded only when every tensor is what it should be.

peft itself loads NaN weights, unexpected keys and other shapes' leftovers without a word; here each is an error that
names the first keys.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import AdapterError
from ..models.load import processes
from ..models.lora import quiet_peft
from ..training.sharding import whole
from .contract import read_run_file
from .shards import sha256_of

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_SETTINGS = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds a peft adapter."""
    return (Path(folder) / CONFIG).exists()


def save_adapter(model: Any, folder: str | Path) -> None:
    """Save a peft model's adapter, sharded or not, read it back, and compare; all ranks must call this.

    Raises:
        AdapterError: what is on disk is not what was trained, or nothing was trained (every B is zero).
    """
    from peft import get_peft_model_state_dict

    matrices = dict(whole((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad))
    if not processes().is_main_process:
        return
    trained = get_peft_model_state_dict(model, state_dict=matrices)
    _check_finite(trained, folder)
    if not any(tensor.any() for name, tensor in trained.items() if "lora_B" in name):
        raise AdapterError(
            f"{folder}: every LoRA B matrix is zero: nothing was trained. Raise learning_rate or the number of steps, "
            "or lower warmup_steps (the first warm-up step has a learning rate of 0)."
        )
    model.save_pretrained(folder, state_dict=matrices)
    shutil.copymode(Path(folder) / CONFIG, Path(folder) / WEIGHTS)  # safetensors leaves it to its owner alone
    saved = read_adapter(folder)
    if saved.keys() != trained.keys() or any(not torch.equal(saved[name], trained[name]) for name in trained):
        raise AdapterError(f"{folder}: the saved adapter differs from the trained one. Is the disk full?")


def describe_adapter(folder: str | Path) -> dict[str, Any]:
    """What an adapter must still be when it is loaded: its scale and shape, and a hash of each tensor.

    Kept in alpaca_lora.json: peft loads a changed alpha, or tensors set to zero, without a word.
    """
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    tensors = {name: sha256_of(tensor) for name, tensor in sorted(read_adapter(folder).items())}
    return {"settings": {key: config.get(key) for key in _SETTINGS}, "tensors": tensors}


def check_finished(folder: str | Path) -> None:
    """Raise AdapterError where a folder holds a run that has not ended; warn where it is a run's checkpoint."""
    if (Path(folder) / "manifest.json").exists() and is_adapter(folder):
        warnings.warn(
            f"{folder}: is a checkpoint of a run, not what the run was to give; it may be half trained.", stacklevel=3
        )
    elif (Path(folder) / "alpaca_lora.json").exists() and (read_run_file(folder) or {}).get("finished") is False:
        raise AdapterError(
            f"{folder}: holds a run that has not ended, so there is nothing to use yet. Continue it with the same "
            "command and --resume auto."
        )


def check_described(folder: str | Path) -> None:
    """Raise AdapterError where an adapter is not what its alpaca_lora.json describes, naming what differs."""
    described = (read_run_file(folder) or {}).get("adapter")
    if not described:
        return
    now = describe_adapter(folder)
    problems = [
        f"{key} is {now['settings'][key]!r}, not {value!r}"
        for key, value in described["settings"].items()
        if now["settings"].get(key) != value
    ]
    before, tensors = described["tensors"], now["tensors"]
    for what, names in (
        ("missing", before.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - before.keys()),
        ("changed", {name for name in before.keys() & tensors.keys() if before[name] != tensors[name]}),
    ):
        if names:
            problems.append(f"{len(names)} tensors {what}, first {sorted(names)[:2]}")
    if problems:
        raise AdapterError(
            f"{folder}: is not the adapter that was trained here: {'; '.join(problems)}. Copy it again from where it "
            "was made."
        )


def read_adapter(folder: str | Path) -> dict[str, torch.Tensor]:
    """An adapter's tensors by key, on the CPU.

    Raises:
        AdapterError: pickled weights only, no or damaged weights, or values that are not finite.
    """
    path = Path(folder) / WEIGHTS
    if not path.exists():
        if (path.parent / "adapter_model.bin").exists():
            raise AdapterError(
                f"{folder}: holds adapter_model.bin, a pickle that can run code when it is read; only safetensors are "
                "read. Convert it where you trust it: safetensors.torch.save_file(torch.load(..., weights_only=True))."
            )
        raise AdapterError(f"{folder}: has no {WEIGHTS}. Give the folder finetune wrote (its output_dir).")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: damaged: {error}. Copy it again from where it was made.") from error
    _check_finite(tensors, path)
    return tensors


def load_adapter(
    model: Any, folder: str | Path, base_name: str, name: str = "default", dropout: float | None = None
) -> Any:
    """Put a saved adapter on its base, also beside others.

    Args:
        model: The base model, or a peft model with other adapters.
        folder: The adapter's folder.
        base_name: What the base is called, for messages.
        name: What peft calls the adapter.
        dropout: The matrices are to train on, with this dropout; None: nothing trains.

    Returns:
        A peft model in evaluation mode.

    Raises:
        AdapterError: keys or shapes do not fit this base; the message names the first ones.
    """
    from peft import set_peft_model_state_dict

    tensors = read_adapter(folder)
    wrapped = wrap(model, folder, base_name, tensors, name=name, dropout=dropout)
    set_peft_model_state_dict(wrapped, tensors, adapter_name=name)
    return wrapped.eval()


def wrap(
    model: Any,
    folder: str | Path,
    base_name: str,
    tensors: dict[str, torch.Tensor],
    meta: bool = False,
    name: str = "default",
    dropout: float | None = None,
) -> Any:
    """The peft model that a saved adapter fits on, its matrices not set yet.

    Args:
        model: The base model.
        folder: The adapter's folder.
        base_name: What the base is called, for messages.
        tensors: What `read_adapter` gave.
        meta: The base has shapes only, and so shall the matrices.
        name: What peft calls the adapter.
        dropout: The matrices are to train on, with this dropout.

    Raises:
        AdapterError: keys or shapes do not fit this base, or are not what the run wrote.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = dropout is None
        if dropout is not None:
            config.lora_dropout = dropout
        with quiet_peft():
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
                wrapped = model
            else:
                wrapped = PeftModel(model, config, adapter_name=name, low_cpu_mem_usage=meta)
    except (ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"{folder}: {CONFIG} does not fit {base_name!r}: {error}") from error
    expected = get_peft_model_state_dict(wrapped, adapter_name=name)
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(found)} {what}, first {found[:2]}"
        for found, what in ((missing, "keys missing"), (unexpected, "unexpected keys"), (shapes, "other shapes"))
        if found
    ]
    if problems:
        wanted = config.base_model_name_or_path
        raise AdapterError(
            f"{folder}: does not fit {base_name!r}: {'; '.join(problems)}. It names the base {wanted!r}."
        )
    check_described(folder)
    return wrapped


def named_base(folder: str | Path) -> str:
    """The base another tool's adapter names.

    Raises:
        AdapterError: its config is damaged or names none.
    """
    from peft import PeftConfig

    try:
        name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AdapterError(
            f"{Path(folder) / CONFIG}: damaged: {error!r}. Copy it again from where it was made."
        ) from error
    if not name:
        raise AdapterError(f"{folder}: names no base model; give base_model.")
    return name


def _check_finite(tensors: dict[str, torch.Tensor], where: str | Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise AdapterError(f"{where}: {len(broken)} tensors hold NaN or Inf, first {broken[:2]}. Train it again.")
