"""Adapters on disk: saved, read back and compared; their tensors are read only if every one is finite.

peft itself writes and loads NaN weights without a word.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import AdapterError, counted
from ..models.distributed import processes, whole
from ..models.folder import what_is
from .peft_config import CONFIG

WEIGHTS = "adapter_model.safetensors"
_WRAPPER = re.compile(r"^(?:module\.)+|(?:\b_orig_mod|\b_fsdp_wrapped_module|\b_checkpoint_wrapped_module)\.")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds a peft adapter."""
    return os.path.exists(Path(folder) / CONFIG)  # False, too, for what no file can be called


def save_adapter(model: Any, folder: str | Path) -> None:
    """Save a peft model's adapter, sharded or not, read it back, and compare; all ranks must call this.

    Raises:
        AdapterError: what is on disk is not what was trained, or nothing was trained (every B is zero).
    """
    from peft import get_peft_model_state_dict

    matrices = dict(whole((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad))
    if not processes().is_main_process:
        return
    trained = get_peft_model_state_dict(model, state_dict=matrices, save_embedding_layers=False)
    _check_finite(trained, folder)
    if not any(tensor.any() for name, tensor in trained.items() if "lora_B" in name):
        raise AdapterError(
            f"{folder}: every LoRA B matrix is zero: nothing was trained. Raise learning_rate or the number of steps, "
            "or lower warmup_steps (the first warm-up step has a learning rate of 0)."
        )
    model.save_pretrained(folder, state_dict=matrices, save_embedding_layers=False)
    shutil.copymode(Path(folder) / CONFIG, Path(folder) / WEIGHTS)  # safetensors leaves it to its owner alone
    saved = read_adapter(folder)
    if saved.keys() != trained.keys() or any(not torch.equal(saved[name], trained[name]) for name in trained):
        raise AdapterError(f"{folder}: the saved adapter differs from the trained one. Is the disk full?")


def read_adapter(folder: str | Path) -> dict[str, torch.Tensor]:
    """An adapter's tensors by key, on the CPU.

    Raises:
        AdapterError: pickled weights only, no or damaged weights, or values that are not finite.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        if (path.parent / "adapter_model.bin").exists():
            raise AdapterError(
                f"{folder}: holds adapter_model.bin, a pickle that can run code when it is read; only safetensors are "
                "read. Convert it where you trust it: safetensors.torch.save_file(torch.load("
                f"{str(path.with_suffix('.bin'))!r}, weights_only=True), {str(path)!r})."
            )
        what, advice = what_is(folder)
        raise AdapterError(f"{folder}: has no {WEIGHTS}: it is {what}. {advice}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: damaged: {error}. Copy it again from where it was made.") from error
    _check_finite(tensors, path)
    return _unwrapped(tensors, path)


def _unwrapped(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Tensors by the names of the plain model, where they were saved from one that torch.compile, DDP or FSDP wraps."""
    names = {name: _WRAPPER.sub("", name) for name in tensors}
    if len(set(names.values())) < len(names):
        raise AdapterError(
            f"{path}: holds keys with and without a wrapper's prefix (such as _orig_mod. or module.) for the same "
            "matrix, so it is not clear which one was meant. Save the unwrapped model again."
        )
    return {names[name]: tensor for name, tensor in tensors.items()}


def _check_finite(tensors: dict[str, torch.Tensor], where: str | Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise AdapterError(
            f"{where}: NaN or Inf in {counted(len(broken), 'tensor')}, first {broken[:2]}. Train it again."
        )
