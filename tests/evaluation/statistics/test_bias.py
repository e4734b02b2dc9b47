"""Length and position."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.statistics.bias import length_bias, length_controlled, position_bias
from alpaca_lora.evaluation.statistics.votes import Vote


def lengths(cells: list[tuple[int, int, int, int]]) -> list[Vote]:
    """Votes of cells (length of A, length of B, wins of A, losses)."""
    rows = [(a, b, x) for a, b, wins, losses in cells for x in [1.0] * wins + [0.0] * losses]
    return [Vote(str(i), "r", "A", "B", x, length_a=a, length_b=b) for i, (a, b, x) in enumerate(rows)]


def test_the_longer_answer_is_counted_whoever_wrote_it():
    votes = lengths([(200, 100, 30, 10), (100, 200, 5, 15), (50, 50, 9, 0)])
    found = length_bias(votes)
    assert found is not None
    assert (found.wins, found.losses) == (45, 15)  # those of equal length are left out
    assert length_bias([vote.turned() for vote in votes]) == found
    assert length_bias([Vote("1", "r", "A", "B", 1)]) is None


def test_length_controlled_in_closed_form():
    """Two cells, A longer or shorter by the same: the rate at equal length is midway between their log-odds."""
    votes = lengths([(300, 100, 80, 20), (100, 300, 40, 60)])
    found = length_controlled(votes)
    midway = (math.log(80 / 20) + math.log(40 / 60)) / 2
    assert found.rate == pytest.approx(1 / (1 + math.exp(-midway)), abs=1e-6)
    assert found.low < found.rate < found.high
    # Woolf: the variance of a log-odds is 1/wins + 1/losses; the sandwich's small-sample factor is within 2%.
    error = math.sqrt(1 / 80 + 1 / 20 + 1 / 40 + 1 / 60) / 2
    assert math.log(found.high / (1 - found.high)) - midway == pytest.approx(1.96 * error, rel=0.02)


def test_a_lead_that_is_only_length_goes_away():
    random = np.random.default_rng(0)
    a, b = random.integers(100, 1000, 2000), random.integers(50, 700, 2000)
    x = random.random(2000) < 1 / (1 + np.exp(-1.5 * np.tanh((a - b) / (a - b).std())))
    votes = [Vote(str(i), "r", "A", "B", float(x[i]), length_a=int(a[i]), length_b=int(b[i])) for i in range(2000)]
    found = length_controlled(votes)
    assert x.mean() > 0.55
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        (lengths([(2, 1, 2, 2)]), "lengths of both answers are known for 4 instructions; 10 are needed."),
        (lengths([(2, 1, 10, 10)]), "the answers always differ in length by the same amount"),
        (lengths([(2, 1, 10, 0), (1, 2, 10, 0)]), "all votes are the same"),
        (lengths([(20, 10, 10, 0), (10, 20, 0, 10)]), "length, or its absence, decides every vote"),
    ],
)
def test_where_there_is_no_regression_it_is_said(votes, message):
    with pytest.raises(DataError, match=message):
        length_controlled(votes)


def test_position_bias_is_the_win_rate_of_the_first():
    votes = []
    for i in range(40):
        first, first_wins = "AB"[i % 2], i % 5 < 3
        preference = float(first_wins if first == "A" else not first_wins)
        votes.append(Vote(str(i), "judge", "A", "B", preference, shown_first=first))
    found = position_bias([*votes, Vote("x", "judge", "A", "B", 1)])
    assert found is not None
    assert (found.wins, found.losses) == (24, 16)  # the last has no order
    assert position_bias([Vote("x", "judge", "A", "B", 1)]) is None
    turned = position_bias([vote.turned() for vote in votes])
    assert turned == found
