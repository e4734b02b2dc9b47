"""Sharded runs: FSDP2 through accelerate, asked for, checked, and undone at the end.

Each decoder layer is a unit whose weights, gradients and optimizer state are split over all ranks; a layer's weights
are whole only while it computes. Weights and optimizer state are float32, products are in the run's dtype, gradients
are summed in float32:

    rank 0   layer 0 [## ]   layer 1 [## ]  ...       forward of layer 1:   [##] + [##] -> [####] -> compute -> [##]
    rank 1   layer 0 [ ##]   layer 1 [ ##]  ...                                all-gather              let go

Checkpoints are written by each rank for its own shards (torch.distributed.checkpoint) and can be read by another number
of ranks. FSDP2: docs.pytorch.org, `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from ..config import FinetuneConfig
from ..errors import ConfigError, TrainingError, counted
from ..models.distributed import processes, whole

SHARD_BYTES = 2 * 10**9  # of a file of the model that is written at the end, and so of the memory that takes


def check_can_shard(config: FinetuneConfig) -> None:
    """Raise ConfigError where `fsdp` was asked for and cannot happen; nothing is loaded yet."""
    if not config.fsdp:
        return
    kind = processes().distributed_type.value
    if kind == "NO":
        raise ConfigError(
            "fsdp: there is one process only, so nothing to shard over. Start one for each GPU: "
            "torchrun --nproc_per_node GPUS -m alpaca_lora finetune ..."
        )
    if kind == "MULTI_CPU":
        raise ConfigError(
            "fsdp: there is no GPU here, and accelerate shards on GPUs only (on CPUs it would quietly train whole "
            "copies). Leave fsdp out."
        )


def shard_settings(config: FinetuneConfig) -> dict[str, Any]:
    """What makes transformers' Trainer shard, for its TrainingArguments."""
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",  # a unit is what the model says may not be split: its layers
            "reshard_after_forward": True,
            "cpu_ram_efficient_loading": True,  # rank 0 reads the weights and hands them out
            "state_dict_type": "SHARDED_STATE_DICT",
            "cpu_offload": config.cpu_offload,
        },
        # Gradients are summed after every micro-batch: to sum them at the step's end, each rank would hold all of them.
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def set_mixed_precision(arguments: TrainingArguments) -> None:
    """Have gradients of bfloat16 products summed over ranks in float32; accelerate 1.15 sums them in bfloat16."""
    assert arguments.fsdp_plugin_args is not None
    arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)


def check_sharded(model: Any) -> None:
    """Raise TrainingError where a prepared model's trainable parameters are not sharded."""
    trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
    copies = [name for name, tensor in trained if not isinstance(tensor, DTensor)]
    if copies:
        raise TrainingError(
            f"fsdp: was asked for, but {len(copies)} parameters are not sharded, first {copies[:2]}; every process "
            "would hold all of them. Leave fsdp out, or use the versions of torch and accelerate this was made for."
        )


def save_model(model: Any, folder: str | Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a trained model, sharded or not, as an ordinary transformers folder.

    Rank 0 never holds more than one file's tensors; all ranks must call this.

    Args:
        model: The model.
        folder: Where to.
        dtype: Dtype of the saved weights.
        shard_bytes: Maximum size of one file.

    Raises:
        TrainingError: a weight is not finite.
    """
    folder = Path(folder)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(tensor.shape, dtype=dtype, device="meta") for name, tensor in state.items()},
        max_shard_size=shard_bytes,
        filename_pattern="model{suffix}.safetensors",
    )
    first = processes().is_main_process
    for file, names in plan.filename_to_tensors.items():
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in whole((name, state[name]) for name in names)}
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise TrainingError(
                f"{folder}: NaN or Inf in {counted(len(broken), 'weight')}, first {broken[:2]}. Train it again."
            )
        if first:
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if not first:
        return
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    for file in plan.filename_to_tensors:
        shutil.copymode(folder / "config.json", folder / file)  # safetensors leaves them to their owner alone
