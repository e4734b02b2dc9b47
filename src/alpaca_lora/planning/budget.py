"""How many tokens a micro-batch should hold on a GPU: what `max_tokens: auto` means there.

In: a run's memory by formula, the memory that is free. Out: tokens. Costs microseconds.
"""

from __future__ import annotations

from .memory import CUDA_BYTES, MemoryModel, MicroBatchSize

MOST_TOKENS, FEWEST_TOKENS, STEP = 16_384, 1024, 128
SHARE = 0.9
"""Share of the free memory that is used; the formulas have not been checked on a GPU."""


def auto_tokens(formula: MemoryModel, free_bytes: float) -> int:
    """The largest micro-batch, a multiple of 128 of 1,024 to 16,384 tokens, whose step should fit.

    Where not even the smallest fits, that one. Never less than one example of `cutoff_len` tokens.

    Args:
        formula: The run's memory.
        free_bytes: Free memory of the GPU, once CUDA is loaded and before the model is.
    """
    tokens = MOST_TOKENS
    while tokens > FEWEST_TOKENS and _needed(formula, tokens) > SHARE * free_bytes:
        tokens -= STEP
    return max(tokens, formula.config.cutoff_len)


def _needed(formula: MemoryModel, tokens: int) -> float:
    """With a loss on every token, which is the most there can be."""
    return formula.training(MicroBatchSize(tokens, tokens, 0, formula.config.cutoff_len)).needed - CUDA_BYTES
