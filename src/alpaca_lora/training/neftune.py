"""NEFTune: uniform noise on the embeddings while training (arXiv 2310.05914).

    noise = alpha / sqrt(L d) u,    u uniform in [-1, 1), drawn for each of d numbers of each of an example's tokens

L is the example's own length, EOS included, whatever stands beside it. (transformers takes the length of the row, which
in packed rows makes the noise depend on the packing: its issues 34659, 35799.)

Each example has a draw of its own, made from (seed, step, example). So `padded` and `packed` have the same noise, bit
for bit, however a step is split over micro-batches and processes, and so has a run that was resumed. In `tree` a token
that several examples share is computed once: it has one draw, that of the first of them, as with dropout, and the root
mean square of their scales:

    scale^2 = mean over the examples that share it of alpha^2 / (L d)

Summed over the tokens of all examples, E noise^2 is then the same in every layout. What differs: of examples that share
a token, the shorter get less noise there than alone, the longer more; and their draws there are equal, not independent.
(A record that a mixture puts twice into a step has one draw, too.)

The noise is added by a hook of the input embedding, outside of what is compiled or recomputed. It takes no random
number of anybody's. Cost: a tensor of the embeddings' size for each micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..config import FinetuneConfig
from ..data.packs import Layout, shared_prefixes
from ..data.plan import Planner
from ..data.tokens import Examples
from .out_of_memory import MicroBatch


class EmbeddingNoise:
    """Adds noise to what a model's input embedding gives, while a micro-batch is said to be trained.

    Args:
        model: The model.
        alpha: NEFTune's alpha; the paper has 5 to 15.
        seed: The run's.
        examples: The training examples.
        layout: How they are laid out.
    """

    def __init__(self, model: Any, alpha: float, seed: int, examples: Examples, layout: Layout) -> None:
        self.alpha, self.seed, self.examples, self.layout = alpha, seed, examples, layout
        self.embedding = model.get_input_embeddings()

    @classmethod
    def wanted(cls, config: FinetuneConfig, model: Any, planner: Planner) -> EmbeddingNoise | None:
        """A run's, if its settings ask for noise."""
        if config.neftune_noise_alpha is None:
            return None
        return cls(model, config.neftune_noise_alpha, config.seed, planner.examples, planner.layout)

    @contextmanager
    def on(self, batch: MicroBatch, step: int) -> Iterator[None]:
        """While it is entered, the embedding's next outputs are those of this micro-batch of step `step`."""

        def add(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            noise = self.of(batch.members, output.shape, step, output.device)
            return output + noise.to(output.dtype)

        hook = self.embedding.register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()

    def of(
        self, members: np.ndarray, shape: tuple[int, ...] | torch.Size, step: int, device: torch.device
    ) -> torch.Tensor:
        """The noise of a micro-batch, float32.

        Args:
            members: Its examples, in the pack's order.
            shape: (R, T, d): its rows, their tokens, and the embedding's size.
            step: The step, counted from 0.
            device: Where it is drawn; devices draw different numbers.
        """
        rows, width, hidden = shape
        lengths = self.examples.lengths[members]
        shared = shared_prefixes(self.examples, members) if self.layout == "tree" else np.zeros_like(lengths)
        noise = torch.zeros(rows * width, hidden, device=device)
        inverse, owners = np.zeros(rows * width), np.zeros(rows * width)
        path, start = np.empty(int(lengths.max()), np.int64), 0  # path[d]: place of the open token at depth d
        for row, (member, length, kept) in enumerate(zip(members, lengths, shared, strict=True)):
            if self.layout == "padded":
                start = row * width
            fed = int(length) - 1  # EOS is a target only
            end = start + fed - int(kept)
            path[kept:fed] = np.arange(start, end)
            inverse[path[:fed]] += 1 / length
            owners[path[:fed]] += 1
            if end > start:
                drawn = torch.rand(fed, hidden, generator=self._generator(step, int(member), device), device=device)
                noise[start:end] = drawn[int(kept) :]
            start = end
        scale = self.alpha * np.sqrt(inverse / np.maximum(owners, 1) / hidden)  # 0 where nobody's token stands
        scales = torch.from_numpy(scale).to(device, torch.float32)[:, None]
        return noise.mul_(2).sub_(1).mul_(scales).view(rows, width, hidden)

    def _generator(self, step: int, member: int, device: torch.device) -> torch.Generator:
        (mixed,) = np.random.SeedSequence([self.seed, step, member]).generate_state(1)  # 32 bits: all that CPUs take
        return torch.Generator(device).manual_seed(int(mixed))
