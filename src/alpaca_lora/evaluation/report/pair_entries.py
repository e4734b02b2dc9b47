"""What the page shows pair by pair: texts, votes and who won, as plain JSON values.

Comparison and votes enter; a list of entries leaves, one for each instruction and pair of models, numbered from 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean, pvariance
from typing import Any

from ...data.probe import PROBE_FILE
from ...data.sources import open_source
from ..comparison import Comparison
from ..outputs import Instruction
from ..statistics.votes import Vote

Kinds = Mapping[str, Sequence[Vote]]
Reasons = Mapping[tuple[str, ...], str]


def entries_of(comparison: Comparison, counted: Kinds, shown: Kinds, reasons: Reasons) -> list[dict[str, Any]]:
    """An entry for each pair of the comparison, voted on or not.

    Args:
        comparison: Texts and names.
        counted: "people", "judge" -> votes that say who won.
        shown: The votes to list; for a judge, each order by itself.
        reasons: (item, rater), or (item, rater, model shown first) -> why.
    """
    names = {"a": comparison.a, "b": comparison.b}
    counts, lists = _by_item(counted), _by_item(shown)
    return [
        {
            "number": number,
            "instruction": pair.instruction,
            "input": pair.input,
            "category": pair.category,
            "answers": [pair.output_a, pair.output_b],
            "good_answer": _good_answers().get(Instruction(pair.instruction, pair.input).id, ""),
            **names,
            **_voted(counts.get(key, {}), lists.get(key, {}), reasons),
        }
        for number, pair in enumerate(comparison.pairs, 1)
        for key in [(pair.id, comparison.a, comparison.b)]
    ]


def entries_of_votes(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """An entry for each item and pair of models, if only votes are known; the item's id stands for its text."""
    categories = {vote.item: vote.category for vote in votes}
    return [
        {
            "number": number,
            "instruction": item,
            "input": "",
            "category": categories[item],
            "answers": [],
            "good_answer": "",
            "a": a,
            "b": b,
            **_voted(cast, cast, {}),
        }
        for number, ((item, a, b), cast) in enumerate(_by_item({"file": votes}).items(), 1)
    ]


def most_split(entries: Sequence[dict[str, Any]], maximum: int = 5) -> list[int]:
    """Places of the entries on which raters of one kind disagreed most, from 0; first those with the widest spread."""
    spread = {
        place: max(pvariance([vote["preference"] for vote in entry["votes"] if vote["kind"] == kind]) for kind in split)
        for place, entry in enumerate(entries)
        if (split := entry["split"])
    }
    return sorted(spread, key=lambda place: (-spread[place], place))[:maximum]


def _by_item(kinds: Kinds) -> dict[tuple[str, str, str], dict[str, list[Vote]]]:
    """(item, a, b) -> kind -> votes; votes on the pair (b, a) are turned."""
    cast: dict[tuple[str, str, str], dict[str, list[Vote]]] = {}
    for kind, votes in kinds.items():
        for vote in votes:
            told = vote.turned() if (vote.item, vote.b, vote.a) in cast else vote
            cast.setdefault((told.item, told.a, told.b), defaultdict(list))[kind].append(told)
    return cast


def _voted(
    counted: Mapping[str, Sequence[Vote]],
    shown: Mapping[str, Sequence[Vote]],
    reasons: Reasons,
) -> dict[str, Any]:
    """Votes; `won`, kind -> "a", "b" or "tie" by the mean vote; `split`, the kinds in which both a and b have a win."""
    means = {kind: round(fmean(vote.preference for vote in votes), 9) for kind, votes in counted.items()}
    return {
        "votes": [
            {
                "kind": kind,
                "rater": vote.rater,
                "preference": vote.preference,
                "first": vote.shown_first,
                "reason": reasons.get(
                    (vote.item, vote.rater, vote.shown_first), reasons.get((vote.item, vote.rater), "")
                ),
            }
            for kind, votes in shown.items()
            for vote in votes
        ],
        "won": {kind: "tie" if mean == 0.5 else "a" if mean > 0.5 else "b" for kind, mean in means.items()},
        "split": [
            kind
            for kind, votes in shown.items()
            if min(vote.preference for vote in votes) < 0.5 < max(vote.preference for vote in votes)
        ],
    }


@cache
def _good_answers() -> dict[str, str]:
    """What a good answer does, for the instructions of the probe."""
    rows = open_source(PROBE_FILE).values
    return {Instruction(row["instruction"], row["input"]).id: row["good_answer"] for row in rows}
