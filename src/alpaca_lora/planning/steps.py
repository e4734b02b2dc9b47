"""The steps of a run: which layout, how many tokens per micro-batch, how many packs per step."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch

from ..config import FinetuneConfig
from ..data.mixture import Mixture
from ..data.plan import Planner
from ..data.step_dataset import StepDataset
from ..data.tokens import Examples
from ..models.attention import BLOCK, runs_packs, takes_blocks
from ..models.distributed import from_first_rank, processes
from ..models.geometry import Dtype, Geometry
from ..models.load import Placement
from .budget import auto_tokens
from .memory import MemoryModel

CPU_TOKENS = 1024  # matrix products run at their full rate from here on; 2,048 took as long and 1.2 GiB more


def plan_steps(
    config: FinetuneConfig,
    model_config: Any,
    examples: Examples,
    placement: Placement,
    mixture: Mixture | None = None,
) -> StepDataset:
    """The steps of a run.

    A model that is not plain causal in every layer is trained `padded`, with a warning.

    Raises:
        ConfigError: the counts cannot work.
    """
    layout = config.layout
    if layout != "padded" and not runs_packs(model_config):
        warnings.warn(
            f"layout: {model_config.model_type} is not plain causal in every layer, so {layout!r} would not be exact; "
            "training 'padded'.",
            stacklevel=2,
        )
        layout = "padded"
    if config.max_tokens == "auto":
        tokens = max(_auto_tokens(config, model_config, placement), config.cutoff_len)
    else:
        tokens = config.max_tokens
    multiple = BLOCK if layout != "padded" and takes_blocks(placement.device) else 1
    whole = config.objective != "sft"
    planner = Planner(examples, layout, tokens, processes().num_processes, multiple, mixture, whole)
    epochs = config.num_epochs
    if config.max_steps is not None:
        epochs = config.max_steps / max(planner.epoch_records // config.batch_size, 1)
    return StepDataset(planner, config.batch_size, config.seed, epochs)


def _auto_tokens(config: FinetuneConfig, model_config: Any, placement: Placement) -> int:
    """Tokens of a micro-batch that use the device well: on a CPU a fixed number, on a GPU what should fit."""
    if placement.device.type != "cuda":
        return CPU_TOKENS
    dtype = cast(Dtype, str(placement.dtype).removeprefix("torch."))
    formula = MemoryModel(config, Geometry.of(model_config), dtype, processes().num_processes)
    free_bytes, _ = torch.cuda.mem_get_info(placement.device)
    return from_first_rank(auto_tokens(formula, free_bytes))  # ranks may differ in what is free, not in their packs
