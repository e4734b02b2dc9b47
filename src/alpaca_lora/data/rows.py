"""Rows: what a source holds, before it is known to be records.

Enter dicts with any keys; leave `Record`s, one at a time, through `RowReader.read`. A row may carry Alpaca keys, one
ShareGPT exchange, or other keys named by a `columns` mapping. Keys nobody asked for are ignored.

    {"instruction": "Add.", "input": "2, 3", "output": "5"}                               Alpaca
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}   ShareGPT
    {"question": "Hi", "answer": "Hello"}           with columns={"instruction": "question", "output": "answer"}
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from alpaca_lora.errors import ConfigError, DataError, did_you_mean

FIELDS = ("instruction", "input", "output")
TURN_KEYS = ("conversations", "messages")
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}


class Record(NamedTuple):
    """One training record. `input` is "" when the instruction stands alone; texts are kept byte for byte."""

    instruction: str
    input: str
    output: str


class RowProblem(DataError):
    """What is wrong inside one row; the caller puts the row's place in front of it."""


@dataclass(frozen=True)
class Rows:
    """The rows of one source, in order.

    Attributes:
        values: The rows; each should be a dict, which nobody has checked yet.
        source: File path, hub id, or "<list>" and the like.
        lines: For text files, the 1-based line each row starts on.
    """

    values: list[Any]
    source: str
    lines: list[int] | None = None

    def where(self, index: int) -> str:
        """The place of row `index` (from 0) in words: `data.json, record 3 (line 12)`."""
        line = f" (line {self.lines[index]})" if self.lines else ""
        return f"{self.source}, record {index + 1}{line}"


