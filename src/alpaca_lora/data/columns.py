"""Columns: which of a source's keys is which field of a record.

A mapping is `{our field: their key}`. `{their key: None}` leaves a key out on purpose, so that nothing is said of it.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..errors import ConfigError, a, did_you_mean
from .key_names import BETTER_WORSE, CALLED, plain
from .record import FIELDS, PAIR_FIELDS

TURN_KEYS = ("conversations", "messages")

Columns = Mapping[str, str | None]


def suggest(keys: Iterable[object], given: Columns | None = None, slips: bool = True) -> dict[str, str | None]:
    """The `columns` that read these keys, as far as their names tell.

    Args:
        keys: The keys of a row.
        given: Columns that stay as they are.
        slips: Take misspelt names, too.

    Example:
        >>> suggest(["instruction", "context", "response", "category"])
        {'input': 'context', 'output': 'response'}
    """
    found = dict(given or {})
    names = {plain(str(key)): str(key) for key in keys if str(key).strip() and str(key) not in found}
    fixed = {field: found.get(field) or field for field in FIELDS if found.get(field) or field in names.values()}
    taken = {*fixed.values()}
    for field in ("output", "instruction", "input"):
        if field not in fixed and field not in found:
            likely = (field, misspelt(field, tuple(names)) if slips else field, *CALLED[field])
            others = taken - {"input"} if field == "instruction" and "input" not in found else taken
            key = next((names[name] for name in likely if name in names and names[name] not in others), None)
            if key is not None:
                found[field] = key
                taken.add(key)
    order = sorted(found, key=lambda name: FIELDS.index(name) if name in FIELDS else len(FIELDS))
    return {name: found[name] for name in order}


def suggest_pair(keys: Iterable[object], given: Columns | None = None) -> dict[str, str | None]:
    """The `columns` that read two answers and what both answer.

    Example:
        >>> suggest_pair(["question", "better", "worse"])
        {'instruction': 'question', 'chosen': 'better', 'rejected': 'worse'}
    """
    names = {plain(str(key)): str(key) for key in keys}
    pair = next(((names[one], names[two]) for one, two in BETTER_WORSE if one in names and two in names), None)
    asked = suggest([key for key in names.values() if key not in (pair or ())], given)
    found = {field: key for field, key in asked.items() if field != "output" and key != "prompt"}
    answers = dict(zip(("chosen", "rejected"), pair or (), strict=False))
    return {**found, **{field: key for field, key in answers.items() if key != field and field not in found}}


def names_record(keys: Iterable[object]) -> bool:
    """Whether keys name an instruction and an output, or a conversation, under our names or usual ones."""
    names = [*keys]
    return any(key in names for key in TURN_KEYS) or {"instruction", "output"} <= {*names, *suggest(names)}


def question_columns(row: Mapping[str, Any]) -> dict[str, str | None]:
    """The `columns` that read what a row asks, be it a record or a question under another name; {} as it is.

    Example:
        >>> question_columns({"question": "Why?", "context": "Because."})
        {'instruction': 'question', 'input': 'context'}
    """
    if any(key in row for key in TURN_KEYS) and "instruction" not in row:
        return {}
    found = suggest([key for key in row if str(key).casefold() not in CALLED["output"]], slips=False)
    if "instruction" not in row and "instruction" not in found and "text" in row:
        found["instruction"] = "text"
    return found


def fields_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that columns are for: a record's, or a preference's if they read one of its answers."""
    return PAIR_FIELDS if any(columns.get(field) is not None for field in PAIR_FIELDS[2:]) else FIELDS


def check_columns(columns: Mapping[str, Any], fields: Sequence[str] = FIELDS) -> None:
    """Raise ConfigError with all that is wrong with a mapping to these fields by itself."""
    problems = []
    named = " and ".join([", ".join(map(repr, fields[:-1])), repr(fields[-1])])
    for field, key in columns.items():
        if key is None and (field == "input" or field not in fields):
            continue
        if field not in fields:
            other = field in (*FIELDS, *PAIR_FIELDS)
            what = "a preference" if fields == PAIR_FIELDS else "a record"
            near = did_you_mean(str(field), fields)
            if other:
                near = " It is one for objective=sft." if field in FIELDS else " It is one for objective=dpo or orpo."
            problems.append(
                f"columns: {field!r} is no field of {what}.{near} "
                f"Write columns={{our field: your key}}; our fields are {named}."
            )
        elif key is None:
            problems.append(f"columns: {field!r} cannot be left out; name the key that holds it.")
        elif not isinstance(key, str):
            problems.append(
                f"columns: {field!r} is mapped to {key!r}, {a(type(key).__name__)}; name a key of the data."
            )
    read = {field: columns.get(field, field) for field in fields if field in columns or field != "input"}
    keys = [key for key in read.values() if key is not None]
    same = [field for field, key in read.items() if key is not None and keys.count(key) > 1]
    if same:
        problems.append(f"columns: {list_keys(same)} all read the key {read[same[0]]!r}; map each to its own.")
    problems += [
        f"columns: {key!r} is both read and left out (None); keep one." for key in keys if columns.get(key, "") is None
    ]
    if problems:
        raise ConfigError(problems)


@lru_cache(maxsize=1024)
def misspelt(field: str, names: tuple[str, ...]) -> str:
    """The name among these that is a field's except for a slip, or ""; `output_1` is no slip."""
    near = [
        name
        for name in names
        if difflib.SequenceMatcher(None, name.lower().strip(), field).ratio() >= 0.8 and not any(map(str.isdigit, name))
    ]
    return near[0] if near else ""


def list_keys(names: Iterable[object]) -> str:
    """Key names for a message, shortened: `'question', 'answer'`."""
    shown = [reprlib.repr(str(name)) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") if shown else "none"
