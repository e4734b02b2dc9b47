"""The end of a run: its model, still in memory, against its base.

It is measured before the result is written: a run killed here has its last checkpoint, and does it again when it is
resumed. It draws no random number and changes no tensor, so that the result is the same with it and without.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch

from ..against_base.divergence import Pair
from ..against_base.measure import VALIDATION_RECORDS, measure
from ..config import FinetuneConfig
from ..data.plan import Planner
from ..errors import counted
from ..models.distributed import processes
from ..planning.preparation import PreparedData
from ..runs.regressions import Regressions


def against_base(config: FinetuneConfig, model: Any, data: PreparedData, planner: Planner) -> Regressions | None:
    """What training changed; None where weights are sharded or all of them trained, and on every rank but the first.

    Args:
        config: The run's settings.
        model: The trained model, in evaluation mode.
        data: What the run trained on.
        planner: Its layout and pack size.
    """
    state = processes()
    if config.method == "full" or config.fsdp:
        why = "which is no longer in memory" if config.method == "full" else "for the weights are sharded"
        state.print(f"Not compared with the base, {why}: alpaca-lora regressions {config.output_dir} does it.")
        return None
    if not state.is_main_process:  # all ranks hold the same weights
        return None
    validation = data.validation if config.objective == "sft" else None  # a rejected answer's loss is to rise
    records = min(validation.records, VALIDATION_RECORDS) if validation else 0
    and_records = f" and {counted(records, 'validation record')}" if records else ""
    state.print(f"Comparing with the base on 150 general texts, 50 probe questions{and_records}.")
    try:
        found = measure(
            Pair.of_adapter(model),
            data.encoder,
            lambda examples: replace(planner, examples=examples, ranks=1),
            validation,
        )
    except torch.OutOfMemoryError:
        warnings.warn(
            f"not compared with the base: memory is short. alpaca-lora regressions {config.output_dir} does it later.",
            stacklevel=2,
        )
        return None
    if found.warning:
        warnings.warn(found.warning, stacklevel=2)
    return found
