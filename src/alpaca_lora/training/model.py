"""The model a run trains: its base, held as the method wants it, and what trains marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from ..config import FinetuneConfig
from ..models.distributed import processes
from ..models.hub import commit_of
from ..models.load import Placement, empty_model, load_model
from ..models.lora import add_lora
from ..models.quantization import check_bitsandbytes


def check_abilities(config: FinetuneConfig) -> None:
    """Raise MissingDependencyError where the settings need bitsandbytes and it is missing; nothing is loaded yet."""
    if config.method == "qlora":
        check_bitsandbytes("method: 'qlora'")
    if config.load_in_8bit:
        check_bitsandbytes("load_in_8bit")
    if config.optimizer != "adamw":
        check_bitsandbytes(f"optimizer: {config.optimizer!r}")


def trainable_model(
    config: FinetuneConfig,
    base: str,
    placement: Placement,
    continued: Callable[[Any], Any] | None = None,
    new_tokens: Mapping[int, list[int]] | None = None,
) -> Any:
    """A base model with LoRA matrices on it, or with all of its weights trainable.

    Args:
        config: The run's settings.
        base: What `resolve_base` gave.
        placement: Device, and dtype of products and frozen weights. Weights that train are float32.
        new_tokens: As of `add_lora`.
        continued: Puts the matrices of the adapter the run starts from on a base; new ones are made if left out.
    """
    full = config.method == "full"
    weights = replace(placement, dtype=torch.float32) if full else placement
    if config.fsdp:  # sharding moves the weights from rank 0's host memory to all devices
        weights = replace(weights, device=torch.device("cpu"))
        first = processes().is_main_process
        model = load_model(base, weights) if first else empty_model(base, weights.dtype)
    else:
        model = load_model(base, weights, 4 if config.method == "qlora" else 8 if config.load_in_8bit else None)
    if full:
        return model.requires_grad_(True)
    trained = continued(model) if continued is not None else _with_lora(config, model, new_tokens)
    trained.peft_config["default"].revision = commit_of(base)
    return trained


def _with_lora(config: FinetuneConfig, model: Any, new_tokens: Mapping[int, list[int]] | None) -> Any:
    return add_lora(
        model,
        r=config.lora_r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=config.lora_target_modules,
        rank_pattern=config.rank_pattern,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        new_tokens=new_tokens,
    )
