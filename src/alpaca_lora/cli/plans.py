"""The command that plans a run."""

from __future__ import annotations

import sys
from typing import Literal


def plan(
    gpu: str,
    recipe: str | None = None,
    gpus: int = 1,
    data: str | None = None,
    price: float | None = None,
    utilisation: float = 0.4,
    gpu_memory: float | None = None,
    gpu_tflops: float | None = None,
    base_model: str | None = None,
    method: Literal["lora", "qlora", "full"] | None = None,
    layout: Literal["padded", "packed", "tree"] | None = None,
    batch_size: int | None = None,
    cutoff_len: int | None = None,
    val_set_size: float | None = None,
    num_epochs: float | None = None,
    max_steps: int | None = None,
    max_tokens: int | None = None,
    lora_r: int | None = None,
    lora_target_modules: list[str] | str | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    load_in_8bit: bool | None = None,
    gradient_checkpointing: bool | None = None,
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] | None = None,
    fsdp: bool | None = None,
    cpu_offload: bool | None = None,
) -> None:
    """Will a run fit, how long will it take, what will it cost: computed; exit code 1 where it does not fit.

    Args:
        gpu: A card: a100-80g, h100-80g, l40s, rtx4090, ...; any other with --gpu_memory and --gpu_tflops.
        recipe: A packaged recipe, or a YAML file of settings.
        gpus: Their number.
        data: Records whose tokens are counted: a file, a hub id, or `seeds`; Alpaca's mean if left out.
        price: Of a GPU for an hour.
        utilisation: Share of the card's peak rate that the run reaches; 0.4 is an assumption.
        gpu_memory: GiB of a GPU.
        gpu_tflops: 10^12 operations a second of it at best, dense, in bfloat16.
        base_model: A hub id, a folder, or `demo`; the recipe's if left out, as the settings below.
        method: What trains.
        layout: How a step is laid out.
        batch_size: Examples of a step.
        cutoff_len: Most tokens of an example.
        val_set_size: Records, or their share, set aside to validate.
        num_epochs: Passes over the data.
        max_steps: Steps, in place of epochs.
        max_tokens: Most tokens of a micro-batch.
        lora_r: Rank.
        lora_target_modules: Names of modules, or all-linear.
        dtype: Of frozen weights and of products.
        load_in_8bit: Frozen weights in 8 bits.
        gradient_checkpointing: Recompute activations.
        optimizer: AdamW with moments in float32 or in 8 bits.
        fsdp: Shard over all GPUs.
        cpu_offload: Keep shards on the host.
    """
    from .. import api

    settings = {
        "base_model": base_model,
        "method": method,
        "layout": layout,
        "batch_size": batch_size,
        "cutoff_len": cutoff_len,
        "val_set_size": val_set_size,
        "num_epochs": num_epochs,
        "max_steps": max_steps,
        "max_tokens": max_tokens,
        "lora_r": lora_r,
        "lora_target_modules": lora_target_modules,
        "dtype": dtype,
        "load_in_8bit": load_in_8bit,
        "gradient_checkpointing": gradient_checkpointing,
        "optimizer": optimizer,
        "fsdp": fsdp,
        "cpu_offload": cpu_offload,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    made = api.plan(
        gpu,
        recipe=recipe,
        gpus=gpus,
        data=data,
        price=price,
        utilisation=utilisation,
        gpu_memory=gpu_memory,
        gpu_tflops=gpu_tflops,
        **given,
    )
    print(made)
    if not made.fits:
        sys.exit(1)
