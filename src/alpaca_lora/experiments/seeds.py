"""Whether settings differ, and not only models: runs of several seeds a side, each with its losses by record.

Two things vary that a difference of settings must rise above: what the seed drew (initial values, order, dropout), and
which records were there to validate. With r_s the loss per token of seed s, k seeds and records that seeds share,

    variance of the mean of r = S^2 / k + c,
    S^2  sample variance of r_s: what seeds differ in, with their own noise on every record,
    c    mean over pairs of seeds of sum e_si e_s'i / (T_s T_s'),  e_si = loss_si - r_s t_i: what records differ in.

Records that only one seed has add nothing to c, for their share is in S^2 already; so it holds for validation sets that
are the same, overlap, or differ by seed. Two sides: S^2 / k of both, and c of the difference. The interval is Student's
with Satterthwaite's degrees of freedom, for S^2 is known from a few seeds only. Where these are many, it is the records
that count, and it is nowhere within the interval of the records alone, which knows their skewness (paired_interval.py).
Chosen by simulation: docs/comparing.md.

Source: the variance of clustered means (arXiv 2411.00640, sections 2.2 and 3), with seeds as a second level as in
Bouthillier et al., arXiv 2103.03098; Satterthwaite (1946), Biometrics Bulletin 2, 110-114.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runs.paired_interval import Interval, ratio_interval, t_quantile

_MANY = 40


@dataclass(frozen=True)
class SeedLosses:
    """Losses of runs that differ in their seed: one row a run, one column a record.

    Attributes:
        losses_KN: Sum of each record's losses, 0 where a run has not that record.
        tokens_KN: Tokens of each, 0 likewise.
    """

    losses_KN: np.ndarray
    tokens_KN: np.ndarray

    @property
    def means_K(self) -> np.ndarray:
        """Loss per token of each run."""
        return self.losses_KN.sum(axis=1) / self.tokens_KN.sum(axis=1)

    @property
    def influences_KN(self) -> np.ndarray:
        """How far each record moves its run's mean."""
        residuals = self.losses_KN - self.means_K[:, None] * self.tokens_KN
        return residuals / self.tokens_KN.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class SeedDifference:
    """A difference of settings.

    Attributes:
        mean: Mean loss of one side less the other's, nats per token.
        error: Its standard error, from seeds and records.
        freedom: Degrees of freedom of that error.
        from_seeds: Share of the variance that more seeds would lower.
        values_N: Difference of each record, summed over its tokens and over seeds.
        tokens_N: Its tokens, likewise.
    """

    mean: float
    error: float
    freedom: float
    from_seeds: float
    values_N: np.ndarray
    tokens_N: np.ndarray

    def interval(self, level: float = 0.95) -> Interval:
        """The interval of both levels."""
        if not self.error:
            return Interval(self.mean, self.mean, self.mean)
        reach = t_quantile(level, self.freedom) * self.error
        if self.freedom < _MANY:
            return Interval(self.mean, self.mean - reach, self.mean + reach)
        records = ratio_interval(self.values_N, self.tokens_N, level)
        below, above = max(reach, records.mean - records.low), max(reach, records.high - records.mean)
        return Interval(self.mean, self.mean - below, self.mean + above)


def difference_by_seed(differences: SeedLosses) -> SeedDifference:
    """The same seeds on both sides, three or more: each row is a seed's losses on one side less those on the other."""
    return _difference([differences], np.array([1.0]))


def difference_of_groups(a: SeedLosses, b: SeedLosses) -> SeedDifference:
    """Other seeds on each side: b less a, on the same records."""
    return _difference([a, b], np.array([-1.0, 1.0]))


def _difference(sides: list[SeedLosses], signs: np.ndarray) -> SeedDifference:
    counts = [len(side.means_K) for side in sides]
    records = int((sum(side.tokens_KN.sum(axis=0) for side in sides) > 0).sum())
    mean = sum(sign * float(side.means_K.mean()) for sign, side in zip(signs, sides, strict=True))
    seeds = [float(side.means_K.var(ddof=1)) / count for side, count in zip(sides, counts, strict=True)]
    shared = np.array([[_shared(one, other) for other in sides] for one in sides])
    by_record = max(float(signs @ shared @ signs) * records / max(records - 1, 1), 0.0)
    values = sum(sign * side.losses_KN.mean(axis=0) for sign, side in zip(signs, sides, strict=True))
    tokens = sides[-1].tokens_KN.mean(axis=0)
    parts = [*zip(seeds, (count - 1 for count in counts), strict=True), (by_record, records - 1)]
    variance = sum(part for part, _ in parts)
    share = sum(part**2 / degrees for part, degrees in parts)
    freedom = variance**2 / share if variance else records - 1.0
    from_seeds = sum(seeds) / variance if variance else 0.0
    return SeedDifference(mean, variance**0.5, freedom, from_seeds, values, tokens)


def _shared(one: SeedLosses, other: SeedLosses) -> float:
    """Mean covariance of two runs' means by the records that they share; within a side, of two different runs."""
    products = one.influences_KN @ other.influences_KN.T
    if one is other:
        products = products[~np.eye(len(products), dtype=bool)]
    return float(products.mean())
