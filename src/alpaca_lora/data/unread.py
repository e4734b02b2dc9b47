"""Keys that nobody reads: which of them would be lost, and what to write so that they are not.

Enter rows with the records that were read from them; leave, for each key that matters, an `UnreadKey` with its record
numbers. What matters is decided by what a key holds, over all rows, and for a few keys by their name:

    error   a key that says what a row is (`system`, `history`, tools, images, a worse answer, a model's `generator`);
            or that it is not to be learned (`label: false`, `weight: 0`, `train: false`, `split: test`); choices of
            the question; a passage under a name such as `context`; any text of its own that stands only in records
            without an input, in 5% of the rows or more
    warn    other text of its own; a score (`reward`, `rating`) that is negative, or 0 among whole numbers
    silent  everything else: ids, categories, addresses, numbers, lists of meta data, and texts that repeat the record
            (the rendered prompt of tatsu-lab/alpaca's `text`)

Text of its own is 60 bytes of UTF-8 (20 Chinese characters) or more, with a space or a letter beyond ASCII, different
from row to row. Costs about 1 µs for each key that is not read, and a search for the record in each text.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..errors import counted
from .columns import (
    CALLED,
    CHOICE,
    DIALOGUES,
    FIELDS,
    LEARN_IF_NO,
    LEARN_IF_YES,
    PARTS,
    SAID,
    SCORES,
    SPLITS,
    WEIGHTS,
    plain,
    suggest,
)
from .listing import HELD_OUT
from .own_text import all_stand, is_filled, is_long, is_longer, repeats, texts_in
from .rows import Record, RowReader, name_numbers
from .wrapped import quoted, write_records

_LEAST_PERCENT = 5
_COPY_PERCENT = 90
_MARKS = LEARN_IF_YES | LEARN_IF_NO | WEIGHTS
_WATCHED = _MARKS | SPLITS | SCORES
_ANSWERS = {*map(str.casefold, CALLED["output"]), "reasoning", "reasoning_content", "thinking", "thought", "rationale"}
_ANSWERS |= {"explanation", "cot", "chain_of_thought", "reference", "references", "original_output"}
_ANSWER = re.compile("answer|response|output|completion|reply|reject|chosen|worse|better")
_RENDERED = {"text", "prompt"}
_PASSAGES = {*map(plain, CALLED["input"])} | PARTS
_YES_NO = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
_YES_NO |= dict.fromkeys(("good", "accepted", "accept", "approved", "thumbs_up", "up", "like", "keep", "safe"), True)
_REJECTED = ("rejected", "reject", "thumbs_down", "dislike", "discard", "discarded", "declined", "👎")
_YES_NO |= {"👍": True, **dict.fromkeys(("bad", "down", "unsafe", *_REJECTED), False)}
_BOOLEANS = {"true", "false", "1", "0", "1.0", "0.0"}


class UnreadKey(NamedTuple):
    """A key that holds something and is not read.

    Attributes:
        key: Its name; of a key inside turns, `messages[].weight`.
        severity: "error" where training would learn something else than the rows say; "" for bookkeeping.
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
        first = name_numbers(self.records[:1], parts, 1, "")
        count = f"{len(self.records):,} of {counted(total, 'row')}, first record {first}"
        return f"{self.key!r} is not read, and holds {self.says} ({count}). {self.remedy}"


@dataclass
class _Seen:
    """What was seen of one key so far: record numbers by what the value was."""

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


