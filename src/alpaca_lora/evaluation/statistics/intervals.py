"""How often one model is preferred, and how far off that may be by chance.

In: votes on one pair of models. Out: a win rate with its 95% interval. A tie counts as half a win throughout.

    one vote per instruction, win / tie / loss    score_interval (Wilson's, when there are no ties)
    several votes per instruction, or graded      clustered_interval (Wilson's, at the effective number of votes)

Several raters of one instruction do not make several instructions: they agree more with each other than chance does,
and an interval over all votes as if they were independent would be too narrow. benchmarks/coverage.py
measures how often the intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .optional_packages import load_package
from .votes import Vote, one_sided

LEVEL = 0.95


class Interval(NamedTuple):
    """Ends of a confidence interval of a rate, from 0 to 1."""

    low: float
    high: float


@dataclass(frozen=True)
class WinRate:
    """How often `a` was preferred to `b`.

    Attributes:
        a: The model whose win rate this is.
        b: The other.
        wins: Votes for `a` (preference above 0.5).
        losses: Votes for `b`.
        ties: Votes for neither.
        items: Instructions voted on.
        rate: Mean preference for `a` over all votes, from 0 to 1.
        low: Lower end of its 95% interval.
        high: Upper end.
        standard_error: Of `rate`, instructions being independent; None with one. With one vote each it is AlpacaEval's.
    """

    a: str
    b: str
    wins: int
    losses: int
    ties: int
    items: int
    rate: float
    low: float
    high: float
    standard_error: float | None = None

    @property
    def votes(self) -> int:
        """All votes, ties included."""
        return self.wins + self.losses + self.ties


class SignTest(NamedTuple):
    """Instructions won, lost and tied, and the two-sided p-value of the exact sign test."""

    wins: int
    losses: int
    ties: int
    p: float


def win_rate(votes: Sequence[Vote]) -> WinRate:
    """Win rate of `votes[0].a`, ties counting half, with the interval that suits the votes.

        rate = (wins + ties / 2) / (wins + losses + ties), or the mean if preferences are probabilities

    Args:
        votes: On one pair of models, told from either side.

    Raises:
        DataError: There are no votes, or votes on more than one pair.

    Example:
        >>> found = win_rate([Vote(str(i), "r", "A", "B", float(i < 90)) for i in range(179)])
        >>> f"{found.wins} to {found.losses}: {found.rate:.1%} ({found.low:.1%} to {found.high:.1%})"
        '90 to 89: 50.3% (43.0% to 57.5%)'
    """
    votes = one_sided(votes)
    preferences = np.array([vote.preference for vote in votes])
    wins, losses = int((preferences > 0.5).sum()), int((preferences < 0.5).sum())
    ties = len(votes) - wins - losses
    sums, counts = by_item(votes)
    if counts.max() == 1 and not is_graded(votes):
        low, high = score_interval(wins, losses, ties)
    else:
        low, high = clustered_interval(sums, counts)
    rate = float(preferences.mean())
    error = _variance(sums, counts) ** 0.5 if len(sums) > 1 else None
    return WinRate(votes[0].a, votes[0].b, wins, losses, ties, len(sums), rate, low, high, error)


def is_graded(votes: Sequence[Vote]) -> bool:
    """Whether a preference is a probability, and not a win, tie or loss."""
    return any(vote.preference not in (0, 0.5, 1) for vote in votes)


def score_interval(wins: int, losses: int, ties: int = 0, level: float = LEVEL) -> Interval:
    """Score interval of a win rate from independent votes; without ties it is Wilson's.

    With p_w, p_l the chances of a win and a loss and D = p_w - p_l, the win rate is (1 + D) / 2. D is in the interval
    when the score test does not reject it:

        |wins - losses - n D| <= z sqrt(n (p_w + p_l - D^2)),    n = wins + losses + ties,  z = Phi^-1((1 + level) / 2),

    p_w and p_l being their likeliest values under that D: p_l is the larger root q of
    2n q^2 - (wins + losses - (2n + losses - wins) D) q - losses D (1 - D) = 0, and p_w = q + D.

    So ties count in n and, as half a win, in the rate, but a tie adds no variance. Wilson's formula on
    wins + ties / 2 of n would treat it as a coin toss: that interval is too wide if ties are many.

    Source: Tango (1998), Statistics in Medicine 17, 891-908; without ties Wilson (1927), JASA 22, 209-212.

    Args:
        wins: Votes for the model.
        losses: Votes against it.
        ties: Votes for neither.
        level: Confidence level.

    Example:
        >>> [round(end, 4) for end in score_interval(81, 182)]  # Newcombe (1998), Table I: 81 of 263
        [0.2553, 0.3662]
    """
    total = wins + losses + ties
    z = float(load_package("scipy.special").ndtri((1 + level) / 2))
    brentq = load_package("scipy.optimize").brentq

    def upper(won: int, lost: int) -> float:
        def beyond(difference: float) -> float:
            linear = won + lost - (2 * total + lost - won) * difference
            root = max(linear**2 + 8 * total * lost * difference * (1 - difference), 0.0) ** 0.5
            variance = (linear + root) / (2 * total) + difference - difference**2
            return total * difference - (won - lost) - z * (total * max(variance, 0.0)) ** 0.5

        # If all votes are alike, `beyond` is 0 at the estimate too, which is not the end looked for.
        return 1.0 if won == total else float(brentq(beyond, (won - lost) / total + 1e-9, 1.0, xtol=1e-12))

    return Interval((1 - upper(losses, wins)) / 2, (1 + upper(wins, losses)) / 2)


def clustered_interval(sums: np.ndarray, counts: np.ndarray) -> Interval:
    """Wilson's interval at the effective number of votes, for votes that come in clusters.

    With s_k the sum of preferences (`sums`) and n_k the number of votes (`counts`) of instruction k of K, N = sum n_k,

        rate = sum s_k / N,    v = K / (K - 1) * sum (s_k - n_k rate)^2 / N^2    (its variance, clusters independent)
        n_eff = rate (1 - rate) / v * (z / t_{K-1})^2                            (t: for v is estimated from K values)

    and the interval is Wilson's for rate * n_eff successes of n_eff. If all instructions say the same (v = 0), or there
    is only one, n_eff = K. Its coverage in simulations is close to 95% (benchmarks/coverage.py): 93.8% at 20
    instructions and a win rate of 90%.

    Source: Korn and Graubard (1998), Survey Methodology 24, 193-201 (effective sample size); with Wilson's interval,
    Franco, Little, Louis and Slud (2019), Journal of Survey Statistics and Methodology 7, 334-364.
    """
    variance = _variance(sums, counts) if len(sums) > 1 else 0.0
    return interval_at(float(sums.sum() / counts.sum()), variance, len(sums))


def interval_at(rate: float, variance: float, clusters: int) -> Interval:
    """The interval of `clustered_interval`, from a rate, its variance v and the number K of instructions."""
    special = load_package("scipy.special")
    z = float(special.ndtri((1 + LEVEL) / 2))
    effective = float(clusters)
    if clusters > 1 and variance > 1e-12 and 0 < rate < 1:
        t = float(special.stdtrit(clusters - 1, (1 + LEVEL) / 2))
        effective = rate * (1 - rate) / variance * (z / t) ** 2
    confint = load_package("statsmodels.stats.proportion").proportion_confint
    low, high = confint(rate * effective, effective, alpha=1 - LEVEL, method="wilson")
    return Interval(max(float(low), 0.0), min(float(high), 1.0))


def _variance(sums: np.ndarray, counts: np.ndarray) -> float:
    """Of a win rate, the v of `clustered_interval`; at least two instructions."""
    clusters, rate = len(sums), sums.sum() / counts.sum()
    return clusters / (clusters - 1) * float(((sums - counts * rate) ** 2).sum() / counts.sum() ** 2)


def by_item(votes: Sequence[Vote]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the preferences and number of votes, per instruction, in order of first appearance."""
    place: dict[str, int] = {}
    index = np.array([place.setdefault(vote.item, len(place)) for vote in votes])
    preferences = np.array([vote.preference for vote in votes])
    return np.bincount(index, preferences), np.bincount(index).astype(float)


def sign_test(votes: Sequence[Vote]) -> SignTest:
    """Exact two-sided sign test of "neither model is preferred more often", over instructions.

    Wins are those of `votes[0].a`. An instruction is won when the mean preference of its votes is above 0.5; ties are
    dropped. With m = wins + losses and X ~ Binomial(m, 1/2), p = P(|X - m/2| >= |wins - m/2|), and 1 when m = 0.

    Source: Conover (1999), Practical Nonparametric Statistics, 3rd edition, section 3.4.

    Example:
        >>> sign_test([Vote(str(i), "r", "A", "B", float(i < 3)) for i in range(10)])
        SignTest(wins=3, losses=7, ties=0, p=0.34375)
    """
    sums, counts = by_item(one_sided(votes))
    lead = np.round(sums / counts - 0.5, 9)  # three votes of 1/3, 1/3 and 5/6 are a tie, whatever their float sum
    wins, losses = int((lead > 0).sum()), int((lead < 0).sum())
    decided = wins + losses
    p = float(load_package("scipy.stats").binomtest(wins, decided, 0.5).pvalue) if decided else 1.0
    return SignTest(wins, losses, len(lead) - decided, min(p, 1.0))
