"""Win rates, their intervals and the sign test, against published cases."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.statistics.intervals import score_interval, sign_test, win_rate
from alpaca_lora.evaluation.statistics.votes import Vote


def votes_of(wins: int, losses: int, ties: int = 0) -> list[Vote]:
    preferences = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [Vote(str(item), "r", "A", "B", preference) for item, preference in enumerate(preferences)]


def crowd(preferences: np.ndarray) -> list[Vote]:
    """Votes of a (instructions x raters) matrix; NaN is no vote."""
    return [
        Vote(f"i{item}", f"r{rater}", "A", "B", float(preferences[item, rater]))
        for item, rater in zip(*np.nonzero(~np.isnan(preferences)), strict=True)
    ]


def test_alpacas_90_to_89():
    found = win_rate(votes_of(90, 89))
    assert (found.wins, found.losses, found.ties, found.items) == (90, 89, 0, 179)
    assert 100 * found.low == pytest.approx(43.0, abs=0.05)
    assert 100 * found.high == pytest.approx(57.5, abs=0.05)
    assert sign_test(votes_of(90, 89)).p == 1.0


@pytest.mark.parametrize(
    ("wins", "total", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, 857-872, Table I, method 3 (score).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(wins, total, low, high):
    assert score_interval(wins, total - wins) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("wins", "losses"), [(90, 89), (3, 0), (0, 7), (1, 400)])
def test_without_ties_it_is_statsmodels_wilson(wins, losses):
    expected = proportion_confint(wins, wins + losses, method="wilson")
    assert score_interval(wins, losses) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("wins", "losses", "ties", "level", "low", "high"),
    [
        # Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33, 2850-2875: airway reactivity, Tango's score.
        (1, 7, 13, 0.95, -0.517, -0.026),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90).
        (28, 25, 565, 0.90, -0.0148, 0.0247),
    ],
)
def test_ties_enter_as_in_tangos_score_interval(wins, losses, ties, level, low, high):
    """Published for the difference of the chances of a win and a loss; the win rate is half of 1 + it."""
    found = score_interval(wins, losses, ties, level)
    assert [2 * end - 1 for end in found] == pytest.approx([low, high], abs=5e-4 if level == 0.95 else 5e-5)


def test_ties_only_and_ends_of_the_scale():
    low, high = score_interval(0, 0, 20)
    assert low + high == pytest.approx(1)
    assert 0.4 < low < 0.5  # twenty ties do not prove that all are
    assert score_interval(5, 0).high == 1.0
    narrower, wider = score_interval(30, 10, 60), proportion_confint(60, 100, method="wilson")
    assert wider[0] < narrower.low < 0.6 < narrower.high < wider[1]


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (3, 7, 0.34375),  # Stephens, Schaum's Outline of Beginning Statistics, chapter 14: pizza crusts
        (10, 2, 2 * 79 / 4096),  # Darlington, "The sign test from exact numbers of combinations"
        (7, 1, 0.0703125),  # Lane, HyperStat: 2 x 0.0352
        (0, 0, 1.0),
    ],
)
def test_sign_test_as_published_with_ties_dropped(wins, losses, p):
    found = sign_test(votes_of(wins, losses, ties=4))
    assert (found.wins, found.losses, found.ties) == (wins, losses, 4)
    assert found.p == pytest.approx(p, abs=1e-9)


def test_the_sign_test_counts_instructions_not_votes():
    found = sign_test(crowd(np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0.5], [1, 0, 0.5]])))
    assert (found.wins, found.losses, found.ties, found.p) == (2, 1, 1, 1.0)


def test_votes_are_told_from_the_first_side():
    votes = [vote if i % 2 else vote.turned() for i, vote in enumerate(votes_of(30, 10))]
    found = win_rate(votes)
    assert (found.a, found.wins, found.losses) == ("B", 10, 30)
    assert found.rate == 0.25


def test_raters_who_only_repeat_each_other_add_nothing():
    """Five identical votes an instruction: the interval is that of the instructions, up to Student's t."""
    once = np.array([[1.0]] * 70 + [[0.0]] * 30)
    alone, repeated = win_rate(crowd(once)), win_rate(crowd(np.repeat(once, 5, axis=1)))
    assert repeated.votes == 500
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.03)


def test_raters_who_are_independent_count_nearly_in_full():
    matrix = (np.random.default_rng(0).random((400, 3)) < 0.6).astype(float)
    found = win_rate(crowd(matrix))
    low, high = proportion_confint(found.wins, found.votes, method="wilson")
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)


@pytest.mark.parametrize("matrix", [[[1, 1]] * 6, [[0.5, 0.5]] * 6, [[1, 0, 1]], [[1, 0]] * 6])
def test_instructions_that_all_say_the_same_prove_no_more_than_their_number(matrix):
    votes = crowd(np.array(matrix, dtype=float))
    found = win_rate(votes)
    assert 0 <= found.low < found.rate <= found.high <= 1
    assert found.high - found.low > 0.3


def test_graded_votes_near_normal_give_students_t_interval():
    """Mean +- 1.97 sd / sqrt(n)."""
    values = np.clip(np.random.default_rng(2).normal(0.5, 0.1, 200), 0, 1)
    votes = [Vote(str(i), "r", "A", "B", float(value)) for i, value in enumerate(values)]
    half = 1.972 * values.std(ddof=1) / 200**0.5
    assert win_rate(votes).low == pytest.approx(values.mean() - half, abs=0.05 * half)


def test_no_votes_and_too_many_models_are_said():
    with pytest.raises(DataError, match="there are no votes, so there is nothing to count. Collect some first."):
        win_rate([])
    with pytest.raises(DataError, match=r"compare 3 models \(A, B, C\). Take one pair with between\(votes, a, b\)"):
        sign_test([Vote("1", "r", "A", "B", 1), Vote("1", "r", "B", "C", 1)])


def test_intervals_of_simulated_votes_cover_a_known_edge():
    """A small version of benchmarks/coverage.py; the count is fixed by the seed."""
    random = np.random.default_rng(3)
    covered = 0
    for wins in random.binomial(200, 0.55, size=1000):
        low, high = score_interval(int(wins), 200 - int(wins))
        covered += low <= 0.55 <= high
    assert 930 <= covered <= 970
