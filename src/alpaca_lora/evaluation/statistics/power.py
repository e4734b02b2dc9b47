"""How many comparisons it takes to detect a difference, and how small a difference they can detect.

For planning, and for saying what "no difference detected" leaves open.
"""

from __future__ import annotations

import math

from ...errors import ConfigError
from .optional_packages import load_package

POWER = 0.8
SIGNIFICANCE = 0.05


def comparisons_needed(win_rate: float, tie_rate: float = 0.0) -> int:
    """Independent comparisons for a two-sided test at 5% to detect a true win rate 80% of the time.

        n = ((z_{1-0.05/2} s_0 + z_0.8 s_1) / (win_rate - 1/2))^2, rounded up
        s_0^2 = (1 - tie_rate) / 4,   s_1^2 = win_rate (1 - win_rate) - tie_rate / 4

    s^2 is the variance of one vote, ties counting half, if the models are equal and if they are not.

    Source: without ties, Fleiss, Levin and Paik (2003), Statistical Methods for Rates and Proportions, 3rd edition,
    chapter 2, and Rosner (2011), Fundamentals of Biostatistics, 7th edition, chapter 7; with them, Connor
    (1987), Biometrics 43, 207-211, in whose terms a tie is a concordant pair.

    Args:
        win_rate: To be detected, ties counting half; in [0, 1], not 0.5.
        tie_rate: Share of votes that are ties.

    Raises:
        ConfigError: The rates are out of range, or leave no room for each other.

    Example:
        >>> comparisons_needed(0.55)
        783
    """
    if not 0 <= win_rate <= 1 or win_rate == 0.5:
        raise ConfigError(f"win_rate: {win_rate!r} has no number of comparisons; give one in [0, 1] other than 0.5.")
    if not 0 <= tie_rate < 1 or abs(2 * win_rate - 1) > 1 - tie_rate + 1e-9:
        raise ConfigError(
            f"tie_rate: {tie_rate!r} cannot go with a win rate of {win_rate!r}; "
            f"give one in [0, {1 - abs(2 * win_rate - 1):.3g}]."
        )
    return math.ceil(sample_size(0.5, win_rate, SIGNIFICANCE, POWER, tie_rate) - 1e-9)


def sample_size(null: float, alternative: float, significance: float, power: float, tie_rate: float = 0.0) -> float:
    """The formula of `comparisons_needed` for any rates and errors, not rounded."""
    size = load_package("statsmodels.stats.power").normal_sample_size_one_tail
    deviations = [max(rate * (1 - rate) - tie_rate / 4, 0.0) ** 0.5 for rate in (null, alternative)]
    return float(size(abs(alternative - null), power, significance / 2, *deviations))


def detectable_difference(error: float) -> float:
    """The smallest difference from 50% that a rate with this standard error detects 80% of the time, two-sided at 5%.

        (z_{1-0.05/2} + z_0.8) * error = 2.80 error

    `comparisons_needed` read the other way, with the variance that the votes themselves show; so it holds for ties,
    several raters and graded preferences. Source: Fleiss, Levin and Paik (2003), chapter 2, with equal deviations.
    """
    ndtri = load_package("scipy.special").ndtri
    return float(ndtri(1 - SIGNIFICANCE / 2) + ndtri(POWER)) * error
