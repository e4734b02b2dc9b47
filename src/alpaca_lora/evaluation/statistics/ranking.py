"""A ranking of several models from comparisons of pairs of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from .intervals import LEVEL
from .optional_packages import load_package
from .votes import Vote, models_of


@dataclass(frozen=True)
class Strength:
    """One model's place.

    Attributes:
        model: Its name.
        strength: Its log-strength; the mean over all models is 0. A lead of 0.41 is a 60% win rate, 1.10 is 75%.
        low: Lower end of the 95% interval of `strength`.
        high: Upper end.
        votes: Votes that it took part in.
    """

    model: str
    strength: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True)
class Ranking:
    """Models, strongest first.

    Attributes:
        strengths: One entry per model.
        note: What was done so that all strengths are finite; "" if nothing was.
    """

    strengths: tuple[Strength, ...]
    note: str


def bradley_terry(votes: Sequence[Vote]) -> Ranking:
    """Ranks models by the Bradley-Terry model, by maximum likelihood.

        P(a is preferred to b) = 1 / (1 + exp(-(s_a - s_b))),    sum of s = 0

    fitted as a logistic regression without intercept, one row per vote: +1 for `a`, -1 for `b`, response the preference
    (a tie is half a win). If votes share an instruction or are not all wins and losses, the standard errors are the
    sandwich's, clustered by instruction.

    Finite strengths exist only if, however the models are split in two groups, each group has a win (or tie) against
    the other (Ford 1957). If they do not, for example because a model always won, half a win each way is added to
    every pair that was compared, and `note` says so. Models that no chain of comparisons links cannot be ranked.

    Source: Bradley and Terry (1952), Biometrika 39, 324-345; Ford (1957), American Mathematical Monthly 64, 28-33;
    Agresti (2002), Categorical Data Analysis, 2nd edition, section 10.6.

    Raises:
        DataError: There are no votes, or the comparisons fall into groups that nothing links.
    """
    if not votes:
        raise DataError("there are no votes, so there is nothing to rank. Collect some first.")
    models = models_of(votes)
    place = {model: index for index, model in enumerate(models)}
    a = np.array([place[vote.a] for vote in votes])
    b = np.array([place[vote.b] for vote in votes])
    y = np.array([vote.preference for vote in votes])
    groups = np.unique([vote.item for vote in votes], return_inverse=True)[1]
    involved = np.bincount(np.concatenate([a, b]), minlength=len(models))

    note = ""
    if not _is_strongly_connected(a, b, y, models):
        pairs = np.unique(np.sort(np.stack([a, b], axis=1), axis=1), axis=0)
        a, b = np.concatenate([a, pairs[:, 0]]), np.concatenate([b, pairs[:, 1]])
        y = np.concatenate([y, np.full(len(pairs), 0.5)])
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(pairs))])
        note = (
            "Some models won or lost every comparison with the rest, so the likeliest strengths are infinite: "
            "half a win each way was added to every pair compared."
        )
    strengths, covariance = _fit(a, b, y, groups, len(models))
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    order = np.argsort(-strengths, kind="stable")
    z = float(load_package("scipy.special").ndtri((1 + LEVEL) / 2))
    ranked = tuple(
        Strength(
            models[i],
            float(strengths[i]),
            float(strengths[i] - z * errors[i]),
            float(strengths[i] + z * errors[i]),
            int(involved[i]),
        )
        for i in order
    )
    return Ranking(ranked, note)


def _fit(a: np.ndarray, b: np.ndarray, y: np.ndarray, groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Centred strengths and their covariance. The last model is the fit's reference."""
    glm = load_package("statsmodels.genmod.generalized_linear_model").GLM
    binomial = load_package("statsmodels.genmod.families").Binomial
    design = np.zeros((len(y), count))
    design[np.arange(len(y)), a] = 1
    design[np.arange(len(y)), b] = -1
    independent = len(np.unique(groups)) == len(y) and bool(np.isin(y, (0, 1)).all())
    robust = {} if independent else {"cov_type": "cluster", "cov_kwds": {"groups": groups}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the sandwich's rank with few instructions; the intervals are wide then
        fit = glm(y, design[:, :-1], family=binomial()).fit(**robust)
    centre = np.vstack([np.eye(count - 1), np.zeros(count - 1)]) - 1 / count
    return centre @ fit.params, centre @ fit.cov_params() @ centre.T


def _is_strongly_connected(a: np.ndarray, b: np.ndarray, y: np.ndarray, models: list[str]) -> bool:
    """Whether a chain of wins leads from every model to every other.

    Raises:
        DataError: Not even a chain of comparisons does.
    """
    matrix = load_package("scipy.sparse").csr_array
    components = load_package("scipy.sparse.csgraph").connected_components
    count = len(models)
    won = matrix(
        (np.ones(2 * len(y)) * np.concatenate([y > 0, y < 1]), (np.concatenate([a, b]), np.concatenate([b, a]))),
        shape=(count, count),
    )
    won.eliminate_zeros()
    parts, labels = components(won, directed=True, connection="weak")
    if parts > 1:
        groups = [", ".join(name for name, at in zip(models, labels, strict=True) if at == k) for k in range(parts)]
        raise DataError(
            f"the comparisons fall into {parts} groups that nothing links: {' | '.join(groups)}. Compare a model of "
            "one group with one of the other, or rank each group on its own."
        )
    return bool(components(won, directed=True, connection="strong")[0] == 1)
