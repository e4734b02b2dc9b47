"""Sample sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from alpaca_lora.errors import ConfigError
from alpaca_lora.evaluation.statistics.intervals import score_interval
from alpaca_lora.evaluation.statistics.power import (
    comparisons_needed,
    detectable_difference,
    sample_size,
)


def test_sample_sizes_as_published():
    # Rosner (2011), Fundamentals of Biostatistics, chapter 7: breast cancer among sisters, 341 women.
    assert sample_size(0.02, 0.05, significance=0.05, power=0.9) == pytest.approx(340.65, abs=0.01)
    # Chow, Shao and Wang (2008), Sample Size Calculations in Clinical Research, page 85, one-sided 5%: 191.
    assert np.ceil(sample_size(0.02, 0.05, significance=0.10, power=0.8)) == 191


def test_a_55_percent_win_rate_takes_about_780():
    assert comparisons_needed(0.55) == comparisons_needed(0.45) == 783


def test_the_power_is_what_was_asked_for():
    """Of all outcomes of 783 comparisons at 55%, those whose interval leaves out 50% have 80% of the probability."""
    outcomes = np.arange(330, 530)
    detected = [not low <= 0.5 <= high for low, high in (score_interval(int(w), 783 - int(w)) for w in outcomes)]
    assert binom.pmf(outcomes, 783, 0.55)[detected].sum() == pytest.approx(0.8, abs=0.01)


def test_ties_make_a_given_edge_easier_to_see():
    assert comparisons_needed(0.55, tie_rate=0.3) == pytest.approx(0.7 * 783, rel=0.01)


def test_both_ways_to_a_detectable_difference_agree():
    assert detectable_difference(0.5 / 783**0.5) == pytest.approx(0.05, abs=2e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5,), "win_rate: 0.5 has no number of comparisons; give one in [0, 1] other than 0.5."),
        ((1.2,), "win_rate: 1.2 has no number"),
        ((0.9, 0.5), "tie_rate: 0.5 cannot go with a win rate of 0.9; give one in [0, 0.2]."),
    ],
)
def test_impossible_rates_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        comparisons_needed(*arguments)
    assert message in str(caught.value)
