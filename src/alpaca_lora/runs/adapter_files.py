"""Adapters on disk: saved, read back and compared; loaded only when every tensor is what it should be.

peft itself loads NaN weights, unexpected keys and other shapes' leftovers without a word; here each is an error that
names the first keys.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..errors import AdapterError, counted
from ..models.distributed import processes, whole
from ..models.folder import what_is
from ..models.lora import quiet_peft
from ..models.shards import sha256_of
from ..textfiles import read_json_file
from .checkpoints import MANIFEST, newest_name
from .contract import read_run_file, run_file_in_use
from .peft_config import APPLIED, CONFIG, changes_base, read_peft_config

WEIGHTS = "adapter_model.safetensors"
_WRAPPER = re.compile(r"^(?:module\.)+|(?:\b_orig_mod|\b_fsdp_wrapped_module|\b_checkpoint_wrapped_module)\.")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds a peft adapter."""
    return os.path.exists(Path(folder) / CONFIG)  # False, too, for what no file can be called


def check_adapter(folder: str | Path, before: str = "") -> Any:
    """Raise AdapterError where a folder holds no finished adapter that can be applied here; nothing is loaded.

    Args:
        folder: The folder.
        before: What the message begins with, before the folder.

    Returns:
        peft's config.
    """
    check_finished(folder)
    if not is_adapter(folder):
        what, advice = what_is(folder)
        raise AdapterError(f"{before}{folder}: is not an adapter folder (no {CONFIG}): {what}. {advice}")
    return read_peft_config(folder)


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


def describe_adapter(folder: str | Path, tensors: dict[str, torch.Tensor] | None = None) -> dict[str, Any]:
    """What an adapter must still be when it is loaded: its scale and shape, and a hash of each tensor.

    Kept in alpaca_lora.json: peft loads a changed alpha, or tensors set to zero, without a word.
    """
    config = read_json_file(Path(folder) / CONFIG, AdapterError)
    tensors = read_adapter(folder) if tensors is None else tensors
    hashes = {name: sha256_of(tensor) for name, tensor in sorted(tensors.items())}
    return {"settings": {key: config[key] for key in sorted(APPLIED & config.keys())}, "tensors": hashes}


def check_finished(folder: str | Path) -> None:
    """Raise AdapterError where a folder holds a run that has not ended; warn where it is a run's checkpoint."""
    if os.path.exists(Path(folder) / MANIFEST) and (is_adapter(folder) or os.path.exists(Path(folder) / "config.json")):
        warnings.warn(
            f"{folder}: is a checkpoint of a run, not what the run was to give; it may be half trained.", stacklevel=3
        )
    elif (read_run_file(folder) or {}).get("finished") is False:
        newest = newest_name(Path(folder) / "checkpoints")
        until = f", or use what is there so far: {Path(folder) / 'checkpoints' / newest}" if newest else ""
        raise AdapterError(
            f"{folder}: holds a run that has not ended, so there is nothing to use yet. Continue it with the same "
            f"command and --resume auto{until}."
        )


def check_described(folder: str | Path, tensors: dict[str, torch.Tensor]) -> None:
    """Raise AdapterError if an adapter, whose tensors these are, is not what its alpaca_lora.json describes."""
    described = (read_run_file(folder) or {}).get("adapter")
    if not described:
        return
    now = describe_adapter(folder, tensors)
    with run_file_in_use(folder):
        problems = [
            f"{key} is {now['settings'].get(key)!r}, not {value!r}"
            for key, value in described["settings"].items()
            if now["settings"].get(key) != value
        ]
        before, hashes = described["tensors"], now["tensors"]
        for what, names in (
            ("missing", before.keys() - hashes.keys()),
            ("unexpected", hashes.keys() - before.keys()),
            ("changed", {name for name in before.keys() & hashes.keys() if before[name] != hashes[name]}),
        ):
            if names:
                problems.append(f"{counted(len(names), 'tensor')} {what}, first {sorted(names)[:2]}")
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
    from peft import PeftModel, get_peft_model_state_dict

    config = read_peft_config(folder)
    try:
        config.inference_mode = dropout is None
        if dropout is not None:
            config.lora_dropout = dropout
        with quiet_peft():
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
                wrapped = model
            else:
                wrapped = PeftModel(model, config, adapter_name=name, low_cpu_mem_usage=meta)
            expected = get_peft_model_state_dict(wrapped, adapter_name=name)
    except (MemoryError, torch.OutOfMemoryError, ImportError):
        raise
    except Exception as error:  # whatever peft meets in values it did not expect
        reason = " ".join(str(error).split())[:300]
        raise AdapterError(f"{folder}: {CONFIG} does not fit {base_name!r}: {reason}") from error
    # peft's save_embedding_layers keeps embedding and head whole beside the matrices; loading sets the base's own.
    base = {f"base_model.model.{key}": tensor for key, tensor in wrapped.get_base_model().state_dict().items()}
    whole = {key: base[key] for key in whole_ends(tensors, expected) if key in base}
    for key, own in whole.items():
        if len(own) != len(tensors[key]):
            raise AdapterError(
                f"{folder}: holds {key!r} with {len(tensors[key]):,} rows, and {base_name!r} has {len(own):,}: it was "
                "trained on a base with another vocabulary. Give that base the same rows with transformers "
                "(resize_token_embeddings), merge the adapter into it with peft (merge_and_unload), save it, and use "
                "that folder."
            )
    expected |= whole
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = [
        f"{counted(len(found), what)}, first {found[:2]}"
        for found, what in ((missing, "missing key"), (unexpected, "unexpected key"), (shapes, "other shape"))
        if found
    ]
    if problems:
        wanted = config.base_model_name_or_path
        raise AdapterError(
            f"{folder}: does not fit {base_name!r}: {'; '.join(problems)}. It names the base {wanted!r}."
        )
    check_described(folder, tensors)
    return wrapped


def whole_ends(keys: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Keys of an embedding or head that an adapter holds whole, though its config does not say so."""
    found = set(keys) - set(expected)
    return sorted(key for key in found if key.endswith(("embed_tokens.weight", "lm_head.weight")))


def changes_of_base(folder: str | Path) -> str:
    """What an adapter changes in its base itself, so that none but it can answer there; "" where it changes nothing."""
    config = read_peft_config(folder)
    saved = [f"{module}.weight" for module in config.modules_to_save or ()]
    whole = [key for key in whole_ends(_keys(folder), ()) if not key.endswith(tuple(saved))]
    return changes_base(config) or (f"it holds {whole[0]!r} whole" if whole else "")


def _keys(folder: str | Path) -> list[str]:
    """Keys of an adapter's tensors, which are not read."""
    try:
        with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError):
        return list(read_adapter(folder))  # says what is wrong


def check_shareable(folder: str | Path) -> None:
    """Raise AdapterError where no other adapter can stand on the same base as this one."""
    kind = check_adapter(folder).peft_type.value
    if why := changes_of_base(folder) or (kind != "LORA" and f"peft_type={kind!r}"):
        raise AdapterError(f"{folder}: cannot share its base with other adapters ({why}). Load it alone, without also.")


def named_base(folder: str | Path) -> str:
    """The base another tool's adapter names.

    Raises:
        AdapterError: its config is damaged or names none.
    """
    name = read_peft_config(folder).base_model_name_or_path
    if not name:
        raise AdapterError(f"{folder}: names no base model. Give it as base_model.")
    return name


def _check_finite(tensors: dict[str, torch.Tensor], where: str | Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise AdapterError(
            f"{where}: NaN or Inf in {counted(len(broken), 'tensor')}, first {broken[:2]}. Train it again."
        )
