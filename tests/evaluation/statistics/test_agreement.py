"""Krippendorff's alpha, against its published example."""

from __future__ import annotations

import pytest

from alpaca_lora.evaluation.statistics.agreement import agreement
from alpaca_lora.evaluation.statistics.votes import Vote

# Krippendorff (2011), section C: observers A to D, units 1 to 12; "." is missing.
PUBLISHED = ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 .")


def test_alpha_as_published():
    """Categories 1 to 5 as preferences 0.2 to 1: the ordinal level depends on their order alone."""
    votes = [
        Vote(str(unit), f"rater {rater}", "A", "B", int(value) / 5)
        for rater, row in enumerate(PUBLISHED)
        for unit, value in enumerate(row.split())
        if value != "."
    ]
    found = agreement(votes)
    assert found.alpha == pytest.approx(0.815, abs=5e-4)
    assert (found.items, found.raters) == (11, 4)  # unit 12 has one value
    told_otherwise = [vote.turned() if vote.rater == "rater 1" else vote for vote in votes]
    assert agreement(told_otherwise) == found


def test_a_tie_is_nearer_to_a_win_than_a_loss_is():
    def votes(second: float) -> list[Vote]:
        rows = [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5), (1.0, second)] * 5
        return [
            Vote(str(i), rater, "A", "B", x) for i, row in enumerate(rows) for rater, x in zip("rs", row, strict=True)
        ]

    ordinal, far = agreement(votes(0.5)).alpha, agreement(votes(0.0)).alpha
    assert ordinal is not None and far is not None
    assert ordinal > far


def test_the_same_instruction_with_other_models_is_another_comparison():
    votes = [Vote("1", "r", "A", "B", 1), Vote("1", "s", "A", "C", 1)]
    assert agreement(votes).note == "no comparison was rated by two raters, so agreement is undefined"


def test_undefined_where_nothing_varies():
    found = agreement([Vote(str(i), rater, "A", "B", 1) for i in range(5) for rater in "rs"])
    assert found.alpha is None
    assert found.items == 5
    assert "all raters gave the same vote on everything" in found.note


def test_two_votes_of_one_rater_count_once_with_their_mean():
    base = [Vote(str(i), rater, "A", "B", i % 2) for i in range(6) for rater in "rs"]
    twice = [*base, Vote("x", "r", "A", "B", 1), Vote("x", "r", "A", "B", 0), Vote("x", "s", "A", "B", 0.5)]
    assert agreement(twice).alpha == 1.0
