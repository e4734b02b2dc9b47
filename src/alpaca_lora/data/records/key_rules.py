"""What is lost with a key that nobody reads, decided by what it held in all rows, and for a few keys by their name.

    error   a key that says what a row is (`persona`, `chat_history`, images, a worse answer, a model's `generator`);
            or that it is not to be learned (`label: false`, `weight: 0`, `train: false`, `split: test`); choices of
            the question; a passage under a name such as `context`; any text of its own that stands only in records
            without an input, in 5% of the rows or more
    warn    other text of its own; a score (`reward`, `rating`) that is negative, or 0 among whole numbers
    silent  everything else: ids, categories, addresses, numbers, lists of meta data, and texts that repeat the record
            (the rendered prompt of tatsu-lab/alpaca's `text`)

Text of its own is 60 bytes of UTF-8 (20 Chinese characters) or more, with a space or a letter beyond ASCII, different
from row to row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ...errors import counted
from ..columns import Columns, suggest
from ..key_names import (
    CALLED,
    CONVERSATIONS,
    LEARN_IF_NO,
    LEARN_IF_YES,
    MEANING,
    PARTS,
    READ_AS,
    SCORES,
    SPLITS,
    WEIGHTS,
    plain,
)
from ..sources.paths import HELD_OUT
from ..sources.rows import name_numbers

_MIN_PERCENT = 5
_COPY_PERCENT = 90
MARKS = {*LEARN_IF_YES, *LEARN_IF_NO, *WEIGHTS}
"""Names of keys whose values say whether a record is to be learned."""
WATCHED = {*MARKS, *SPLITS, *SCORES}
"""Names of keys whose values are counted."""
PASSAGES = {*map(plain, CALLED["input"]), *PARTS}
"""Names of keys that hold a part of the question."""
ANSWERS = {*map(str.casefold, CALLED["output"]), "reasoning", "reasoning_content", "thinking", "thought", "rationale"}
ANSWERS |= {"explanation", "cot", "chain_of_thought", "reference", "references", "original_output"}
"""Names of keys that hold an answer, or what is said of one."""
_ANSWER = re.compile("answer|response|output|completion|reply|reject|chosen|worse|better")
_RENDERED = {"text", "prompt"}
_YES_NO = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
_YES_NO |= dict.fromkeys(("good", "accepted", "accept", "approved", "thumbs_up", "up", "like", "keep", "safe"), True)
_REJECTED = ("rejected", "reject", "thumbs_down", "dislike", "discard", "discarded", "declined", "👎")
_YES_NO |= {"👍": True, **dict.fromkeys(("bad", "down", "unsafe", *_REJECTED), False)}
_BOOLEANS = {"true", "false", "1", "0", "1.0", "0.0"}


class UnreadKey(NamedTuple):
    """A key that holds something and is not read.

    Attributes:
        key: Its name; of a key inside turns, `messages[].weight`.
        severity: "error" if training would learn something else than the rows say; "" for bookkeeping.
        records: Numbers of the records concerned, from 1.
        says: What the key holds.
        remedy: What to do.
    """

    key: str
    severity: Literal["error", "warn", ""]
    records: list[int]
    says: str = ""
    remedy: str = ""

    def sentences(self, total: int, parts: Sequence[tuple[str, int]] = ()) -> str:
        """In two sentences: what would be lost in a source of so many rows (and parts), and what to do."""
        first = name_numbers(self.records, parts)
        count = f"{len(self.records):,} of {counted(total, 'row')}, first record {first}"
        return f"{self.key!r} is not read, and holds {self.says} ({count}). {self.remedy}"


@dataclass
class SeenKey:
    """What was seen of one key: record numbers by what the value was."""

    filled: list[int] = field(default_factory=list)
    text: list[int] = field(default_factory=list)
    copies: int = 0
    beside_input: int = 0
    turns: list[int] = field(default_factory=list)
    listed: bool = False
    long: bool = False
    hashes: set[int] = field(default_factory=set)
    values: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)


def judge(key: str, seen: SeenKey, given: Columns, total: int, compared: bool = False) -> UnreadKey:
    """What is lost with a key, in a source of so many rows that is read by the columns `given`; pairs if `compared`."""
    name = key.rpartition(".")[2]
    folded = plain(name)
    out = f"leave it out on purpose with columns={ {**suggest([], given), name: None} }"
    said = seen.turns if folded in CONVERSATIONS else seen.filled
    marks = seen.values and _BOOLEANS.issuperset(seen.values)
    if folded in MEANING and said and not (marks or _meant(folded, given)):
        advice = READ_AS.get(MEANING[folded], "Put it into the texts")
        return UnreadKey(key, "error", said, MEANING[folded], f"{advice}, remove these rows, or {out}.")
    if unlearned := _not_learned(folded, seen):
        says = "a mark that a record is not to be learned, or less than others"
        return UnreadKey(key, "error", unlearned, says, f"Remove these rows, or {out}.")
    if folded in SPLITS and (held_out := _places(seen, [one for one in seen.values if HELD_OUT.search(one)])):
        counts = ", ".join(f"{count:,} {value!r}" for value, count in seen.values.most_common(5))
        says = f"what a row is for ({counts}), and some are set aside for testing"
        return UnreadKey(key, "error", held_out, says, f"Pass the rows to train on alone, or {out}.")
    if folded in SCORES and (low := _places(seen, _low_scores([*seen.values]))):
        says = "numbers of 0 or less, perhaps for rows that were judged bad"
        return UnreadKey(key, "warn", low, says, f"Remove these rows, or {out}.")
    copied = seen.copies * 100 >= (seen.copies + len(seen.text)) * _COPY_PERCENT
    if not seen.text or copied or not (seen.listed or _varies(seen)):
        return UnreadKey(key, "", seen.filled)
    passage = folded in PASSAGES and folded not in _RENDERED
    alone = not seen.beside_input and len(seen.text) * 100 >= total * _MIN_PERCENT
    if folded in ANSWERS or not (passage or alone):
        use = "Write a pair of its own with it" if compared and _ANSWER.search(folded) else "Put it into the texts"
        return UnreadKey(key, "warn", seen.text, "text of its own", f"{use}, or {out}.")
    if _ANSWER.search(folded) and not passage:
        remedy = f"It seems to be another answer: {out}."
    elif seen.listed:
        remedy = f"Write it into the input, or {out}."
    elif seen.beside_input or "input" in given:
        remedy = f"Join it with the input, or {out}."
    else:
        remedy = f"Pass columns={suggest([], {**given, 'input': key})}, or {out}."
    beside = "text of its own" if seen.beside_input else "text, beside no input"
    return UnreadKey(key, "error", seen.text, beside, remedy)


def _meant(name: str, given: Columns) -> bool:
    """Whether `columns` chose the better answers by name, so that the worse are left out on purpose."""
    return name.startswith("rejected") and (given.get("output") or "").startswith("chosen")


def judge_choices(keys: Sequence[str], seen: Sequence[SeenKey], given: Columns) -> UnreadKey:
    """What is lost with the choices of a question, which stand under several keys or one."""
    records = sorted({number for one in seen for number in one.text})
    others = f", with {' and '.join(map(repr, keys[1:]))}" if keys[1:] else ""
    left_out = {**suggest([], given), **dict.fromkeys(keys)}
    remedy = f"Write them into the input, or leave them out with columns={left_out}."
    return UnreadKey(keys[0], "error", records, f"choices of the question{others}", remedy)


def _not_learned(name: str, seen: SeenKey) -> list[int]:
    """Numbers of the records whose mark says that they are not to be learned."""
    words = {value: re.sub(r"[\s-]+", "_", value) for value in seen.values}
    values = {value: _YES_NO.get(word) for value, word in words.items()}
    if name in LEARN_IF_YES:  # a word of refusal says so beside any others
        sure = None not in values.values()
        stops = {value for value, yes in values.items() if yes is False and (sure or words[value] in _REJECTED)}
    elif name in LEARN_IF_NO and None not in values.values():
        stops = {value for value, yes in values.items() if yes}
    elif name in WEIGHTS:
        stops = {value for value, yes in values.items() if yes is False or (len(values) > 1 and yes is None)}
    else:
        stops = set()
    return _places(seen, stops)


def _places(seen: SeenKey, values: Iterable[str]) -> list[int]:
    return sorted(number for value in values for number in seen.places[value])


def _low_scores(values: Sequence[str]) -> list[str]:
    """The scores below zero; and zero, the worst of whole numbers, if not all are. All have to be numbers."""
    try:
        scores = {value: float(_YES_NO.get(value, value)) for value in values}
    except ValueError:
        return []
    whole = all(score.is_integer() for score in scores.values()) and any(scores.values())
    return [value for value, score in scores.items() if score < 0 or (whole and score == 0)]


def _varies(seen: SeenKey) -> bool:
    """Whether texts differ as texts do, not as categories do; few short ones say nothing either way."""
    if len(seen.text) == 1 or (len(seen.text) < 20 and not seen.long):
        return True
    return len(seen.hashes) >= max(2, min(len(seen.text), 10_000) * _MIN_PERCENT / 100)
