"""What votes support, in one sentence that never claims more than the interval does.

A was preferred: 120 to 60, win rate 67% (95% CI 59-73%, sign test p < 0.001)
no difference detected: 90 to 89, 95% CI 43-58%; about 780 comparisons would be needed to see a 55% win rate
undecided: 9 to 2 for A, 95% CI 52-95%, but the exact sign test gives p = 0.065; more comparisons are needed
"""

from __future__ import annotations

from ...errors import counted
from .intervals import WinRate
from .power import SIGNIFICANCE, comparisons_needed, detectable_difference
from .summary import Summary

TARGET_WIN_RATE = 0.55
Z = 1.959964  # of a 95% interval


def verdict(summary: Summary) -> str:
    """What the votes support, in one sentence.

    A model is called preferred only if the 95% interval of its win rate leaves out 50% and, if votes are wins, ties and
    losses, the exact sign test agrees at 5%. If nothing is detected, the sentence says what that leaves open: how many
    comparisons a 55% win rate would take or, if there were as many, the smallest win rate they would have shown 80% of
    the time. With several votes per instruction, it counts instructions.
    """
    found = summary.overall
    if found.rate < 0.5 and not found.low <= 0.5 <= found.high:
        winner, counts, rate = found.b, (found.losses, found.wins), 1 - found.rate
        low, high = 1 - found.high, 1 - found.low
    else:
        winner, counts, rate, low, high = found.a, (found.wins, found.losses), found.rate, found.low, found.high
    score = f"{counts[0]:,} to {counts[1]:,}"
    if found.ties:
        score += f" with {counted(found.ties, 'tie')}"
    if found.votes != found.items:
        score += f" on {counted(found.items, 'instruction')}"
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
    reach = detectable_difference((found.high - found.low) / (2 * Z))
    if reach <= edge and found.votes > found.ties:
        return f"a win rate of {0.5 + reach:.1%} or more would have been seen 80% of the time"
    if found.low > 0.5 - edge and found.high < TARGET_WIN_RATE:
        return f"a {TARGET_WIN_RATE:.0%} win rate of either is outside the interval"
    if found.votes == found.items and not graded:
        tie_rate = found.ties / found.votes  # with too many ties for a 55% win rate, the number without ties bounds it
        needed = comparisons_needed(TARGET_WIN_RATE, tie_rate if 1 - tie_rate >= 2 * edge else 0.0)
    else:  # several raters or graded preferences: their variance is what made the interval as wide as it is
        needed = round(found.items * (reach / edge) ** 2)
    things = "comparisons" if found.votes == found.items else "instructions, with as many votes each,"
    return f"about {_two_digits(needed):,} {things} would be needed to see a {TARGET_WIN_RATE:.0%} win rate"


def _two_digits(number: int) -> int:
    """783 -> 780."""
    return round(number, 2 - len(str(number))) if number > 99 else number


def _interval(low: float, high: float) -> str:
    """Whole percents, or one decimal if rounding would move an end to 50% or across it."""
    near = any(round(100 * end) == 50 for end in (low, high))
    return f"95% CI {100 * low:.1f}-{100 * high:.1f}%" if near else f"95% CI {100 * low:.0f}-{100 * high:.0f}%"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.0995 else f"= {p:.2f}"
