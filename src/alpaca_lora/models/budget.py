"""How many tokens a micro-batch should hold on a GPU: what `max_tokens: auto` means.

In: a run's settings, a model's shape, the memory that is free. Out: tokens. Costs microseconds, imports no torch.
"""

from __future__ import annotations

from ..config import FinetuneConfig
from .geometry import Geometry

MOST_TOKENS, FEWEST_TOKENS, STEP = 16_384, 1024, 128


def auto_tokens(config: FinetuneConfig, shape: Geometry, free_bytes: float, ranks: int) -> int:
    """What should fit in half of the memory that weights, gradients and optimizer state leave free.

    Args:
        config: The run's settings.
        shape: The model's.
        free_bytes: Of the GPU, before the model is on it.
        ranks: GPUs that share the state with `fsdp`.
    """
    lora = 0 if config.method == "full" else shape.lora_parameters(config.lora_r, config.lora_target_modules)
    state_bytes = sum(shape.state_bytes(config.method, lora, config.load_in_8bit, config.optimizer))
    if config.fsdp:
        held = 0 if config.cpu_offload else state_bytes / ranks
        state_bytes = held + shape.gathered_bytes(config.method)
    token_bytes = shape.activation_bytes(
        config.method,
        config.gradient_checkpointing,
        config.lora_target_modules,
        config.lora_dropout > 0,
        sharded=config.fsdp,
    )
    fit = max(free_bytes - state_bytes, 0) // 2 // token_bytes
    return int(min(max(fit // STEP * STEP, FEWEST_TOKENS), MOST_TOKENS))
