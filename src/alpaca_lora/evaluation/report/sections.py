"""Sections of a report: the statistics of one kind of raters, worded once for page and Markdown.

Votes on one pair of models enter; a sentence, a list of facts and rows of a figure leave. People and judges have a
section each, since their votes are never counted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from ...errors import ConfigError, counted
from ..statistics.agreement import Agreement
from ..statistics.bias import LengthControlled, position_bias
from ..statistics.intervals import WinRate, win_rate
from ..statistics.power import comparisons_needed
from ..statistics.sentence import verdict
from ..statistics.summary import Summary, summarize
from ..statistics.votes import Vote

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
class Section:
    """What one kind of raters says of two models.

    Attributes:
        key: "people", "judge", or another word of the caller's; for programs.
        title: Who rated.
        summary: The statistics, as `summarize` gives them.
        verdict: The sentence they support.
        facts: The statistics in words.
        overall: Win rate of the first model.
        categories: The same, by category.
        raters: By rater, if there are several.
    """

    key: str
    title: str
    summary: Summary
    verdict: str
    facts: list[Fact]
    overall: Bar
    categories: list[Bar]
    raters: list[Bar]


def make_section(
    key: str, title: str, votes: Sequence[Vote], *, single: Sequence[Vote] = (), more: Sequence[Fact] = ()
) -> Section:
    """The section of votes on one pair of models, told from the side of `votes[0].a`.

    `single` are a judge's votes, each order by itself; position bias is then measured on these.
    """
    summary = summarize(votes)
    if single:
        summary = replace(summary, position=position_bias(single))
    by_rater: dict[str, list[Vote]] = {}
    for vote in votes:
        by_rater.setdefault(vote.rater, []).append(vote)
    a = summary.overall.a
    raters = [_bar(name or "unnamed", win_rate(found)) for name, found in sorted(by_rater.items())]
    return Section(
        key=key,
        title=title,
        summary=summary,
        verdict=verdict(summary),
        facts=[*_facts(summary, len(by_rater)), *more],
        overall=_bar(a, summary.overall),
        categories=[_bar(name, found) for name, found in summary.categories.items()],
        raters=raters if len(raters) > 1 else [],
    )


def people_against_judge(people: Sequence[Vote], judge: Sequence[Vote]) -> Fact:
    """How often the people, taken together, and the judge name the same winner."""
    lead: list[dict[str, float]] = []
    for votes in (people, judge):
        given: dict[str, list[float]] = {}
        for vote in votes:
            told = vote if vote.a == people[0].a else vote.turned()
            given.setdefault(vote.item, []).append(told.preference)
        lead.append({item: round(fmean(preferences), 9) - 0.5 for item, preferences in given.items()})
    both = [(by_people, lead[1][item]) for item, by_people in lead[0].items() if item in lead[1]]
    decided = [by_people * by_judge > 0 for by_people, by_judge in both if by_people and by_judge]
    return Fact(
        "people_and_judge",
        "Agreement of people and judge",
        f"the same winner on {sum(decided):,} of {len(decided):,} instructions that both decided, of {len(both):,} "
        "that both rated",
        "A judge stands in for people only as far as this goes.",
    )


def _facts(summary: Summary, raters: int) -> list[Fact]:
    found, sign = summary.overall, summary.sign
    facts = [
        Fact(
            "votes", "Votes", f"{found.votes:,} on {counted(found.items, 'instruction')} by {counted(raters, 'rater')}"
        ),
        Fact("score", f"Wins, ties, losses of {found.a}", f"{found.wins:,}, {found.ties:,}, {found.losses:,}"),
        Fact(
            "win_rate",
            f"Win rate of {found.a}",
            _interval(found),
            "A tie is half a win. If the interval holds 50%, the votes do not tell which model is preferred.",
        ),
        *_standard_error(found),
        Fact(
            "sign_test",
            "Exact sign test",
            f"p = {sign.p:.3g} ({sign.wins:,} instructions won, {sign.ties:,} tied, {sign.losses:,} lost)",
            "How often equally good models would differ this much or more; not how likely it is that they are equal.",
        ),
        _agreement(summary.agreement),
    ]
    if summary.length:
        reading = "Above 50%, longer answers won more often. They may also be better."
        facts.append(Fact("length", "Win rate of the longer answer", _rate(summary.length), reading))
    name = f"Win rate of {found.a} if answers were equally long"
    if summary.controlled:
        facts.append(Fact("controlled", name, _interval(summary.controlled), "A logistic regression's estimate."))
    else:
        facts.append(Fact("controlled", name, f"not estimated: {summary.controlled_note}"))
    if summary.position:
        reading = "Without position bias, 50%."
        facts.append(Fact("position", "Win rate of the answer shown first", _rate(summary.position), reading))
    return facts if summary.graded else [*facts, *_needed(found)]


def _standard_error(found: WinRate) -> list[Fact]:
    if found.standard_error is None:
        return []
    text = f"{100 * found.rate:.2f}, {100 * found.standard_error:.2f}"
    reading = "In percent. With one vote per instruction these are AlpacaEval's win_rate and standard_error."
    return [Fact("standard_error", "Win rate and its standard error", text, reading)]


def _agreement(found: Agreement) -> Fact:
    name = "Agreement of raters (Krippendorff's alpha)"
    if found.alpha is None:
        return Fact("agreement", name, found.note)
    reading = "1 is perfect, 0 is chance. Krippendorff draws conclusions from 0.667 up; taste rarely gets there."
    told = f"{found.alpha:.2f} over {counted(found.items, 'instruction')} and {found.raters} raters"
    return Fact("agreement", name, told, reading)


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
    reading = f"To see such a win rate 80% of the time, with one vote per instruction and {tie_rate:.0%} ties."
    return [Fact("needed", "Comparisons needed", listed, reading)]


def _bar(name: str, found: WinRate) -> Bar:
    return Bar(name, found.rate, found.low, found.high, found.votes)


def _interval(found: WinRate | LengthControlled) -> str:
    return f"{found.rate:.1%}, 95% CI {found.low:.1%} to {found.high:.1%}"


def _rate(found: WinRate) -> str:
    return f"{_interval(found)}, over {counted(found.votes, 'vote')}"
