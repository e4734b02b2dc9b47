"""Base models: where they come from, and on which device and in which dtype they run.

In: a hub id, a folder, or the word `demo`. Out: a transformers tokenizer and model, safetensors only, no remote code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import shown
from ..errors import ConfigError, ModelError
from .demo import demo_model
from .distributed import processes
from .folder import what_is
from .hub import pretrained, with_commit
from .quantization import keep_trainable, quantization
from .tokenizer import cannot_load, check_readable
from .tokenizer import check_pairing as check_pairing
from .tokenizer import load_tokenizer as load_tokenizer
from .weight_files import check_stored, check_weight_files

if TYPE_CHECKING:
    import torch


def resolve_base(base_model: str) -> str:
    """Folder of a base model, or its hub id with the commit it is at now (`owner/name@COMMIT`, see hub.py); `demo`
    becomes the demo model's folder, made on first use.

    Raises:
        ModelError: the path is an adapter, holds no model, or its files point outside it.
    """
    if base_model == "demo":
        return demo_model()
    path = Path(os.path.expanduser(base_model))  # which leaves a name alone that begins with ~ and names no user
    if not os.path.exists(path):
        # A hub id may look like a path; one whose first part is a folder here is taken for a mistyped path.
        beside = path.parent != Path(".") and os.path.isdir(path.parent)
        long = len(base_model) > 255
        if base_model.startswith((".", "/", "~")) or base_model.count("/") > 1 or beside or long:
            raise ModelError(f"base_model: no such folder: {shown(base_model)}. Give a folder, a hub id, or 'demo'.")
        return with_commit(base_model)
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"base_model: {base_model!r} is an adapter, not a base model. Merge it first "
            f"(alpaca-lora merge {base_model} OUT) and train on OUT; or go on training the adapter: name it with "
            f"adapter instead (--adapter {base_model})."
        )
    if not (path / "config.json").exists():
        what, advice = what_is(path)
        raise ModelError(
            f"base_model: {base_model!r} has no config.json, so it is not a transformers model folder: it is {what}. "
            f"{advice}"
        )
    check_weight_files(path)
    return str(path)


def load_config(base_model: str) -> Any:
    """The transformers config of a resolved base model; loads no weights."""
    from transformers import AutoConfig

    check_readable(base_model, "config.json")
    try:
        return AutoConfig.from_pretrained(**pretrained(base_model), trust_remote_code=False)
    except Exception as error:  # transformers raises dozens of types for values it did not expect
        raise ModelError(cannot_load("config", base_model, error, "config.json")) from error


def load_model(base_model: str, placement: Placement, bits: int | None = None) -> Any:
    """A causal language model from safetensors, in evaluation mode, on its device.

    Args:
        base_model: What `resolve_base` gave.
        placement: Device and dtype of the weights; with `bits`, of the products.
        bits: 4 or 8: quantise the decoder's linear weights while loading; see `quantization`.

    Raises:
        ModelError: it cannot be loaded, or its weights are not safetensors or are quantised already.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(base_model)
    already = getattr(config, "quantization_config", None)
    if already is not None:
        raise ModelError(
            f"base_model: the weights of {base_model!r} are quantised already. Name the full-precision model; "
            "finetune's method=qlora quantises it while it loads."
        )
    _check_generation_config(base_model)
    check_stored(base_model, config)
    if bits is not None:
        where = quantization(bits, placement)
    else:  # a GPU's weights go there one by one: the host may have less memory than the model is large
        where = {"device_map": {"": placement.device}} if placement.device.type == "cuda" else {}
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            **pretrained(base_model),
            dtype=placement.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with names
            **where,
        )
    except (MemoryError, torch.OutOfMemoryError, ImportError):
        raise
    except Exception as error:
        raise ModelError(cannot_load("model", base_model, error, "config.json")) from error
    lacking = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lacking:  # transformers has filled them with random values
        raise ModelError(
            f"base_model: {base_model!r} lacks {len(lacking)} of the model's tensors, first {lacking[:2]}. Copy the "
            "model again."
        )
    if bits is None:
        return model.to(placement.device).eval()
    keep_trainable(model)
    return model.eval()


def empty_model(base_model: str, dtype: torch.dtype) -> Any:
    """The same model on the CPU, its weights not set: memory that is never written takes no room.

    What every rank but the first starts from when a model is sharded; the first hands the weights out. (Parameters on
    the meta device would not do: accelerate 1.15 tells an optimizer's parameters apart by their addresses.)
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(load_config(base_model), dtype=dtype, trust_remote_code=False)
    for module in model.modules():
        for name, tensor in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(torch.empty_like(tensor, device="cpu")))
    model.tie_weights()
    return model.eval()


@dataclass(frozen=True)
class Placement:
    """Where a model runs and in what."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, dtype: str = "auto", float16: bool = False) -> Placement:
        """The best device here, and a dtype it is good at.

        CUDA with bfloat16 units (compute capability 8.0 and up) gets bfloat16, and CUDA without them float16 if
        `float16`. Everything else gets float32: bfloat16 was no faster on the CPUs tried.

        Args:
            dtype: "auto", "float32", "bfloat16" or "float16".
            float16: It will do: there are no gradients, or they will be scaled; without that, float16 has produced zero
                and NaN losses.

        Raises:
            ConfigError: bfloat16 was asked for on a CUDA device without it.
        """
        import torch

        device = processes().device
        if device.type == "cuda":
            has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            has_bfloat16 = device.type == "cpu"
        if dtype == "bfloat16" and not has_bfloat16:
            raise ConfigError(f"dtype: 'bfloat16' is not supported by this device ({device}); use dtype=float32.")
        if dtype == "auto" and device.type == "cuda":
            dtype = "bfloat16" if has_bfloat16 else "float16" if float16 else "float32"
        elif dtype == "auto":
            dtype = "float32"
        return cls(device, getattr(torch, dtype))


def checkpoint_activations(model: Any) -> None:
    """Have a model recompute its activations in the backward pass instead of keeping them."""
    # transformers 5.23 calls by another name what it called gradient checkpointing before.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _check_generation_config(base_model: str) -> None:
    from transformers import GenerationConfig

    name = "generation_config.json"
    if not os.path.exists(Path(base_model) / name):
        return
    check_readable(base_model, name)
    try:
        GenerationConfig.from_pretrained(base_model)
    except Exception as error:
        raise ModelError(cannot_load("generation config", base_model, error, name)) from error
