"""Panels: the statistics of one kind of raters, worded once for every format of the report.

Votes on one pair of models enter; a sentence, a list of facts and rows of a figure leave. People and judges have a
panel each, for their votes are never counted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..errors import ConfigError, counted
from .agreement import agreement
from .power import comparisons_needed
from .statistics import LengthControlled, Summary, Vote, WinRate, position_bias, summarize, verdict, win_rate

_ASKED_RATES = (0.55, 0.6, 0.65, 0.7)


class Fact(NamedTuple):
    """One statistic in words: a key for programs, a name, what was found, and how to read it."""

    key: str
    name: str
    found: str
    reading: str = ""


class Bar(NamedTuple):
    """One row of a figure: a rate with its 95% interval, from 0 to 1, and the number of votes."""

    name: str
    rate: float
    low: float
    high: float
    votes: int

    @property
    def text(self) -> str:
        return f"{self.rate:.1%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Panel:
    """What one kind of raters says of two models.

    Attributes:
        key: "people", "judge", or another word of the caller's; for programs.
        title: Who rated.
        summary: The statistics, as `summarize` gives them.
        verdict: The sentence they support.
        facts: The statistics in words.
        overall: Win rate of the first model.
        categories: The same, by category.
        raters: By rater, where there are several.
        biases: Win rate of the longer answer, of the one shown first, and of the first model at equal length.
    """

    key: str
    title: str
    summary: Summary
    verdict: str
    facts: list[Fact]
    overall: Bar
    categories: list[Bar]
    raters: list[Bar]
    biases: list[Bar]


def make_panel(
    key: str, title: str, votes: Sequence[Vote], *, single: Sequence[Vote] = (), more: Sequence[Fact] = ()
) -> Panel:
    """The panel of votes on one pair of models, told from the side of `votes[0].a`.

    Args:
        key: For programs.
        title: Who rated.
        votes: At least one.
        single: A judge's votes, each order by itself: position bias is measured on these, where there are any.
        more: Facts to add.

    Raises:
        DataError: There are no votes, or votes on more than one pair.
    """
    summary = summarize(votes)
    if single:
        summary = replace(summary, position=position_bias(single))
    by_rater: dict[str, list[Vote]] = {}
    for vote in votes:
        by_rater.setdefault(vote.rater, []).append(vote)
    a = summary.overall.a
    raters = [_bar(name or "unnamed", win_rate(found)) for name, found in sorted(by_rater.items())]
    biases = [
        *([_bar("the longer answer", summary.length)] if summary.length else []),
        *([_bar("the answer shown first", summary.position)] if summary.position else []),
        *([_controlled_bar(summary)] if summary.controlled else []),
    ]
    return Panel(
        key=key,
        title=title,
        summary=summary,
        verdict=verdict(summary),
        facts=[*_facts(summary, len(by_rater)), *more],
        overall=_bar(a, summary.overall),
        categories=[_bar(name, found) for name, found in summary.categories.items()],
        raters=raters if len(raters) > 1 else [],
        biases=biases,
    )


def between_kinds(people: Sequence[Vote], judge: Sequence[Vote]) -> Fact:
    """How far the people, taken together, and the judge agree on the instructions that both decided on."""
    voted: list[dict[str, list[float]]] = [{}, {}]
    for kind, votes in zip(voted, (people, judge), strict=True):
        for vote in votes:
            told = vote if vote.a == people[0].a else vote.turned()
            kind.setdefault(vote.item, []).append(told.preference)
    both = [[mean - 0.5 for mean in (_mean(kind[item]) for kind in voted)] for item in voted[0] if item in voted[1]]
    decided = [pair for pair in both if pair[0] and pair[1]]
    same = sum(people_lead * judge_lead > 0 for people_lead, judge_lead in decided)
    found = agreement(
        [*(replace(vote, rater="people") for vote in people), *(replace(v, rater="judge") for v in judge)]
    )
    alpha = "undefined" if found.alpha is None else f"{found.alpha:.2f}"
    return Fact(
        "people_and_judge",
        "Agreement of people and judge",
        f"the same winner on {same:,} of {len(decided):,} instructions that both decided, of {len(both):,} that both "
        f"rated; Krippendorff's alpha {alpha}",
        "A judge stands in for people only as far as this goes.",
    )


def _facts(summary: Summary, raters: int) -> list[Fact]:
    found, sign, agreed = summary.overall, summary.sign, summary.agreement
    facts = [
        Fact(
            "votes", "Votes", f"{found.votes:,} on {counted(found.items, 'instruction')} by {counted(raters, 'rater')}"
        ),
        Fact("score", f"Wins, ties, losses of {found.a}", f"{found.wins:,}, {found.ties:,}, {found.losses:,}"),
        Fact(
            "win_rate",
            f"Win rate of {found.a}",
            f"{found.rate:.1%}, 95% CI {found.low:.1%} to {found.high:.1%}",
            "A tie is half a win. Where the interval holds 50%, the votes do not tell which model is preferred.",
        ),
    ]
    if summary.bootstrap:
        low, high = summary.bootstrap
        facts.append(Fact("bootstrap", "Interval by bootstrap over instructions", f"{low:.1%} to {high:.1%}"))
    facts.append(
        Fact(
            "sign_test",
            "Exact sign test",
            f"p = {sign.p:.3g} ({sign.wins:,} instructions won, {sign.ties:,} tied, {sign.losses:,} lost)",
            "How often equally good models would differ this much or more; not how likely it is that they are equal.",
        )
    )
    facts.append(_agreement(agreed.alpha, agreed.items, agreed.raters, agreed.note))
    if summary.length:
        reading = "Above 50%, longer answers won more often. They may also be better."
        facts.append(Fact("length", "Win rate of the longer answer", _rate(summary.length), reading))
    if summary.controlled:
        reading = "A logistic regression's estimate."
        found_there = (
            f"{summary.controlled.rate:.1%}, 95% CI {summary.controlled.low:.1%} to {summary.controlled.high:.1%}"
        )
    else:
        reading, found_there = "", f"not estimated: {summary.controlled_note}"
    facts.append(Fact("controlled", f"Win rate of {found.a} if answers were equally long", found_there, reading))
    if summary.position:
        reading = "Without position bias, 50%."
        facts.append(Fact("position", "Win rate of the answer shown first", _rate(summary.position), reading))
    return facts if summary.graded else [*facts, *_needed(found)]


def _agreement(alpha: float | None, items: int, raters: int, note: str) -> Fact:
    name = "Agreement of raters (Krippendorff's alpha)"
    if alpha is None:
        return Fact("agreement", name, note)
    reading = "1 is perfect, 0 is chance. Krippendorff draws conclusions from 0.667 up; taste rarely gets there."
    return Fact("agreement", name, f"{alpha:.2f} over {counted(items, 'instruction')} and {raters} raters", reading)


def _needed(found: WinRate) -> list[Fact]:
    """Comparisons for rates that the share of ties leaves room for."""
    tie_rate = found.ties / found.votes
    needed = {}
    for rate in _ASKED_RATES:
        try:
            needed[rate] = comparisons_needed(rate, tie_rate)
        except ConfigError:
            continue
    if not needed:
        return []
    listed = ", ".join(f"{count:,} for {rate:.0%}" for rate, count in needed.items())
    reading = f"To see such a win rate 80% of the time, with one vote an instruction and {tie_rate:.0%} ties."
    return [Fact("needed", "Comparisons needed", listed, reading)]


def _bar(name: str, found: WinRate) -> Bar:
    return Bar(name, found.rate, found.low, found.high, found.votes)


def _controlled_bar(summary: Summary) -> Bar:
    found: LengthControlled | None = summary.controlled
    assert found is not None
    return Bar(f"{found.model}, at equal length", found.rate, found.low, found.high, summary.overall.votes)


def _rate(found: WinRate) -> str:
    return f"{found.rate:.1%}, 95% CI {found.low:.1%} to {found.high:.1%}, over {counted(found.votes, 'vote')}"


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 9)
