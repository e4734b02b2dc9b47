"""votes.jsonl: a comparison's votes in a plain file, from which `finetune` reads preferences.

It is written with each report; data/sources/votes.py says what stands in it, and reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.sources.votes import HALF, JUDGES, ORDER, PEOPLE, TIE, VOTES, A, B, Vote, check_sources, votes_text
from ..files import write_atomically
from .comparison import Comparison
from .people.people_votes import PeopleVotes
from .verdicts import Verdicts

_SAYS = {1.0: A, 0.0: B, 0.5: TIE}


def write_votes(
    comparison: Comparison, read: Mapping[str, Any], people: PeopleVotes, verdicts: Verdicts | None
) -> None:
    """Write the votes of people and judges into a comparison's folder, in place of earlier ones.

    Args:
        comparison: The comparison.
        read: `state_of` its folder before the votes were read.
        people: Votes of people.
        verdicts: Those of judges; None without any.

    Raises:
        DataError: what earlier votes came from is not there.
    """
    check_sources(Path(comparison.folder), read)
    votes = [*_of_people(people), *(_of_judges(verdicts) if verdicts else ())]
    text = votes_text(comparison.fingerprint, read, votes)
    write_atomically(Path(comparison.folder) / VOTES, text)


def _of_people(people: PeopleVotes) -> Iterator[Vote]:
    return (Vote(vote.item, PEOPLE, vote.rater, _SAYS[vote.preference]) for vote in people.votes)


def _of_judges(verdicts: Verdicts) -> Iterator[Vote]:
    """A vote for each judge and pair; it counts if both orders have the same verdict."""
    heard: dict[tuple[str, str], list[float]] = {}
    for vote in verdicts.single:
        heard.setdefault((vote.item, vote.rater), []).append(vote.preference)
    for (item, judge), both in heard.items():
        said = HALF if len(both) < 2 else _SAYS[both[0]] if both[0] == both[1] else ORDER
        yield Vote(item, JUDGES, judge, said)
