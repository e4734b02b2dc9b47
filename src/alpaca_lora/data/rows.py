"""Rows: what a source holds, before it is known to be records.

Enter dicts with any keys; leave `Record`s, one at a time, through `RowReader.read`. A row may carry Alpaca keys, one
ShareGPT exchange, or other keys named by a `columns` mapping. What the other keys hold is looked at in unread.py.

    {"instruction": "Add.", "input": "2, 3", "output": "5"}                               Alpaca
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}   ShareGPT
    {"question": "Hi", "answer": "Hello"}           with columns={"instruction": "question", "output": "answer"}
"""

from __future__ import annotations

import numbers
import re
import reprlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError, a, counted, did_you_mean
from .columns import FIELDS, TURN_KEYS, Columns, check_columns, list_keys, misspelt, suggest

__all__ = ["BLANK", "FIELDS", "TURN_KEYS", "Record", "RowProblem", "RowReader", "Rows", "list_keys"]

BLANK = "instruction and input are both blank, so nothing is asked. Fill one in, or remove it."
BLANKS = re.compile(
    r"[\s\u00ad\u034f\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe0e\ufe0f\ufeff\uffa0]*"
)
"""White space, and the characters of Unicode that show as nothing."""
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}


class Record(NamedTuple):
    """One training record. `input` is "" when the instruction stands alone; texts are kept byte for byte."""

    instruction: str
    input: str
    output: str


class RowProblem(DataError):
    """What is wrong inside one row; the caller puts the row's place in front of it.

    Attributes:
        kind: The same words for all rows that have this wrong, whatever their texts.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or message


@dataclass(frozen=True)
class Rows:
    """The rows of a source, or of several one after the other, in order.

    Attributes:
        values: The rows; each should be a dict, which nobody has checked yet.
        source: File path, hub id, or "<list>" and the like; of several, their names with " + " between them.
        lines: For text files, the 1-based line each row starts on.
        parts: Name and number of rows of each of several sources; else empty.
    """

    values: list[Any]
    source: str
    lines: list[int] | None = None
    parts: tuple[tuple[str, int], ...] = ()

    def where(self, index: int) -> str:
        """The place of row `index` (from 0) in words: `data.json, record 3 (line 12)`."""
        source, number = place_in(self.parts, index + 1)
        line = f" (line {self.lines[index]})" if self.lines and self.lines[index] else ""
        return f"{source or self.source}, record {number}{line}"

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Several sources as one, in this order; each row keeps its place in its own."""
        lines = [line for part in parts for line in (part.lines or [0] * len(part.values))]
        return cls(
            [row for part in parts for row in part.values],
            " + ".join(part.source for part in parts),
            lines if any(lines) else None,
            tuple((part.source, len(part.values)) for part in parts),
        )


def name_numbers(found: Sequence[int], parts: Sequence[tuple[str, int]], most: int, more: str) -> str:
    """The first record numbers of a list, of several sources with the source: `b.json 3, b.json 7, ...`."""
    places = (place_in(parts, number) for number in found[:most])
    shown = ", ".join(f"{source} {number}" if source else str(number) for source, number in places)
    return shown + (more.format(len(found) - most) if len(found) > most else "")


def place_in(parts: Sequence[tuple[str, int]], number: int) -> tuple[str, int]:
    """The source, and the number in it, of record `number` (from 1) of several sources; ("", number) of a single one.

    Example:
        >>> place_in([("a.json", 3), ("b.json", 2)], 5)
        ('b.json', 2)
    """
    if not parts:
        return "", number
    ends = list(accumulate(count for _, count in parts))
    part = min(bisect_right(ends, number - 1), len(parts) - 1)
    return parts[part][0], number - (ends[part - 1] if part else 0)


