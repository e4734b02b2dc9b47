"""One answer's tokens, chosen as its sampling says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .sampling import Sampling

NOT_FINITE = (
    "the model's logits are NaN or Inf, so it has no answer: its weights are damaged, or leave the range of its dtype. "
    "Copy the model again, or load it with dtype=float32."
)


class Sampler:
    """Chooses one answer's tokens, with random numbers of its own.

    Args:
        sampling: The rule.
        device: Where the logits are.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        from transformers import (
            LogitsProcessorList,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self.random = None
        steps: list[Any] = []  # in the order of transformers' own generate
        if sampling.repetition_penalty != 1:
            steps.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
        if sampling.temperature > 0:
            self.random = torch.Generator(device)
            if sampling.seed is None:
                self.random.seed()
            else:
                self.random.manual_seed(sampling.seed)
            if sampling.temperature != 1:
                steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k:
                steps.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                steps.append(TopPLogitsWarper(sampling.top_p))
        self.steps = LogitsProcessorList(steps)

    @property
    def plain(self) -> bool:
        """Whether the choice is the likeliest token and nothing else, so that many rows can choose at once."""
        return self.random is None and not self.steps

    def choose(self, ids: Sequence[int], logits_V: torch.Tensor) -> int:
        """The next token after `ids`."""
        scores_1V = self.steps(torch.tensor([ids], device=logits_V.device), logits_V[None].float())
        if self.random is None:
            return int(scores_1V.argmax())
        return int(torch.multinomial(scores_1V.softmax(-1), 1, generator=self.random))
