"""Every statistic of the votes on two models, computed once for every format of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DataError
from .agreement import Agreement, agreement
from .bias import LengthControlled, length_bias, length_controlled, position_bias
from .intervals import SignTest, WinRate, is_graded, sign_test, win_rate
from .votes import Vote, one_sided


@dataclass(frozen=True)
class Summary:
    """All statistics of one pair of models.

    Attributes:
        overall: Win rate of the first vote's `a`, with its interval.
        sign: Exact sign test over instructions.
        graded: Whether preferences are probabilities.
        categories: Category -> win rate in it, largest first; empty if no vote has one.
        agreement: Between raters.
        length: Win rate of the longer answer; None if lengths are unknown.
        controlled: Length-controlled win rate; None if it cannot be estimated.
        controlled_note: Why it cannot; "" otherwise.
        position: Win rate of the answer shown first; None if that is unknown.
    """

    overall: WinRate
    sign: SignTest
    graded: bool
    categories: dict[str, WinRate]
    agreement: Agreement
    length: WinRate | None
    controlled: LengthControlled | None
    controlled_note: str
    position: WinRate | None


def summarize(votes: Sequence[Vote]) -> Summary:
    """Every statistic of votes on one pair of models."""
    votes = one_sided(votes)
    controlled, note = None, ""
    try:
        controlled = length_controlled(votes)
    except DataError as error:
        note = str(error)
    return Summary(
        overall=win_rate(votes),
        sign=sign_test(votes),
        graded=is_graded(votes),
        categories=by_category(votes),
        agreement=agreement(votes),
        length=length_bias(votes),
        controlled=controlled,
        controlled_note=note,
        position=position_bias(votes),
    )


def by_category(votes: Sequence[Vote]) -> dict[str, WinRate]:
    """Win rate in each category, those with most votes first. Votes without a category are left out.

    Each interval is right on its own; of twenty categories, one is expected to leave out 50% by chance.
    """
    votes = one_sided(votes)
    named: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.category:
            named.setdefault(vote.category, []).append(vote)
    return {name: win_rate(found) for name, found in sorted(named.items(), key=lambda entry: -len(entry[1]))}
