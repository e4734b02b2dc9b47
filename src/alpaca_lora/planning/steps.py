"""The steps of a run: which layout, how many tokens per micro-batch, how many packs per step."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ..config import FinetuneConfig
from ..data.plan import Planner
from ..data.steps import StepDataset
from ..data.tokens import Examples
from ..models.attention import BLOCK, runs_packs
from ..models.distributed import from_first_rank, processes
from ..models.geometry import Dtype, Geometry
from ..models.load import Placement
from .budget import auto_tokens
from .memory import MemoryModel

CPU_TOKENS = 1024  # matrix products run at their full rate from here on; 2,048 took as long and 1.2 GiB more


def plan_steps(config: FinetuneConfig, model_config: Any, examples: Examples, placement: Placement) -> StepDataset:
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
    multiple = BLOCK if placement.device.type == "cuda" and layout != "padded" else 1
    planner = Planner(examples, layout, tokens, processes().num_processes, multiple)
    epochs = config.num_epochs
    if config.max_steps is not None:
        epochs = config.max_steps / max(len(examples) // config.batch_size, 1)
    return StepDataset(planner, config.batch_size, config.seed, epochs)


def _auto_tokens(config: FinetuneConfig, model_config: Any, placement: Placement) -> int:
    """Tokens of a micro-batch that use the device well: on a CPU a fixed number, on a GPU what should fit."""
    if placement.device.type != "cuda":
        return CPU_TOKENS
    dtype: Dtype = "bfloat16" if placement.dtype == torch.bfloat16 else "float32"
    formula = MemoryModel(config, Geometry.of(model_config), dtype, processes().num_processes)
    free_bytes, _ = torch.cuda.mem_get_info(placement.device)
    return from_first_rank(auto_tokens(formula, free_bytes))  # ranks may differ in what is free, not in their packs
