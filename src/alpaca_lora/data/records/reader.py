"""A row to a record: by Alpaca's keys, its turns, its tree of replies, or the keys that a `columns` mapping names.

    {"instruction": "Add.", "input": "2, 3", "output": "5"}                               Alpaca
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}   ShareGPT
    {"question": "Hi", "answer": "Hello"}           with columns={"instruction": "question", "output": "answer"}

What the other keys of a row hold is looked at in unread_keys.py.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError, a, did_you_mean
from ..columns import TURN_KEYS, Columns, check_columns, list_keys, misspelt, suggest
from ..record import FIELDS, AnyRecord, Record
from .row_problem import RowProblem, text_of
from .trees import READ as TREE_KEYS
from .trees import read_tree, tree_of
from .turns import BESIDE, read_history, read_turns, role_of

_AROUND = (*BESIDE, "history")  # what Alpaca rows may say beside their fields


class RowReader:
    """Reads rows as records; preferences.py as preferences.

    Args:
        columns: Our field -> the source's key, for rows with other keys than Alpaca's. Fields left out keep their name;
            a key of the source -> None leaves it out on purpose.

    Raises:
        ConfigError: A field on our side is unknown, or two fields read the same key.
    """

    fields: tuple[str, ...] = FIELDS

    def __init__(self, columns: Columns | None = None) -> None:
        if columns is not None and not isinstance(columns, Mapping):
            raise ConfigError(f"columns: {columns!r} is no mapping; write {{our field: your key}}.")
        self.columns: dict[str, str | None] = dict(columns or {})
        check_columns(self.columns, self.fields)
        self.left_out = frozenset(key for key, value in self.columns.items() if value is None)
        self._mapped = {field: key for field, key in self.columns.items() if key is not None}
        self._keys: dict[str, str] = {field: self._mapped.get(field, field) for field in self.fields}
        self._input_key: str | None = self._keys["input"]
        if "input" not in self._mapped and self._input_key in {*self._mapped.values(), *self.left_out}:
            self._input_key = None  # their "input" is our instruction or output: there is no third text
        self._read = frozenset(filter(None, ({**self._keys, "input": self._input_key}.values())))
        self._input_seen = False
        self.unlearned: Counter[str] = Counter()
        """Answers of trees that are not learned, by reason."""
        self.unanswered = 0
        """Conversations that end in turns that nobody answers."""
        self.repeated = 0
        """Preferences of which both answers begin with the prompt."""

    def read(self, row: object) -> AnyRecord:
        """The record a row holds; its output may be blank, which the caller counts.

        Raises:
            RowProblem: A key is missing or misspelt, a value is no string or cannot be encoded, or turns are no
                conversation in which the assistant answers.
        """
        if not isinstance(row, dict):
            names = " and ".join(map(repr, (field for field in self.fields if field != "input")))
            raise RowProblem(
                f"this is {reprlib.repr(row)}, {a(type(row).__name__)}, not an object; "
                f"a record is an object with the keys {names}, and maybe 'input'.",
                f"this is {a(type(row).__name__)}, not an object",
            )
        return self._read_row(row)

    def _read_row(self, row: dict[str, Any]) -> AnyRecord:
        if self._is_tree(row):
            return read_tree(row, self.unlearned)
        if turns := self.turns_key(row):
            found = read_turns(row, turns, self.left_out)
            self.unanswered += role_of(row[turns][-1]) in ("user", "tool")
            return found
        instruction = text_of(self._value(row, "instruction"), self._keys["instruction"])
        output = text_of(self._value(row, "output"), self._keys["output"])
        record = Record(instruction, text_of(self._input(row), self._input_key or "input"), output)
        return record if row.keys().isdisjoint(_AROUND) else read_history(row, record, self.left_out | self._read)

    def turns_key(self, row: Mapping[str, Any]) -> str:
        """The key whose turns are read, or "" if the row is read by its fields."""
        if self._mapped or "instruction" in row:
            return ""
        return next((key for key in TURN_KEYS if key in row), "")

    def _is_tree(self, row: Mapping[str, Any]) -> bool:
        return not self._mapped and "instruction" not in row and tree_of(row) is not None

    def keys_read(self, row: Mapping[str, Any]) -> frozenset[str]:
        """The keys of a row that `read` uses."""
        if self._is_tree(row):
            return frozenset(TREE_KEYS)
        turns = self.turns_key(row)
        return frozenset([turns, *BESIDE]) if turns else self._read | {*_AROUND}

    def missing_column(self) -> str:
        """The mapped input key if no row read so far had it (an absent input is "", a typo is not), else ""."""
        return "" if self._input_seen or "input" not in self._mapped else self._mapped["input"]

    def _value(self, row: Mapping[str, Any], field: str) -> Any:
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
        found = self._suggest(names)
        advice = f"Rename the key, or pass columns={found if field in found else f'{{{field!r}: <its name here>}}'}."
        near = f" Did you mean {found[field]!r}?" if misspelt(field, (str(found.get(field, "")),)) else ""
        raise RowProblem(
            f"the key {key!r} is missing.{near} Keys of this record: {list_keys(names)}. {advice}",
            f"the key {key!r} is missing",
        )

    def _suggest(self, names: list[str]) -> dict[str, str | None]:
        return suggest(names, self.columns)

    def _input(self, row: Mapping[str, Any]) -> Any:
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
