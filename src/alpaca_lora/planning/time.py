"""How long a run takes and what it costs: operations, the card's peak rate, and the share of it that is reached.

    seconds = operations / (GPUs x peak x utilisation)         money = seconds / 3600 x GPUs x price an hour

Operations: models/geometry.py. Utilisation is computed unless you measured it: LoRA of rank 16 on all linear modules of
a 7B, in packs of 8k tokens on an H100, needs 440 ms of products at the card's peak for 16,384 tokens, and takes about
1,284 ms by the bytes and operations of each of its kernels: products 750, norms 150, SwiGLU and rotary positions 126,
LoRA's scaling and additions 165, the rest 93. Unpacking 4-bit weights and small models take more. Operations repeated
by checkpointing are counted among those done, so it is of hardware use, not MFU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..config import FinetuneConfig
from ..models.geometry import Geometry
from .cards import Card
from .memory import MicroBatchSize

UTILISATION = 0.34
ALPACA = "Alpaca's own run, 7B on 8 A100 of 80 GB: 3 hours, less than $100 (Stanford CRFM, 2023)"
ALPACA_EXAMPLES, ALPACA_TOKENS, ALPACA_PREDICTED = 52_002, 127, 0.5
"""Examples of tatsu-lab/alpaca, mean tokens of one, and the share of them that are the response's."""


class Work(NamedTuple):
    """What a run computes, over all of its steps and GPUs."""

    steps: int
    tokens: float
    pairs: float
    predicted: float
    largest: tuple[MicroBatchSize, ...]
    """Micro-batches of which one needs the most memory."""
    alone: bool
    """Every step is one micro-batch on each GPU."""
    source: str
    """Where the counts come from."""
    steps_per_epoch: int

    def seconds(self, config: FinetuneConfig, shape: Geometry, card: Card, gpus: int, utilisation: float) -> float:
        """Training time; evaluations, saving and start-up come on top."""
        return self.operations(config, shape) / (gpus * card.tflops * 1e12 * utilisation)

    def operations(self, config: FinetuneConfig, shape: Geometry) -> float:
        """2 x multiply-adds of all steps, repeated ones included; and of DPO's reference, a forward pass per pair."""
        lora = 0 if config.method == "full" else shape.lora_parameters(*config.lora_shape)
        again = config.gradient_checkpointing
        training = shape.training_flops(config.method, self.tokens, self.pairs, self.predicted, lora, again)
        if config.objective != "dpo":
            return training
        once = min(1, self.steps_per_epoch / self.steps)  # the share of all steps that is a pass over the pairs
        return training + once * shape.forward_flops(self.tokens, self.pairs, self.predicted)


def like_alpaca(config: FinetuneConfig, tokens: int, ranks: int) -> Work:
    """The work of a run on Alpaca's examples, nothing shared, for want of data to count.

    Args:
        config: The run's settings; those of the data are not read.
        tokens: Most of a micro-batch.
        ranks: GPUs.
    """
    answers = 1 if config.objective == "sft" else 2  # of a record, each with its prompt
    a_step = config.batch_size * ALPACA_TOKENS * answers
    steps_per_epoch = ALPACA_EXAMPLES // config.batch_size
    steps = config.total_steps(steps_per_epoch)
    per_rank = math.ceil(a_step / tokens / ranks)
    longest = answers * config.cutoff_len  # is never split
    held = max(tokens if per_rank > 1 else min(tokens, math.ceil(a_step / ranks / per_rank)), longest)
    seen = (ALPACA_TOKENS + 1) / 2
    largest = MicroBatchSize(held, math.ceil(ALPACA_PREDICTED * held), seen * held, min(held, config.cutoff_len))
    total = float(steps * a_step)
    what = "examples" if answers == 1 else "pairs, each answer with its prompt,"
    source = f"Alpaca's {ALPACA_EXAMPLES:,} {what} of {ALPACA_TOKENS} tokens, an estimate; give data for its own"
    return Work(
        steps, total, total * seen, total * ALPACA_PREDICTED, (largest,), per_rank == 1, source, steps_per_epoch
    )