class RowReader:
    """Reads rows as records.

    Args:
        columns: Our field -> the source's key, for rows with other keys than Alpaca's. Fields left out keep their name;
            a key of the source -> None leaves it out on purpose.

    Raises:
        ConfigError: A field on our side is unknown, or two fields read the same key.
    """

    def __init__(self, columns: Columns | None = None) -> None:
        if columns is not None and not isinstance(columns, Mapping):
            raise ConfigError(f"columns: {columns!r} is no mapping; write {{our field: your key}}.")
        self.columns: dict[str, str | None] = dict(columns or {})
        check_columns(self.columns)
        self.left_out = frozenset(key for key, value in self.columns.items() if value is None)
        self._mapped = {field: key for field, key in self.columns.items() if key is not None}
        self._keys: dict[str, str] = {field: self._mapped.get(field, field) for field in FIELDS}
        self._input_key: str | None = self._keys["input"]
        if "input" not in self._mapped and self._input_key in {*self._mapped.values(), *self.left_out}:
            self._input_key = None  # their "input" is our instruction or output: there is no third text
        self._read = frozenset(filter(None, (self._keys["instruction"], self._input_key, self._keys["output"])))
        self._input_seen = False

    def read(self, row: object) -> Record:
        """The record a row holds; its output may be blank, which the caller counts.

        Raises:
            RowProblem: A key is missing or misspelt, a value is no string or cannot be encoded, or a ShareGPT row
                holds anything but one exchange.
        """
        if not isinstance(row, dict):
            raise RowProblem(
                f"this is {reprlib.repr(row)}, {a(type(row).__name__)}, not an object; "
                "a record is an object with the keys 'instruction', 'input' (may be absent) and 'output'.",
                f"this is {a(type(row).__name__)}, not an object",
            )
        if turns := self.turns_key(row):
            return _read_exchange(row, turns, self.left_out)
        instruction = _text(self._value(row, "instruction"), self._keys["instruction"])
        output = _text(self._value(row, "output"), self._keys["output"])
        return Record(instruction, _text(self._input(row), self._input_key or "input"), output)

    def turns_key(self, row: Mapping[str, Any]) -> str:
        """The key whose turns are read, or "" where the row is read by its fields."""
        if self._mapped or "instruction" in row:
            return ""
        return next((key for key in TURN_KEYS if key in row), "")

    def keys_read(self, row: Mapping[str, Any]) -> frozenset[str]:
        """The keys of a row that `read` uses."""
        turns = self.turns_key(row)
        return frozenset([turns]) if turns else self._read

    def missing_column(self) -> str:
        """The mapped input key when no row read so far had it (an absent input is "", a typo is not), else ""."""
        return "" if self._input_seen or "input" not in self._mapped else self._mapped["input"]

    def _value(self, row: dict[str, Any], field: str) -> Any:
        key = self._keys[field]
        if key in row:
            return row[key]
        names = [str(name) for name in row]
        if field in self._mapped:
            raise RowProblem(
                f"columns reads {field!r} from {key!r}, which is not there.{did_you_mean(key, names)} "
                f"Keys of this record: {list_keys(names)}.",
                f"columns reads {field!r} from {key!r}, which is not there",
            )
        found = suggest(names, self.columns)
        advice = f"Rename the key, or pass columns={found if field in found else f'{{{field!r}: <its name here>}}'}."
        near = f" Did you mean {found[field]!r}?" if misspelt(field, (str(found.get(field, "")),)) else ""
        raise RowProblem(
            f"the key {key!r} is missing.{near} Keys of this record: {list_keys(names)}. {advice}",
            f"the key {key!r} is missing",
        )

    def _input(self, row: dict[str, Any]) -> Any:
        if self._input_key is None:
            return None
        if self._input_key in row:
            self._input_seen = True
            return row[self._input_key]
        if "input" not in self._mapped:
            typo = misspelt("input", tuple(str(name) for name in row if name not in self.left_out | self._read))
            if typo:
                raise RowProblem(
                    f"there is no key 'input', but there is {typo!r}. Did you mean 'input'? Rename it, or pass "
                    f"columns={suggest([], {**self.columns, 'input': typo})}; if it is something else, "
                    f"columns={ {**self.columns, typo: None} }.",
                    f"there is no key 'input', but there is {typo!r}",
                )
        return None


def _text(value: object, key: str) -> str:
    if isinstance(value, str):
        pass
    elif is_missing(value):
        return ""
    else:
        raise RowProblem(
            f"{key!r} is {reprlib.repr(value)} ({type(value).__name__}), not a string; "
            "write it as text, and a missing value as null or an empty string.",
            f"{key!r} is {a(type(value).__name__)}, not a string",
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem(
            f"{key!r} holds the lone surrogate \\u{ord(value[error.start]):04x} at character {error.start + 1}: half "
            "of a character, which no tokenizer can encode. Replace it, or write both halves (as in \\ud83d\\ude00).",
            f"{key!r} holds a lone surrogate, half of a character",
        ) from None
    return value


def is_blank(text: str) -> bool:
    """Whether nothing of a text shows: white space, zero-width characters, soft hyphens, fillers.

    Example:
        >>> is_blank(" \\u200b\\u3164"), is_blank("0")
        (True, False)
    """
    return BLANKS.fullmatch(text) is not None


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, or what pandas has in its place (NaN, NaT, NA)."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Real) and value != value


def _read_exchange(row: dict[str, Any], key: str, left_out: frozenset[str]) -> Record:
    turns = row[key]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowProblem(
            f"{key!r} is {reprlib.repr(turns)}; it should be a list of turns, each with 'from' and 'value'.",
            f"{key!r} is no list of turns",
        )
    spoken: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, 1):
        role_key, text_key = ("role", "content") if "role" in turn else ("from", "value")
        role = turn.get(role_key)
        if not isinstance(role, str) or role not in _ROLES:
            raise RowProblem(
                f"{key!r}: turn {number} is from {role!r}; known are {list_keys(_ROLES)}.",
                f"{key!r}: a turn is from {role!r}",
            )
        if text_key not in turn:
            raise RowProblem(
                f"{key!r}: turn {number} has no {text_key!r}; its keys are {list_keys(turn)}.",
                f"{key!r}: a turn has no {text_key!r}",
            )
        text = _text(turn[text_key], f"{key}[{number - 1}].{text_key}")
        if _ROLES[role] != "system" or not is_blank(text):
            spoken.append((_ROLES[role], text))
    roles = [role for role, _ in spoken]
    if "system" in roles or ("system" not in left_out and row.get("system")):
        raise RowProblem(
            "this conversation has a system turn, and a record has no place for one; "
            "move its text into the human turn, or remove it.",
            "this conversation has a system turn",
        )
    if roles != ["human", "gpt"]:
        raise RowProblem(
            f"this conversation has {counted(len(roles), 'turn')} ({', '.join(roles) or 'none'}); a record is a "
            "single exchange, one human turn and then one gpt turn. Split it into one record an exchange, or keep the "
            "first exchange.",
            "this conversation is no single exchange of one human and one gpt turn",
        )
    return Record(spoken[0][1], "", spoken[1][1])
