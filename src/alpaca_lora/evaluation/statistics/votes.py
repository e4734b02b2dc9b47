"""Votes: who preferred which of two answers, on what.

A vote is one comparison of two models' answers to one instruction by one rater. Everything the statistics need enters
through it, be it from the page for people, from a judge, or from a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...errors import DataError


@dataclass(frozen=True)
class Vote:
    """One comparison.

    Attributes:
        item: Id of the instruction; votes on the same one are not independent.
        rater: Who voted: a person, or a judge.
        a: One model.
        b: The other.
        preference: For `a`: 1 is a win, 0.5 a tie, 0 a loss; in between, the probability that `a` is better.
        category: Category of the instruction; "" is none.
        length_a: Characters of the answer of `a`, if known.
        length_b: And of `b`.
        shown_first: The model whose answer the rater saw first; "" if not known.

    Raises:
        DataError: A model is compared with itself, the preference is outside [0, 1], or `shown_first` is neither model.
    """

    item: str
    rater: str
    a: str
    b: str
    preference: float
    category: str = ""
    length_a: int | None = None
    length_b: int | None = None
    shown_first: str = ""

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise DataError(f"{self.a!r} is compared with itself. Name the two models apart.")
        if not (math.isfinite(self.preference) and 0 <= self.preference <= 1):
            raise DataError(
                f"the preference for {self.a!r} is {self.preference}; give a number from 0 ({self.b!r} is better) to 1."
            )
        if self.shown_first not in ("", self.a, self.b):
            raise DataError(f"shown first was {self.shown_first!r}; give {self.a!r} or {self.b!r}, or leave it out.")

    def turned(self) -> Vote:
        """The same vote, told from `b`'s side."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            preference=1 - self.preference,
            length_a=self.length_b,
            length_b=self.length_a,
        )


def models_of(votes: Iterable[Vote]) -> list[str]:
    """The models compared, in order of first appearance."""
    return list(dict.fromkeys(name for vote in votes for name in (vote.a, vote.b)))


def between(votes: Iterable[Vote], a: str, b: str) -> list[Vote]:
    """The votes on the pair (a, b), all told from `a`'s side."""
    pair = {a, b}
    return [vote if vote.a == a else vote.turned() for vote in votes if {vote.a, vote.b} == pair]


def one_sided(votes: Sequence[Vote]) -> list[Vote]:
    """Votes on one pair of models, all told from the side of the first vote's `a`.

    Raises:
        DataError: There are no votes, or votes on more than one pair.
    """
    if not votes:
        raise DataError("there are no votes, so there is nothing to count. Collect some first.")
    models = models_of(votes)
    if len(models) > 2:
        raise DataError(
            f"the votes compare {len(models)} models ({', '.join(models)}). Take one pair with between(votes, a, b), "
            "or rank them all with bradley_terry(votes)."
        )
    return between(votes, *models)
