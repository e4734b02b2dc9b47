"""Adapters on disk: saved, read back and compared; loaded only when every tensor is what it should be.

peft itself loads NaN weights, unexpected keys and other shapes' leftovers without a word; here each is an error that
names the first keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import AdapterError
from ..models.lora import quiet_peft

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds a peft adapter."""
    return (Path(folder) / CONFIG).exists()


def save_adapter(model: Any, folder: str | Path) -> None:
    """Save a peft model's adapter, read it back, and compare.

    Raises:
        AdapterError: what is on disk is not what was trained, or nothing was trained (every B is zero).
    """
    from peft import get_peft_model_state_dict

    trained = {name: tensor.detach().cpu() for name, tensor in get_peft_model_state_dict(model).items()}
    _check_finite(trained, folder)
    if not any(tensor.any() for name, tensor in trained.items() if "lora_B" in name):
        raise AdapterError(
            f"{folder}: every LoRA B matrix is zero: nothing was trained. Raise learning_rate or the number of steps, "
            "or lower warmup_steps (the first warm-up step has a learning rate of 0)."
        )
    model.save_pretrained(folder, safe_serialization=True)
    saved = read_adapter(folder)
    if saved.keys() != trained.keys() or any(not torch.equal(saved[name], trained[name]) for name in trained):
        raise AdapterError(f"{folder}: the saved adapter differs from the trained one. Is the disk full?")


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


def load_adapter(model: Any, folder: str | Path, base_name: str) -> Any:
    """Put a saved adapter on its base.

    Args:
        model: The base model.
        folder: The adapter's folder.
        base_name: What the base is called, for messages.

    Returns:
        A peft model in evaluation mode.

    Raises:
        AdapterError: keys or shapes do not fit this base; the message names the first ones.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    tensors = read_adapter(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        with quiet_peft():
            wrapped = PeftModel(model, config)
    except (ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"{folder}: {CONFIG} does not fit {base_name!r}: {error}") from error
    expected = get_peft_model_state_dict(wrapped)
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
    set_peft_model_state_dict(wrapped, tensors)
    return wrapped.eval()


def _check_finite(tensors: dict[str, torch.Tensor], where: str | Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise AdapterError(f"{where}: {len(broken)} tensors hold NaN or Inf, first {broken[:2]}. Train it again.")
