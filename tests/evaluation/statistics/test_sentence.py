"""The summary, and the sentence it leads to."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from alpaca_lora.errors import DataError, MissingDependencyError
from alpaca_lora.evaluation.statistics.optional_packages import load_package
from alpaca_lora.evaluation.statistics.sentence import verdict
from alpaca_lora.evaluation.statistics.summary import by_category, summarize
from alpaca_lora.evaluation.statistics.votes import Vote


def votes_of(wins: int, losses: int, ties: int = 0, raters: int = 1) -> list[Vote]:
    preferences = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [Vote(str(i), f"r{k}", "A", "B", x) for i, x in enumerate(preferences) for k in range(raters)]


@pytest.mark.parametrize(
    ("votes", "sentence"),
    [
        (
            votes_of(90, 89),
            "no difference detected: 90 to 89, 95% CI 43-58%; "
            "about 780 comparisons would be needed to see a 55% win rate",
        ),
        (
            votes_of(40, 30, 30),
            "no difference detected: 40 to 30 with 30 ties, 95% CI 47-63%; "
            "about 550 comparisons would be needed to see a 55% win rate",
        ),
        (votes_of(120, 60), "A was preferred: 120 to 60, win rate 67% (95% CI 59-73%, sign test p < 0.001)"),
        (votes_of(60, 120), "B was preferred: 120 to 60, win rate 67% (95% CI 59-73%, sign test p < 0.001)"),
        (
            votes_of(9, 2),
            "undecided: 9 to 2 for A, 95% CI 52-95%, but the exact sign test gives p = 0.065; "
            "more comparisons are needed",
        ),
        (
            votes_of(1010, 990),
            "no difference detected: 1,010 to 990, 95% CI 48-53%; "
            "a win rate of 53.1% or more would have been seen 80% of the time",
        ),
        (
            votes_of(30, 29, raters=3),
            "no difference detected: 90 to 87 on 59 instructions, 95% CI 38-64%; "
            "about 780 instructions, with as many votes each, would be needed to see a 55% win rate",
        ),
        (
            votes_of(0, 0, 5000),
            "no difference detected: 0 to 0 with 5,000 ties, 95% CI 50.0-50.0%; "
            "a 55% win rate of either is outside the interval",
        ),
        (
            [Vote(str(i), "judge", "A", "B", 0.49 + 0.01 * (i % 3)) for i in range(99)],
            "no difference detected: 33 to 33 with 33 ties, mean preference 50.0%, 95% CI 49.8-50.2%; "
            "a win rate of 50.2% or more would have been seen 80% of the time",
        ),
        (
            [Vote(str(i), "judge", "A", "B", 0.2 + 0.01 * (i % 10)) for i in range(100)],
            "B was preferred: 100 to 0, mean preference 75.5% (95% CI 75-76%)",
        ),
    ],
)
def test_the_sentence_respects_the_interval(votes, sentence):
    assert verdict(summarize(votes)) == sentence


@pytest.mark.parametrize("ties", [1, 5, 95, 400])
def test_ties_alone_decide_nothing(ties):
    assert verdict(summarize(votes_of(0, 0, ties))).startswith("no difference detected: 0 to 0 with")


def test_no_sentence_claims_more_than_its_interval():
    random = np.random.default_rng(0)
    for _ in range(100):
        wins, losses, ties = (int(n) for n in random.integers(0, 40, 3))
        summary = summarize(votes_of(wins, losses, ties + 1, raters=int(random.integers(1, 3))))
        holds = summary.overall.low <= 0.5 <= summary.overall.high
        assert verdict(summary).startswith("no difference detected") == holds


def test_a_summary_holds_every_statistic():
    random = np.random.default_rng(1)
    votes = []
    for item in range(60):
        a, b = (int(n) for n in random.integers(50, 500, 2))
        for rater in range(3):
            x = float(random.choice([0, 0.5, 1]))
            category = ["mail", "code", ""][item % 3]
            votes.append(Vote(f"i{item}", f"r{rater}", "A", "B", x, category, a, b, "AB"[int(random.integers(2))]))
    found = summarize([vote if i % 2 else vote.turned() for i, vote in enumerate(votes)])
    assert found.overall.a == "B"
    assert (found.overall.votes, found.overall.items) == (180, 60)
    assert {name: rate.votes for name, rate in found.categories.items()} == {"mail": 60, "code": 60}
    assert all(rate.a == "B" for rate in found.categories.values())
    assert found.agreement.alpha == pytest.approx(0, abs=0.2)
    assert found.length is not None and found.length.votes == 180
    assert found.position is not None and found.position.votes == 180
    assert found.controlled is not None and found.controlled.model == "B"
    assert found.controlled_note == ""


def test_a_summary_of_bare_votes_says_what_it_lacks():
    found = summarize(votes_of(6, 4))
    assert (found.length, found.position, found.controlled) == (None, None, None)
    assert found.controlled_note == "lengths of both answers are known for 0 instructions; 10 are needed."
    assert found.agreement.alpha is None
    assert by_category(votes_of(6, 4)) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": "A"}, "'A' is compared with itself. Name the two models apart."),
        ({"preference": 1.5}, r"the preference for 'A' is 1.5; give a number from 0 \('B' is better\) to 1."),
        ({"preference": float("nan")}, "the preference for 'A' is nan"),
        ({"shown_first": "C"}, "shown first was 'C'; give 'A' or 'B', or leave it out."),
    ],
)
def test_an_impossible_vote_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        Vote(**{"item": "1", "rater": "r", "a": "A", "b": "B", "preference": 1.0, **changes})


def test_importing_the_statistics_loads_no_large_package():
    names = "alpaca_lora.evaluation.preferences, alpaca_lora.evaluation.statistics.sentence"
    program = f"import sys, {names}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"scipy", "statsmodels", "krippendorff", "torch"}.isdisjoint(loaded)


def test_a_missing_package_is_named_with_its_extra():
    message = r"the statistics need no_such_package. Run: pip install 'alpaca-lora\[judge\]'"
    with pytest.raises(MissingDependencyError, match=message):
        load_package("no_such_package.part")
