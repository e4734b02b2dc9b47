"""Keys that nobody reads: what each held, over all rows; key_rules.py says what would be lost.

Enter rows with the records that were read from them; leave an `UnreadKey` for each. Costs about 1 µs for each key that
is not read, and a search for the record in each text.
"""

from __future__ import annotations

import reprlib
from typing import Any

from ..key_names import CHOICE, CONVERSATIONS, plain
from ..record import FIELDS, PAIR_FIELDS, Record
from .key_rules import ANSWERS, MARKS, PASSAGES, WATCHED, SeenKey, UnreadKey, judge, judge_choices
from .key_values import all_stand, is_filled, is_long, is_longer, repeats, texts_in
from .reader import RowReader
from .turns import READ


class UnreadKeys:
    """Watches rows as they are read."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._seen: dict[str, SeenKey] = {}
        self._names: set[str] = set()
        self._left: dict[tuple[Any, ...], list[Any]] = {}
        self._total = 0
        self._compared = reader.fields == PAIR_FIELDS

    def see(self, number: int, row: dict[str, Any], record: Record, answers: tuple[str, ...] = ()) -> None:
        """Looks at what `reader` left of a row that it read; `answers` are those of a pair."""
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
                if self._compared and isinstance(value, str) and value.strip() in map(str.strip, answers):
                    continue
                self._note(str(key), str(key), value, number, record)
        if turns := self._reader.turns_key(row):
            for turn in row[turns]:
                human = turn.get("role", turn.get("from")) in ("human", "user")
                for key, value in turn.items():
                    if key in READ or value is None:
                        continue
                    if not (human and plain(str(key)) in MARKS):  # a prompt is not learned anyway
                        self._note(f"{turns}[].{key}", str(key), value, number, record)

    def found(self) -> list[UnreadKey]:
        """The keys that matter, errors first, then bookkeeping."""
        given = self._reader.columns
        choices = [key for key in self._seen if CHOICE.fullmatch(plain(key.rpartition(".")[2]))]
        every = [
            judge(key, seen, given, self._total, self._compared)
            for key, seen in self._seen.items()
            if key not in choices
        ]
        told = [key for key in choices if self._seen[key].text and CHOICE.fullmatch(plain(key))]
        if len(told) > 1 or (told and len(told[0]) > 1):  # a key `A` by itself may be anything
            every.append(judge_choices(told, [self._seen[key] for key in told], given))
        else:
            told = []
        every += [UnreadKey(key, "", self._seen[key].filled) for key in choices if key not in told[:1]]
        return sorted((one for one in every if one.records), key=lambda one: ("error", "warn", "").index(one.severity))

    def never_there(self) -> list[str]:
        """Keys that `columns` leaves out and no row has."""
        return sorted(self._reader.left_out - self._names - {*FIELDS})

    def _note(self, key: str, name: str, value: Any, number: int, record: Record) -> None:
        self._names.add(name)
        if key in self._reader.left_out or name in self._reader.left_out or not is_filled(value):
            return
        seen = self._seen.setdefault(key, SeenKey())
        seen.filled.append(number)
        folded = plain(name)
        if folded in WATCHED:
            shown = "" if isinstance(value, (list, tuple, dict)) else str(value).strip().casefold()[:40]
            seen.values[shown] += 1
            seen.places.setdefault(shown, []).append(number)
        choice = CHOICE.fullmatch(folded)
        known = choice or folded in PASSAGES or (self._compared and folded in ANSWERS)
        listed = isinstance(value, (list, tuple, dict))
        if listed and folded in CONVERSATIONS:
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
