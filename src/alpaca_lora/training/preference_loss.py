"""What training minimises on pairs: a chosen answer and a rejected one to the same prompt.

Log-probabilities are those of a whole answer, EOS included: l = sum over its tokens of log p. B pairs are a step, T the
tokens of their chosen answers, s the logistic function.

    DPO   (arXiv 2305.18290, equation 7)         r = beta (l - l_reference)
        loss = -1/B sum  (1 - e) log s(r_chosen - r_rejected) + e log s(r_rejected - r_chosen)

    ORPO  (arXiv 2403.07691, equations 3 to 7)   m = l / tokens of the answer,  log odds = m - log(1 - exp(m))
        loss = -1/T sum l_chosen  -  beta/B sum log s(log odds_chosen - log odds_rejected)

e is `label_smoothing`: the share of pairs taken to be the wrong way round (Mitchell, "A note on DPO with noisy
preferences", 2023). The reference is the model before its first step.

Both are a sum over pairs divided by one number of the step, whatever the step was split into.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid

from ..config import FinetuneConfig


class AnswerPairs(NamedTuple):
    """Answers of P pairs; side 0 is the chosen one, side 1 the rejected one."""

    log_probs_P2: torch.Tensor
    """float32, of whole answers."""
    tokens_P2: torch.Tensor
    """float32, tokens of each answer, EOS included."""
    reference_P2: torch.Tensor
    """float32, `log_probs_P2` before training; zeros if the objective has no reference."""


class Scored(NamedTuple):
    """What an objective makes of P pairs."""

    loss_P: torch.Tensor
    """float32: each pair's share of the loss, before it is divided."""
    rewards_P2: torch.Tensor
    """float32, without gradient: the rewards that the objective stands for."""


@dataclass(frozen=True)
class PreferenceLoss:
    """DPO or ORPO.

    Args:
        objective: "dpo" or "orpo".
        beta: See above.
        label_smoothing: e; of DPO.
    """

    objective: str
    beta: float
    label_smoothing: float = 0.0

    @classmethod
    def wanted(cls, config: FinetuneConfig) -> PreferenceLoss | None:
        """A run's, if its settings ask for one."""
        return None if config.objective == "sft" else cls(config.objective, config.beta, config.label_smoothing)

    @property
    def has_reference(self) -> bool:
        """Whether it compares with the model before its first step."""
        return self.objective == "dpo"

    def weight(self, pairs: int, chosen_tokens: int) -> int:
        """What the sum over pairs is divided by: tokens where the loss is one of tokens, else pairs."""
        return chosen_tokens if self.objective == "orpo" else pairs

    def score(self, pairs: AnswerPairs, tokens_per_pair: float) -> Scored:
        """Losses and rewards.

        Args:
            pairs: Some of a step's pairs.
            tokens_per_pair: T / B of the whole step.
        """
        if self.objective == "dpo":
            rewards_P2 = self.beta * (pairs.log_probs_P2 - pairs.reference_P2)
            margin_P = rewards_P2[:, 0] - rewards_P2[:, 1]
            wrong = self.label_smoothing
            loss_P = -(1 - wrong) * logsigmoid(margin_P) - wrong * logsigmoid(-margin_P)
            return Scored(loss_P, rewards_P2.detach())
        means_P2 = pairs.log_probs_P2 / pairs.tokens_P2
        log_odds_P2 = means_P2 - log_1_minus_exp(means_P2)
        odds_loss_P = -logsigmoid(log_odds_P2[:, 0] - log_odds_P2[:, 1])
        loss_P = -pairs.log_probs_P2[:, 0] + self.beta * tokens_per_pair * odds_loss_P
        return Scored(loss_P, (self.beta * means_P2).detach())


def log_1_minus_exp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0, exact where exp(x) is close to 0 or 1 (M. Maechler, "Accurately computing
    log(1 - exp(-|a|))", 2012).

    A mean log-probability of exactly 0, of an answer that is certain, counts as the next smaller number, for its odds
    would be infinite.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near_one = x > -math.log(2)
    # Each branch is fed numbers of its own domain only: the gradient of the other one would be no number.
    return torch.where(
        near_one,
        (-torch.expm1(x.where(near_one, -x.new_ones(())))).log(),
        torch.log1p(-x.where(~near_one, -x.new_ones(())).exp()),
    )
