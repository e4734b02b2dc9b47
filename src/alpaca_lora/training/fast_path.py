"""What makes training faster and changes nothing else, entered around the Trainer's loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ..config import FinetuneConfig
from ..models.attention import always_compiled, takes_blocks
from ..models.load import Placement


@contextmanager
def fast_path(config: FinetuneConfig, model: Any, placement: Placement) -> Iterator[None]:
    """Everything that applies to a run.

    Args:
        config: Its settings.
        model: What trains.
        placement: Its device, and the dtype of its products.
    """
    with ExitStack() as stack:
        if placement.dtype != torch.float32 and config.method != "full" and not (config.fsdp or config.use_dora):
            stack.enter_context(uncast_inputs(model))
        if takes_blocks(placement.device):
            stack.enter_context(always_compiled())
        yield


@contextmanager
def uncast_inputs(model: Any) -> Iterator[None]:
    """Have LoRA's matrices take a module's input as it is, and autocast choose the dtype of their products.

    peft 0.21 makes a float32 copy of each input, for its matrices are float32; autocast then rounds the copy back to
    what it was made of. The same numbers, bit for bit, without the two copies. (DoRA computes with the copy.)
    """
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(model):
        yield
