"""Bradley-Terry, against published strengths."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.statistics.ranking import bradley_terry
from alpaca_lora.evaluation.statistics.votes import Vote

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
# Agresti (2002), Categorical Data Analysis, Table 10.10: games of 1987 won by the row's team against the column's.
WON = """
    0  7  9  7  7  9 11
    6  0  7  5 11  9  9
    4  6  0  7  7  8 12
    6  8  6  0  6  7 10
    6  2  6  7  0  7 12
    4  4  5  6  6  0  6
    2  4  1  3  1  7  0
"""
PUBLISHED = {"Milwaukee": 1.58, "Detroit": 1.44, "Toronto": 1.29, "New York": 1.25, "Boston": 1.11, "Cleveland": 0.68}


def games() -> list[Vote]:
    won = np.array(WON.split(), dtype=int).reshape(7, 7)
    pairs = [(a, b) for a in range(7) for b in range(7) for _ in range(won[a, b])]
    return [Vote(str(game), "", TEAMS[a], TEAMS[b], 1.0) for game, (a, b) in enumerate(pairs)]


def test_agrestis_baseball():
    """Table 10.11, column 3: strengths above Baltimore's."""
    found = bradley_terry(games())
    strength = {entry.model: entry.strength for entry in found.strengths}
    assert [entry.model for entry in found.strengths] == list(TEAMS)
    lead = {team: round(strength[team] - strength["Baltimore"], 2) for team in PUBLISHED}
    assert lead == PUBLISHED
    assert sum(strength.values()) == pytest.approx(0, abs=1e-9)
    assert found.note == ""
    assert all(entry.votes == 78 for entry in found.strengths)


def test_two_models_give_the_plain_win_rate():
    votes = [Vote(str(i), "r", "A", "B", x) for i, x in enumerate([1.0] * 60 + [0.0] * 30 + [0.5] * 10)]
    found = bradley_terry(votes)
    first, second = found.strengths
    assert first.model == "A"
    assert 1 / (1 + math.exp(second.strength - first.strength)) == pytest.approx(0.65)


def test_repeating_votes_on_the_same_instructions_does_not_narrow_the_intervals():
    random = np.random.default_rng(0)
    pairs = [("A", "B"), ("B", "C"), ("A", "C")]
    once = [Vote(f"{i}", "r0", a, b, float(random.random() < 0.6)) for i in range(60) for a, b in pairs]
    five = [Vote(vote.item, f"r{k}", vote.a, vote.b, vote.preference) for vote in once for k in range(5)]
    width = [bradley_terry(votes).strengths[0] for votes in (once, five)]
    assert width[1].high - width[1].low == pytest.approx(width[0].high - width[0].low, rel=0.02)


def test_a_model_that_always_wins_stays_finite_and_is_said():
    votes = [Vote(f"{i}{k}", "r", "A", b, 1.0) for i in range(10) for k, b in enumerate("BC")]
    votes += [Vote(f"{i}x", "r", "B", "C", float(i < 6)) for i in range(10)]
    found = bradley_terry(votes)
    assert [entry.model for entry in found.strengths] == ["A", "B", "C"]
    assert all(math.isfinite(entry.low) and math.isfinite(entry.high) for entry in found.strengths)
    assert found.strengths[0].strength < 5
    assert "half a win each way was added to every pair compared" in found.note
    assert found.strengths[0].votes == 20  # what was added is not counted


def test_what_cannot_be_ranked_is_refused():
    votes = [Vote("1", "r", "A", "B", 1), Vote("2", "r", "C", "D", 1)]
    with pytest.raises(DataError, match=r"fall into 2 groups that nothing links: A, B \| C, D. Compare a model of one"):
        bradley_terry(votes)
    with pytest.raises(DataError, match="there are no votes, so there is nothing to rank"):
        bradley_terry([])
