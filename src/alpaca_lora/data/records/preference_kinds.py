"""Rows that are no preferences, by kind: what they are, and how to make preferences of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..columns import TURN_KEYS, names_record, suggest_pair
from .row_kinds import QUESTIONS, RowKind, better_and_worse, two_answers

_NEEDED = (
    "Preference training compares two answers to one prompt: give rows with 'chosen' and 'rejected', or the folder of "
    "a comparison with its votes (alpaca-lora compare)"
)


def _is_renamed(row: Mapping[str, Any]) -> bool:
    return better_and_worse(row) not in (None, ("chosen", "rejected"))


def _name_columns(row: Mapping[str, Any]) -> str:
    return f"Pass columns={suggest_pair(row)}."


def _choose(row: Mapping[str, Any]) -> str:
    first, second = two_answers(row) or ("", "")
    return f"Write the better of {first!r} and {second!r} as 'chosen', and the other one as 'rejected'."


def _answers_once(row: Mapping[str, Any]) -> bool:
    return any(key in row for key in TURN_KEYS) or names_record(row)


_RENAMED = RowKind("preference pairs under other names", _name_columns, _is_renamed)
_KINDS = (
    RowKind("annotations of AlpacaEval: two models' outputs and which of them was preferred", "Write them as pairs",
            lambda row: all(key in row for key in ("output_1", "output_2", "preference")),
            "[{'instruction': row['instruction'], 'chosen': row['output_%d' % row['preference']], "
            "'rejected': row['output_%d' % (3 - row['preference'])]} for row in rows if row['preference'] in (1, 2)]"),
    RowKind("answers marked good or bad ('prompt', 'completion', 'label')",
            f"{_NEEDED}. A good and a bad answer to the same prompt make such a row.",
            lambda row: all(key in row for key in ("prompt", "completion", "label"))),
    RowKind("instructions with several rated answers to each ('completions')",
            "Write its best answer as 'chosen' and another one as 'rejected'.",
            lambda row: isinstance(row.get("completions"), list)),
    RowKind("two answers to each prompt, without saying which is the better one", _choose,
            lambda row: two_answers(row) is not None),
    RowKind("records with one answer each", f"{_NEEDED}. To learn the answers as they are, leave objective at sft.",
            _answers_once),
    RowKind("prompts without answers", f"{_NEEDED}. To have models answer: alpaca-lora answer MODEL FILE OUT.json.",
            QUESTIONS.matches),
)  # fmt: skip


def no_preference(row: object) -> RowKind | None:
    """The kind of a row that is no preference, if it has one."""
    if not isinstance(row, Mapping):
        return None
    if _RENAMED.matches(row):
        return _RENAMED
    return None if {"chosen", "rejected"} & {*row} else next((kind for kind in _KINDS if kind.matches(row)), None)
