"""What each rater is given, in which order, and what they say of it.

Which items a rater gets is drawn from a seed; their order, and which answer stands on the left, from a secret in the
database. What is handed out of an item is instruction, input, and the text on the left and on the right; an item is
named by its number in the rater's own order. No id, name, path or hash of a model or a file is ever handed out.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ...errors import ConfigError, DataError
from .ratings import Choice, Rater, Rating, Ratings, Side

if TYPE_CHECKING:
    from ..comparison import Comparison
from ..pairs import Pair

CHOICES: tuple[Choice, ...] = get_args(Choice)
MAX_REASON_CHARACTERS = 4000


@dataclass(frozen=True)
class Share:
    """Which part of the items each rater gets.

    The items stand in a circle, in an order drawn from the seed; each rater gets a stretch of it, and starts evenly
    further on than the one who arrived before. 8 items, share 0.5, 4 raters, so that two see each item:

        1st  x x x x . . . .        3rd  . . . . x x x x
        2nd  . . x x x x . .        4th  x x . . . . x x        5th  as the 1st

    Attributes:
        share: Share of the items that each rater gets, above 0 and at most 1.
        raters: How many are expected.
        seed: Seed of the order of items.

    Raises:
        ConfigError: A value is out of range, or some items would be seen by nobody.
    """

    share: float
    raters: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share: {self.share!r} is not a part of the items; give a number above 0, at most 1.")
        if self.raters < 1:
            raise ConfigError(f"raters: {self.raters!r} is too few; give 1 or more.")
        if self.share * self.raters < 1 - 1e-9:
            raise ConfigError(
                f"share: {self.share:g} of the items for each of {self.raters} raters leaves some that nobody sees. "
                f"Give at least {math.ceil(1000 / self.raters) / 1000:g}, or twice that to measure agreement."
            )

    def of(self, pairs: Sequence[Pair], place: int) -> list[Pair]:
        """The items of the rater who arrived at `place`, from 0."""
        circle = sorted(pairs, key=lambda pair: hashlib.sha256(f"{self.seed} {pair.id}".encode()).digest())
        start = place % self.raters * len(circle) // self.raters
        count = math.ceil(self.share * len(circle) - 1e-9)
        return [circle[(start + step) % len(circle)] for step in range(count)]


class Assignments:
    """Hands items to raters and takes their ratings.

    What it gives, each time: `rater`; `total` items of theirs; `rated` and `skipped` ones; the number of the `last` of
    these, or null; and the item to look at: its `number`, from 1 (null if none is left), `instruction`, `input`,
    `left` and `right`, and if it was just taken back, the `choice` and the `reason` it had.
    """

    def __init__(self, comparison: Comparison, ratings: Ratings, share: Share | None = None) -> None:
        self.pairs, self.ratings, self.share = comparison.pairs, ratings, share
        self._given: dict[str, dict[str, Pair]] = {}

    def join(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Start or resume a rater's session, given `{"rater"}`."""
        return self._next(self._rater(sent))

    def rate(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Store `{"rater", "number", "choice", "reason", "seconds"}`, the last two optional; give the next item."""
        rater = self._rater(sent)
        pair = self._item(sent, rater)
        choice, reason, seconds = sent.get("choice"), sent.get("reason", ""), sent.get("seconds", 0)
        if choice not in CHOICES:
            raise DataError(f"choice: {choice!r} is none; give {', '.join(CHOICES)}.")
        if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARACTERS:
            raise DataError(f"reason: must be text of at most {MAX_REASON_CHARACTERS:,} characters. Shorten it.")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
            raise DataError(f"seconds: {seconds!r} is no time taken; give a number from 0.")
        reason = reason.strip().encode("utf-8", "replace").decode()
        self.ratings.add(Rating(pair.id, rater.name, choice, self._left(rater, pair), reason, float(seconds)))
        return self._next(rater)

    def undo(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Take back `{"rater", "number"}`, and give that item again. Sent once more, it takes back no other one."""
        rater = self._rater(sent)
        pair = self._item(sent, rater)
        taken = self.ratings.undo(pair.id, rater.name)
        before = {} if taken is None else {"choice": taken.choice, "reason": taken.reason}
        return self._state(rater, pair, self.ratings.of(rater.name)) | before

    def _next(self, rater: Rater) -> dict[str, Any]:
        done = self.ratings.of(rater.name)
        first = next((pair for id, pair in self._items(rater).items() if id not in done), None)
        return self._state(rater, first, done)

    def _state(self, rater: Rater, pair: Pair | None, done: dict[str, Rating]) -> dict[str, Any]:
        items = list(self._items(rater))
        skipped = sum(rating.choice == "skip" for rating in done.values())
        last = items.index(next(reversed(done))) + 1 if done else None
        state = {
            "rater": rater.name,
            "total": len(items),
            "rated": len(done) - skipped,
            "skipped": skipped,
            "last": last,
        }
        if pair is None:
            return {**state, "number": None}
        shown = (pair.output_a, pair.output_b)
        left, right = shown if self._left(rater, pair) == "a" else reversed(shown)
        texts = {"instruction": pair.instruction, "input": pair.input, "left": left, "right": right}
        return {**state, "number": items.index(pair.id) + 1, **texts}

    def _rater(self, sent: dict[str, Any]) -> Rater:
        name = sent.get("rater")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise DataError("rater: give a name of 1 to 64 letters (A to Z), digits, - or _.")
        return self.ratings.join(name)

    def _item(self, sent: dict[str, Any], rater: Rater) -> Pair:
        number, items = sent.get("number"), self._items(rater)
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(items):
            raise DataError(f"number: {number!r} is no item of yours; give 1 to {len(items)}.")
        return list(items.values())[number - 1]

    def _items(self, rater: Rater) -> dict[str, Pair]:
        """A rater's items, by id, in their own order."""
        if rater.name not in self._given:
            pairs = self.share.of(self.pairs, rater.place) if self.share else self.pairs
            ordered = sorted(pairs, key=lambda pair: self._draw("order", rater, pair))
            self._given[rater.name] = {pair.id: pair for pair in ordered}
        return self._given[rater.name]

    def _left(self, rater: Rater, pair: Pair) -> Side:
        return "b" if self._draw("left", rater, pair)[0] % 2 else "a"

    def _draw(self, what: str, rater: Rater, pair: Pair) -> bytes:
        """Random bytes, always the same for the same rater and item, and known only to who has the secret."""
        return hmac.digest(self.ratings.secret, f"{what} {rater.name} {pair.id}".encode(), "sha256")
