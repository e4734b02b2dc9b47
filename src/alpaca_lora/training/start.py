"""What a run says of itself before its first step: what is real, not what was asked for."""

from __future__ import annotations

from typing import Any

import torch

from ..config import FinetuneConfig
from ..data.step_dataset import StepDataset
from ..errors import counted
from ..models.distributed import nodes, processes
from ..models.load import Placement
from ..planning.preparation import PreparedData


def print_start(
    config: FinetuneConfig, model: Any, placement: Placement, data: PreparedData, steps: StepDataset
) -> None:
    """Print devices, dtype, trainable parameters and the layout of a step; all ranks must call this."""
    state = processes()
    if config.method == "full":
        trainable = total = sum(tensor.numel() for tensor in model.parameters())
    else:
        trainable, total = model.get_nb_trainable_parameters()
    ranks, planner = state.num_processes, steps.planner
    where = f"{ranks} x {state.device.type}" + (f" on {nodes()} nodes" if ranks > 1 else "")
    held = {"qlora": ", weights in 4 bits"}.get(config.method, ", weights in 8 bits" if config.load_in_8bit else "")
    shared = "" if ranks == 1 else f", sharded over {ranks} (FSDP2)" if config.fsdp else ", a whole copy on each"
    micro = steps.packs_per_step // ranks
    longest = int(data.train.lengths.max()) - 1  # the last token is a target only
    most = f"at most {max(planner.max_tokens, longest):,} tokens"
    if longest > planner.max_tokens:
        most += f" (max_tokens is {planner.max_tokens:,}, but the longest example has {longest:,} and is not split)"
    what = "record" if config.objective == "sft" else "pair"
    state.print(
        f"{config.base_model} on {where}, {str(placement.dtype).removeprefix('torch.')}{held}{shared}; "
        f"{trainable:,} of {total:,} parameters train.\n"
        f"{counted(data.train.records, what)} ({int(data.train.supervised.sum()):,} supervised tokens), "
        f"{data.validation.records if data.validation else 0:,} to validate; {config.batch_size} a step: {micro} "
        f"micro-batches{' a rank' if ranks > 1 else ''} of {most}, {planner.layout}."
    )
    if planner.mixture:
        taken = planner.mixture.describe(steps.steps_per_epoch * config.batch_size)
        state.print(
            f"{counted(steps.steps_per_epoch, 'step')} an epoch, of " + "; ".join(map(": ".join, taken.items()))
        )
    if state.device.type == "cuda" and ranks == 1 and (gpus := torch.cuda.device_count()) > 1:
        state.print(f"1 of {gpus} GPUs is used; torchrun --nproc_per_node {gpus} -m alpaca_lora finetune ... uses all.")