class RowReader:
    """Reads rows as records.

    Args:
        columns: Our field -> the source's key, for rows with other keys than Alpaca's. Fields left out keep their name.

    Raises:
        ConfigError: A field on our side is unknown, or two fields read the same key.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        if columns is not None and not isinstance(columns, Mapping):
            raise ConfigError(f"columns: {columns!r} is no mapping; write {{our field: your key}}.")
        self._mapped = dict(columns or {})
        _check_columns(self._mapped)
        self._keys: dict[str, str] = {field: self._mapped.get(field, field) for field in FIELDS}
        self._input_key: str | None = self._keys["input"]
        if "input" not in self._mapped and self._input_key in self._mapped.values():
            self._input_key = None  # their "input" is our instruction or output: there is no third text
        self._input_seen = False

    def read(self, row: object) -> Record:
        """The record a row holds; its output may be blank, which the caller counts.

        Raises:
            RowProblem: A key is missing or misspelt, a value is no string or cannot be encoded, or a ShareGPT row
                holds anything but one exchange.
        """
        if not isinstance(row, dict):
            raise RowProblem(
                f"this is {reprlib.repr(row)}, a {type(row).__name__}, not an object; "
                "a record is an object with the keys 'instruction', 'input' (may be absent) and 'output'."
            )
        if not self._mapped and "instruction" not in row:
            for key in TURN_KEYS:
                if key in row:
                    return _read_exchange(row, key)
        instruction = _text(self._value(row, "instruction"), self._keys["instruction"])
        output = _text(self._value(row, "output"), self._keys["output"])
        return Record(instruction, _text(self._input(row), self._input_key or "input"), output)

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
                f"Keys of this record: {list_keys(names)}."
            )
        advice = f"Rename the key, or pass columns={{{field!r}: <its name here>}}."
        if "instances" in row:
            advice = (
                "These are Self-Instruct seed tasks, which keep input and output in a list, 'instances': write one "
                "object with 'instruction', 'input' and 'output' for every instance."
            )
        raise RowProblem(
            f"the key {key!r} is missing.{did_you_mean(key, names)} Keys of this record: {list_keys(names)}. {advice}"
        )

    def _input(self, row: dict[str, Any]) -> Any:
        if self._input_key is None:
            return None
        if self._input_key in row:
            self._input_seen = True
            return row[self._input_key]
        if "input" not in self._mapped:
            typo = _misspelt_input(tuple(map(str, row)))
            if typo:
                raise RowProblem(
                    f"there is no key 'input', but there is {typo!r}. Did you mean 'input'? Rename it, "
                    f"pass columns={{'input': {typo!r}}}, or remove it if it is something else."
                )
        return None


def list_keys(names: Iterable[object]) -> str:
    """Key names for a message, shortened: `'question', 'answer'`."""
    shown = [reprlib.repr(str(name)) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") if shown else "none"


def wrapping(value: Mapping[Any, Any]) -> str:
    """How to unwrap an object that holds all the rows, or "" when it is a row itself.

    Example:
        >>> wrapping({"data": [{"instruction": "Hi", "output": "Hello"}]})[:40]
        "the records are inside the key 'data'; s"
    """
    if "instruction" in value and isinstance(value["instruction"], str):
        return ""
    if any(_is_list_of(value.get(key), dict) for key in TURN_KEYS):
        return ""
    for key, inner in value.items():
        if _is_list_of(inner, dict) or (isinstance(inner, list) and len(value) == 1 and key not in FIELDS):
            return f"the records are inside the key {str(key)!r}; save or pass that list itself: rows = data[{key!r}]."
    if value and all(isinstance(inner, list) for inner in value.values()):
        return (
            "this is a dict of lists (one list a column); turn it into a list of records: "
            "rows = [dict(zip(data, values)) for values in zip(*data.values())]."
        )
    if value and all(isinstance(inner, dict) for inner in value.values()):
        return (
            "this is a dict of dicts, not a list of records; "
            "from pandas, write it with df.to_json(path, orient='records')."
        )
    return ""


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], kind)


def _check_columns(columns: Mapping[str, object]) -> None:
    problems = []
    for field, key in columns.items():
        if field not in FIELDS:
            problems.append(
                f"columns: {field!r} is no field of a record.{did_you_mean(str(field), FIELDS)} "
                "Write columns={our field: your key}; our fields are 'instruction', 'input' and 'output'."
            )
        elif not isinstance(key, str):
            problems.append(f"columns: {field!r} is mapped to {key!r}, a {type(key).__name__}; name a key of the data.")
    read = {field: columns.get(field, field) for field in FIELDS if field in columns or field != "input"}
    same = [field for field, key in read.items() if list(read.values()).count(key) > 1]
    if same:
        problems.append(f"columns: {list_keys(same)} all read the key {read[same[0]]!r}; map each to its own.")
    if problems:
        raise ConfigError(problems)


@lru_cache(maxsize=1024)
def _misspelt_input(names: tuple[str, ...]) -> str:
    near = [name for name in names if difflib.SequenceMatcher(None, name.lower(), "input").ratio() >= 0.8]
    return near[0] if near else ""


def _text(value: object, key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowProblem(
            f"{key!r} is {reprlib.repr(value)} ({type(value).__name__}), not a string; "
            "write it as text, and a missing value as null or an empty string."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem(
            f"{key!r} holds the lone surrogate \\u{ord(value[error.start]):04x} at character {error.start + 1}: half "
            "of a character, which no tokenizer can encode. Replace it, or write both halves (as in \\ud83d\\ude00)."
        ) from None
    return value


def _read_exchange(row: dict[str, Any], key: str) -> Record:
    turns = row[key]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowProblem(
            f"{key!r} is {reprlib.repr(turns)}; it should be a list of turns, each with 'from' and 'value'."
        )
    spoken: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, 1):
        role_key, text_key = ("role", "content") if "role" in turn else ("from", "value")
        role = turn.get(role_key)
        if role not in _ROLES:
            raise RowProblem(f"{key!r}: turn {number} is from {role!r}; known are {list_keys(_ROLES)}.")
        if text_key not in turn:
            raise RowProblem(f"{key!r}: turn {number} has no {text_key!r}; its keys are {list_keys(turn)}.")
        spoken.append((_ROLES[role], _text(turn[text_key], f"{key}[{number - 1}].{text_key}")))
    roles = [role for role, _ in spoken]
    if "system" in roles or row.get("system"):
        raise RowProblem(
            "this conversation has a system turn, and a record has no place for one; "
            "move its text into the human turn, or remove it."
        )
    if roles != ["human", "gpt"]:
        raise RowProblem(
            f"this conversation has {len(roles)} turns ({', '.join(roles) or 'none'}); a record is a single exchange, "
            "one human turn and then one gpt turn. Split it into one record an exchange, or keep the first exchange."
        )
    return Record(spoken[0][1], "", spoken[1][1])