class UnreadKeys:
    """Watches rows as they are read."""

    def __init__(self, reader: RowReader, source: str) -> None:
        self._reader, self._source = reader, source
        self._seen: dict[str, _Seen] = {}
        self._names: set[str] = set()
        self._left: dict[tuple[Any, ...], list[Any]] = {}
        self._total = 0

    def see(self, number: int, row: dict[str, Any], record: Record) -> None:
        """Looks at what `reader` left of a row that it read."""
        self._total += 1
        shape = tuple(row)
        left = self._left.get(shape)
        if left is None:  # rows of a source have few sets of keys
            read = self._reader.keys_read(row)
            left = self._left[shape] = [key for key in shape if key not in read]
            self._names.update(map(str, shape))
        for key in left:
            value = row[key]
            if value is not None and value != "":
                self._note(str(key), str(key), value, number, record)
        if turns := self._reader.turns_key(row):
            for turn in row[turns]:
                human = turn.get("role", turn.get("from")) in ("human", "user")
                for key, value in turn.items():
                    if key in ("role", "content", "from", "value") or value is None:
                        continue
                    if not (human and plain(str(key)) in _MARKS):  # a prompt is not learned anyway
                        self._note(f"{turns}[].{key}", str(key), value, number, record)

    def found(self) -> list[UnreadKey]:
        """The keys that matter, errors first, then bookkeeping."""
        every = [self._judged(key, key.rpartition(".")[2], seen) for key, seen in self._seen.items()]
        return sorted((one for one in every if one.records), key=lambda one: ("error", "warn", "").index(one.severity))

    def never_there(self) -> list[str]:
        """Keys that `columns` leaves out and no row has."""
        return sorted(self._reader.left_out - self._names - {*FIELDS})

    def _note(self, key: str, name: str, value: Any, number: int, record: Record) -> None:
        self._names.add(name)
        if key in self._reader.left_out or name in self._reader.left_out or not is_filled(value):
            return
        seen = self._seen.setdefault(key, _Seen())
        seen.filled.append(number)
        folded = plain(name)
        if folded in _WATCHED:
            shown = "" if isinstance(value, (list, tuple, dict)) else str(value).strip().casefold()[:40]
            seen.values[shown] += 1
            seen.places.setdefault(shown, []).append(number)
        choice = CHOICE.fullmatch(folded)
        known = choice or folded in _PASSAGES
        listed = isinstance(value, (list, tuple, dict))
        if listed and folded in DIALOGUES:
            seen.turns += [number] if is_longer(value, record) else []
            return
        text = value if isinstance(value, str) else " ".join(filter(None, texts_in(value))) if known else ""
        if not text and known and (listed or choice):
            text = reprlib.repr(value)  # of numbers, however deep
        if not text or not (known or is_long(text)):
            return
        if repeats(text, record) or (known and all_stand(value, record[:2])):
            seen.copies += 1
            return
        seen.text.append(number)
        seen.beside_input += bool(record.input.strip())
        seen.listed = seen.listed or listed
        seen.long = seen.long or is_long(text)
        if len(seen.hashes) < 10_000:
            seen.hashes.add(hash(text))

    def _judged(self, key: str, name: str, seen: _Seen) -> UnreadKey:
        folded, given = plain(name), self._reader.columns
        out = f"leave it out on purpose with columns={ {**suggest([], given), name: None} }"
        said = seen.turns if folded in DIALOGUES else seen.filled
        marks = seen.values and _BOOLEANS.issuperset(seen.values)
        if folded in SAID and said and not (marks or self._meant(folded)):
            remedy = f"Put it into the texts, remove these rows, or {out}."
            return UnreadKey(key, "error", said, SAID[folded], remedy)
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
        if CHOICE.fullmatch(folded):
            return self._choices(key, seen)
        copied = seen.copies * 100 >= (seen.copies + len(seen.text)) * _COPY_PERCENT
        if not seen.text or copied or not (seen.listed or _varies(seen)):
            return UnreadKey(key, "", seen.filled)
        passage = folded in _PASSAGES and folded not in _RENDERED
        alone = not seen.beside_input and len(seen.text) * 100 >= self._total * _LEAST_PERCENT
        if folded in _ANSWERS or not (passage or alone):
            return UnreadKey(key, "warn", seen.text, "text of its own", f"Put it into the texts, or {out}.")
        if _ANSWER.search(folded) and not passage:
            remedy = f"It seems to be another answer: {out}."
        elif seen.listed:
            remedy = f"Write it into the input: {self._into_input([key])} Or {out}."
        elif seen.beside_input or "input" in given:
            remedy = f"Join it with the input, or {out}."
        else:
            remedy = f"Pass columns={suggest([], {**given, 'input': key})}, or {out}."
        beside = "text of its own" if seen.beside_input else "text, beside no input"
        return UnreadKey(key, "error", seen.text, beside, remedy)

    def _choices(self, key: str, seen: _Seen) -> UnreadKey:
        """What to say of a question's choices: at the first key, for all that the question has not."""
        every = [one for one, other in self._seen.items() if other.text and CHOICE.fullmatch(plain(one))]
        if key != next(iter(every), "") or (len(key) == 1 and len(every) == 1):
            return UnreadKey(key, "", seen.filled)
        records = sorted({number for one in every for number in self._seen[one].text})
        others = f", with {' and '.join(map(repr, every[1:]))}" if every[1:] else ""
        left_out = {**suggest([], self._reader.columns), **dict.fromkeys(every)}
        remedy = f"Write them into the input: {self._into_input(every)} Or leave them out with columns={left_out}."
        return UnreadKey(key, "error", records, f"choices of the question{others}", remedy)

    def _into_input(self, keys: list[str]) -> str:
        """The command that writes keys into the input, each as `key: value`."""
        columns = self._reader.columns
        given = quoted(columns.get("input", "input") or columns.get("instruction") or "instruction")
        names = ", ".join(map(quoted, keys))
        parts = f"(f'{{key}}: {{row[key]}}' for key in [{names}] if row.get(key) not in (None, ''))"
        kept = f"{{key: row[key] for key in row if key not in [{names}]}}"
        made = f"[{{**{kept}, {given}: '\\n'.join(filter(None, [row.get({given}) or '', *{parts}]))}} for row in rows]"
        return write_records(made, self._source)

    def _meant(self, name: str) -> bool:
        """Whether `columns` chose the better answers by name, so that the worse are left out on purpose."""
        output = self._reader.columns.get("output") or ""
        return name.startswith("rejected") and output.startswith("chosen")


def _not_learned(name: str, seen: _Seen) -> list[int]:
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


def _places(seen: _Seen, values: Iterable[str]) -> list[int]:
    return sorted(number for value in values for number in seen.places[value])


def _low_scores(values: Sequence[str]) -> list[str]:
    """The scores below zero; and zero, the worst of whole numbers, where not all are. All have to be numbers."""
    try:
        scores = {value: float(_YES_NO.get(value, value)) for value in values}
    except ValueError:
        return []
    whole = all(score.is_integer() for score in scores.values()) and any(scores.values())
    return [value for value, score in scores.items() if score < 0 or (whole and score == 0)]


def _varies(seen: _Seen) -> bool:
    """Whether texts differ as texts do, not as categories do; few short ones say nothing either way."""
    if len(seen.text) == 1 or (len(seen.text) < 20 and not seen.long):
        return True
    return len(seen.hashes) >= max(2, min(len(seen.text), 10_000) * _LEAST_PERCENT / 100)
