"""What people said, read from ratings.sqlite as votes on the models by name."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ...data.sources.votes import begun
from ..comparison import Comparison
from ..statistics.votes import Vote
from .ratings import COLUMNS, NAME, Rating, check_comparison, damaged


@dataclass(frozen=True)
class PeopleVotes:
    """People's votes on a comparison.

    Attributes:
        votes: In the order they were given; skipped items are left out.
        reasons: (item, rater) -> the reason, if one was given.
        skipped: Number of items skipped, by all raters together.
    """

    votes: list[Vote] = field(default_factory=list)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    skipped: int = 0


def read_ratings(folder: str | Path) -> PeopleVotes:
    """Reads the ratings in a comparison's folder, also while they are given; without any, all is empty.

    Raises:
        DataError: The file is damaged, or holds ratings of other answers.
    """
    comparison = Comparison.read(folder)
    path = Path(folder) / NAME
    if not path.exists():
        return PeopleVotes()
    try:
        with closing(sqlite3.connect(path.absolute().as_uri() + "?mode=ro", timeout=30, uri=True)) as file:
            file.execute("BEGIN")  # one state of the file for all that is read
            if not begun(file):
                return PeopleVotes()
            check_comparison(path, dict(file.execute("SELECT name, value FROM settings")), comparison)
            ratings = [Rating(*row) for row in file.execute(f"SELECT {COLUMNS} FROM ratings ORDER BY number")]
    except sqlite3.Error as error:
        raise damaged(path, error) from None
    pairs = {pair.id: pair for pair in comparison.pairs}
    votes = []
    for rating in ratings:
        if rating.choice == "skip":
            continue
        pair = pairs[rating.item]
        liked_a = 0.5 if rating.choice == "tie" else float((rating.choice == "left") == (rating.shown_left == "a"))
        votes.append(
            Vote(
                item=rating.item,
                rater=rating.rater,
                a=comparison.a,
                b=comparison.b,
                preference=liked_a,
                category=pair.category,
                length_a=len(pair.output_a),
                length_b=len(pair.output_b),
                shown_first=comparison.a if rating.shown_left == "a" else comparison.b,
            )
        )
    reasons = {(rating.item, rating.rater): rating.reason for rating in ratings if rating.reason}
    return PeopleVotes(votes, reasons, len(ratings) - len(votes))
