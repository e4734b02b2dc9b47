"""Biases that may have decided votes: the length of the answers, and the order they were shown in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from .intervals import LEVEL, WinRate, win_rate
from .optional_packages import load_package
from .votes import Vote, one_sided

LONGER, SHORTER = "the longer answer", "the shorter answer"
FIRST, SECOND = "the answer shown first", "the answer shown second"
_FEWEST_ITEMS = 10
_LARGEST_LOG_ODDS = 12.0  # a fit beyond it is on its way to infinity: 1 - 6e-6


@dataclass(frozen=True)
class LengthControlled:
    """A win rate as it would be if both answers were always equally long.

    Attributes:
        model: Whose win rate it is.
        rate: From 0 to 1.
        low: Lower end of its 95% interval.
        high: Upper end.
    """

    model: str
    rate: float
    low: float
    high: float


def length_bias(votes: Sequence[Vote]) -> WinRate | None:
    """Win rate of the longer of two answers, over all votes with known, unequal lengths; None without any.

    A rate above 50% need not be bias: longer answers may be better. `length_controlled` asks what is left of one
    model's lead. Source: Dubois et al. (2024), Length-Controlled AlpacaEval, arXiv 2404.04475.
    """
    known = []
    for vote in votes:
        if vote.length_a is not None and vote.length_b is not None and vote.length_a != vote.length_b:
            longer = vote.preference if vote.length_a > vote.length_b else 1 - vote.preference
            known.append(Vote(vote.item, vote.rater, LONGER, SHORTER, longer))
    return win_rate(known) if known else None


def position_bias(votes: Sequence[Vote]) -> WinRate | None:
    """Win rate of the answer shown first, over all votes for which that is known; None without any.

    Without bias it is 50%, if each model is shown first equally often; with random order, it is so on average.
    Source: Wang et al. (2023), Large Language Models are not Fair Evaluators, arXiv 2305.17926.
    """
    known = [
        Vote(
            vote.item,
            vote.rater,
            FIRST,
            SECOND,
            vote.preference if vote.shown_first == vote.a else 1 - vote.preference,
        )
        for vote in votes
        if vote.shown_first
    ]
    return win_rate(known) if known else None


def length_controlled(votes: Sequence[Vote]) -> LengthControlled:
    """Length-controlled win rate of `votes[0].a`, by logistic regression.

        log odds(a is preferred) = alpha + beta tanh((length_a - length_b) / sd),    rate = 1 / (1 + exp(-alpha))

    sd is the standard deviation of the length differences; the response is the preference, a tie being 1/2. The
    interval is alpha +- z standard errors (sandwich, clustered by instruction), carried through the logistic function.

    Source: Dubois et al. (2024), arXiv 2404.04475, equation 1. Theirs has a third term, the difficulty of each
    instruction, estimated from the votes on many models, and shrinks its coefficients; ours has the votes on one pair
    and does neither. So figures of AlpacaEval 2 come out near, not equal.

    Args:
        votes: On one pair of models; those without lengths are left out.

    Raises:
        DataError: The votes are too few, too uniform, or too clear-cut for a regression; the message says which.
    """
    votes = [vote for vote in one_sided(votes) if vote.length_a is not None and vote.length_b is not None]
    preferences = np.array([vote.preference for vote in votes])
    differences = np.array([float((vote.length_a or 0) - (vote.length_b or 0)) for vote in votes])
    groups = np.unique([vote.item for vote in votes], return_inverse=True)[1] if votes else np.array([])
    items = len(set(groups.tolist()))
    if items < _FEWEST_ITEMS:
        raise DataError(f"lengths of both answers are known for {items} instructions; {_FEWEST_ITEMS} are needed.")
    if not np.ptp(differences):
        raise DataError("the answers always differ in length by the same amount, so length cannot be told from model.")
    if not np.ptp(preferences):
        raise DataError("all votes are the same, so there is nothing that length could explain.")
    design = np.stack([np.ones(len(votes)), np.tanh(differences / differences.std(ddof=1))], axis=1)
    glm = load_package("statsmodels.genmod.generalized_linear_model").GLM
    binomial = load_package("statsmodels.genmod.families").Binomial
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separation is found below, from what it does
        fit = glm(preferences, design, family=binomial()).fit(cov_type="cluster", cov_kwds={"groups": groups})
    if not fit.converged or not np.isfinite(fit.bse).all() or np.abs(fit.params).max() > _LARGEST_LOG_ODDS:
        raise DataError("length, or its absence, decides every vote, so the regression has no finite answer.")
    special = load_package("scipy.special")
    alpha, error = float(fit.params[0]), float(fit.bse[0])
    z = float(special.ndtri((1 + LEVEL) / 2))
    rate, low, high = (float(special.expit(alpha + k * z * error)) for k in (0, -1, 1))
    return LengthControlled(votes[0].a, rate, low, high)
