"""How many tokens a micro-batch should hold on a GPU: what `max_tokens: auto` means there.

In: a run's memory by formula, the memory that is free. Out: tokens. Costs microseconds.
"""

from __future__ import annotations

from .memory import CUDA_BYTES, MemoryModel, MicroBatch

MOST_TOKENS, FEWEST_TOKENS, STEP = 16_384, 1024, 128
SHARE = 0.9
"""Of the free memory; the formulas have not been checked on a GPU."""


def auto_tokens(formula: MemoryModel, free_bytes: float) -> int:
    """The largest micro-batch, a multiple of 128 of 1,024 to 16,384 tokens, whose step should fit.

    Where not even the smallest fits, that one. Never less than one example of `cutoff_len` tokens.

    Args:
        formula: The run's memory.
        free_bytes: Of the GPU, beside CUDA itself and before the model is on it.
    """
    tokens = MOST_TOKENS
    while tokens > FEWEST_TOKENS and _needed(formula, tokens) > SHARE * free_bytes:
        tokens -= STEP
    return max(tokens, formula.config.cutoff_len)


def _needed(formula: MemoryModel, tokens: int) -> float:
    """With a loss on every token, which is the most there can be."""
    return formula.training(MicroBatch(tokens, tokens, 0, formula.config.cutoff_len)).needed - CUDA_BYTES
