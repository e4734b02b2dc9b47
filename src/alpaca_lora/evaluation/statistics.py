"""Statistics of a comparison: votes on two models in, numbers and one honest sentence out.

    votes.py       one comparison, by one rater         ranking.py    Bradley-Terry, for more than two models
    intervals.py   win rate, intervals, sign test       agreement.py  Krippendorff's alpha
    power.py       how many comparisons it takes        bias.py       length and position

A fifth of a second for 1,000 instructions with five raters, after the imports of scipy and statsmodels (2 s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError, counted
from .agreement import Agreement, agreement
from .bias import LengthControlled, length_bias, length_controlled, position_bias
from .intervals import (
    Interval,
    SignTest,
    WinRate,
    bootstrap_interval,
    clustered_interval,
    is_graded,
    score_interval,
    sign_test,
    win_rate,
)
from .power import SIGNIFICANCE, comparisons_needed, detectable_difference, detectable_win_rate
from .ranking import Ranking, Strength, bradley_terry
from .votes import Vote, between, by_item, models_of, one_sided

__all__ = [
    "Agreement",
    "Interval",
    "LengthControlled",
    "Ranking",
    "SignTest",
    "Strength",
    "Summary",
    "Vote",
    "WinRate",
    "agreement",
    "between",
    "bootstrap_interval",
    "bradley_terry",
    "by_category",
    "clustered_interval",
    "comparisons_needed",
    "detectable_difference",
    "detectable_win_rate",
    "length_bias",
    "length_controlled",
    "models_of",
    "position_bias",
    "score_interval",
    "sign_test",
    "summarize",
    "verdict",
    "win_rate",
]

TARGET_WIN_RATE = 0.55
Z = 1.959964  # of a 95% interval


@dataclass(frozen=True)
class Summary:
    """All statistics of one pair of models.

    Attributes:
        overall: Win rate of the first vote's `a`, with its interval.
        sign: Exact sign test over instructions.
        graded: Whether preferences are probabilities.
        bootstrap: Second opinion on the interval where instructions have several votes; None otherwise.
        categories: Category -> win rate in it, largest first; empty when no vote has one.
        agreement: Between raters.
        length: Win rate of the longer answer; None where lengths are unknown.
        controlled: Length-controlled win rate; None where it cannot be had.
        controlled_note: Why it cannot; "" otherwise.
        position: Win rate of the answer shown first; None where that is unknown.
    """

    overall: WinRate
    sign: SignTest
    graded: bool
    bootstrap: Interval | None
    categories: dict[str, WinRate]
    agreement: Agreement
    length: WinRate | None
    controlled: LengthControlled | None
    controlled_note: str
    position: WinRate | None


def summarize(votes: Sequence[Vote]) -> Summary:
    """Every statistic of votes on one pair of models.

    Args:
        votes: Told from either side; results are told from that of `votes[0].a`.

    Raises:
        DataError: There are no votes, or votes on more than one pair.
    """
    votes = one_sided(votes)
    overall = win_rate(votes)
    controlled, note = None, ""
    try:
        controlled = length_controlled(votes)
    except DataError as error:
        note = str(error)
    return Summary(
        overall=overall,
        sign=sign_test(votes),
        graded=is_graded(votes),
        bootstrap=bootstrap_interval(*by_item(votes)) if overall.votes > overall.items else None,
        categories=by_category(votes),
        agreement=agreement(votes),
        length=length_bias(votes),
        controlled=controlled,
        controlled_note=note,
        position=position_bias(votes),
    )


def by_category(votes: Sequence[Vote]) -> dict[str, WinRate]:
    """Win rate in each category, those with most votes first; votes without one are left out.

    Each interval is right on its own; of twenty categories, one is expected to leave out 50% by chance.
    """
    votes = one_sided(votes)
    named: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.category:
            named.setdefault(vote.category, []).append(vote)
    return {name: win_rate(found) for name, found in sorted(named.items(), key=lambda entry: -len(entry[1]))}


def verdict(summary: Summary) -> str:
    """What the votes support, in one sentence.

    A model is called preferred only if the 95% interval of its win rate leaves out 50% and, where votes are wins,
    ties and losses, the exact sign test agrees at 5%. If nothing is detected, the sentence says what that leaves open:
    how many comparisons a 55% win rate would take or, where there were as many, the smallest win rate they would
    have shown 80% of the time. For several votes an instruction, that is told in instructions.

    Example:
        >>> verdict(summarize([Vote(str(i), "r", "A", "B", float(i < 90)) for i in range(179)]))
        'no difference detected: 90 to 89, 95% CI 43-58%; about 780 comparisons would be needed to see a 55% win rate'
    """
    found = summary.overall
    if found.rate < 0.5 and not found.low <= 0.5 <= found.high:
        winner, counts, rate, low, high = (
            found.b,
            (found.losses, found.wins),
            1 - found.rate,
            1 - found.high,
            1 - found.low,
        )
    else:
        winner, counts, rate, low, high = found.a, (found.wins, found.losses), found.rate, found.low, found.high
    score = f"{counts[0]:,} to {counts[1]:,}" + _ties(found.ties) + _crowd(found)
    interval = _interval(low, high)
    if summary.graded:
        score += f", mean preference {rate:.1%}"
    if low <= 0.5 <= high:
        return f"no difference detected: {score}, {interval}; {_left_open(found, summary.graded)}"
    if not summary.graded and summary.sign.p >= SIGNIFICANCE:
        return (
            f"undecided: {score} for {winner}, {interval}, but the exact sign test gives p {_p(summary.sign.p)}; "
            "more comparisons are needed"
        )
    test = "" if summary.graded else f", sign test p {_p(summary.sign.p)}"
    share = "" if summary.graded else f", win rate {rate:.0%}"
    return f"{winner} was preferred: {score}{share} ({interval}{test})"


def _left_open(found: WinRate, graded: bool) -> str:
    """What "no difference detected" does not rule out."""
    edge = TARGET_WIN_RATE - 0.5
    tie_rate = found.ties / found.votes
    alone = found.votes == found.items and not graded
    # Several raters or graded preferences: their variance is what made the interval as wide as it is.
    reach = detectable_difference((found.high - found.low) / (2 * Z))
    seen = detectable_win_rate(found.items, tie_rate) if alone else 0.5 + reach
    if seen is not None and seen <= TARGET_WIN_RATE:
        return f"a win rate of {seen:.1%} or more would have been seen 80% of the time"
    if found.low > 0.5 - edge and found.high < TARGET_WIN_RATE:
        return f"a {TARGET_WIN_RATE:.0%} win rate of either is outside the interval"
    if alone:  # with too many ties for a 55% win rate, the number without ties bounds it from above
        needed = comparisons_needed(TARGET_WIN_RATE, tie_rate if 1 - tie_rate >= 2 * edge else 0.0)
    else:
        needed = round(found.items * (reach / edge) ** 2)
    things = "comparisons" if found.votes == found.items else "instructions, with as many votes each,"
    return f"about {_two_digits(needed):,} {things} would be needed to see a {TARGET_WIN_RATE:.0%} win rate"


def _two_digits(number: int) -> int:
    """783 -> 780."""
    return round(number, 2 - len(str(number))) if number > 99 else number


def _ties(ties: int) -> str:
    return "" if not ties else f" with {counted(ties, 'tie')}"


def _crowd(found: WinRate) -> str:
    return "" if found.votes == found.items else f" on {counted(found.items, 'instruction')}"


def _interval(low: float, high: float) -> str:
    """Whole percents, or one decimal where rounding would move an end to 50% or across it."""
    near = any(round(100 * end) == 50 for end in (low, high))
    return f"95% CI {100 * low:.1f}-{100 * high:.1f}%" if near else f"95% CI {100 * low:.0f}-{100 * high:.0f}%"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.0995 else f"= {p:.2f}"
