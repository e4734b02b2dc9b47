"""Intervals of a loss per token: what they hold, and how often; the whole simulation is benchmarks/compare_runs.py."""

from __future__ import annotations

import numpy as np
import pytest

from alpaca_lora.runs.paired_interval import Ratio, ratio_interval, t_quantile


def records(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Skewed sums that grow with length, around 0.02 a token."""
    tokens = np.ceil(random.lognormal(3.5, 0.8, count))
    noise = (random.exponential(1, count) - 1) * 0.1
    return tokens * (0.02 + noise), tokens


def test_the_mean_is_that_of_all_tokens():
    found = ratio_interval(np.arange(20.0), np.full(20, 4.0))
    assert found.mean == pytest.approx(9.5 / 4)
    assert found.low < found.mean < found.high


def test_the_error_is_that_of_clusters():
    """By hand: four records of one token, then the same with every record told twice over in tokens and sum."""
    values, ones = np.array([1.0, 2.0, 3.0, 6.0]), np.ones(4)
    assert Ratio.of(values, ones).error == pytest.approx(np.std(values, ddof=1) / 2)
    assert Ratio.of(2 * values, 2 * ones).error == pytest.approx(np.std(values, ddof=1) / 2)


@pytest.mark.parametrize("count", [10, 100])
def test_intervals_hold_the_truth_about_as_often_as_they_say(count):
    """3 standard errors of 400 draws are 3.3 points."""
    random = np.random.default_rng(0)
    held = [found.low <= 0.02 <= found.high for found in (ratio_interval(*records(random, count)) for _ in range(400))]
    assert 0.90 <= np.mean(held) <= 0.99


def test_a_higher_level_is_wider_and_the_same_records_give_the_same_interval():
    values, tokens = records(np.random.default_rng(1), 50)
    usual, wider = ratio_interval(values, tokens), ratio_interval(values, tokens, level=0.99)
    assert wider.low < usual.low < usual.high < wider.high
    assert usual == ratio_interval(values, tokens)


def test_units_do_not_matter():
    values, tokens = records(np.random.default_rng(2), 40)
    one, other = ratio_interval(values, tokens), ratio_interval(1000 * values, tokens)
    assert np.allclose(other, 1000 * np.array(one))
    turned = ratio_interval(-values, tokens)
    assert np.allclose([-turned.high, -turned.low], [one.low, one.high], rtol=0.05)  # quantiles of the same draws


def test_what_has_no_spread_and_what_is_too_few():
    tokens = np.arange(1.0, 21.0)
    same = ratio_interval(0.3 * tokens, tokens)
    assert same.low == same.mean == same.high == pytest.approx(0.3)
    assert ratio_interval(np.zeros(20), tokens) == (0, 0, 0)
    few = ratio_interval(np.arange(9.0), np.ones(9))
    assert few.mean == 4 and few.low == -np.inf and few.high == np.inf


def test_large_sets_are_drawn_in_blocks():
    random = np.random.default_rng(3)
    found = ratio_interval(*records(random, 20_000), level=0.9)
    assert found.low < 0.02 < found.high and found.high - found.low < 0.01


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (2, 4.3027), (9, 2.2622), (99, 1.9842), (100_000, 1.96)])
def test_quantiles_of_student_s_t_are_those_of_tables(freedom, t):
    assert t_quantile(0.95, freedom) == pytest.approx(t, rel=1e-4)
