"""Where the prompt of two answers may stand beside the key that is read as it: told, so that no prompt is lost.

{"question": "2 + 3?", "chosen": "Sure, 5", "rejected": "Sure, 6"}      the prompt is not "Sure,"
{"instruction": "Add.", "prompt": "Subtract.", "chosen": ...}           one of the two would be dropped
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..columns import TURN_KEYS, Columns, suggest_pair
from ..key_names import CONVERSATIONS, MEANING, plain
from ..record import Preference, is_missing
from .dialogue_texts import is_dialogue, messages_of, no_prompt
from .key_rules import ANSWERS, WATCHED
from .key_values import all_stand, is_long, texts_in
from .row_problem import RowProblem

PROMPT_KEYS = ("instruction", "prompt")
"""Keys of the prompt by itself, first the one that is read if both say something."""
_MIN_WORDS = 3  # of a text that could be a prompt, whatever its key is called


def says(value: Any) -> bool:
    """Whether a value is there, and is no blank text."""
    return not is_missing(value) and not (isinstance(value, str) and not value.strip())


def without_prompt(row: Mapping[str, Any], columns: Columns, answers: tuple[str, str]) -> RowProblem | None:
    """What is wrong with a row of which no key is read as the prompt; None if no key could be it.

    Args:
        row: The row.
        columns: Our field -> the row's key.
        answers: Keys of both answers.
    """
    asked = columns.get("instruction")
    for key in (asked,) if asked else PROMPT_KEYS:
        if key in row and columns.get(key, "") is not None:
            out = "remove this row" if asked else f"take the prompt from the answers with columns={_out(columns, key)}"
            other = _elsewhere(row, columns, answers)
            if not asked and other:
                break
            return RowProblem(f"{key!r} is empty, so nothing is asked. Fill it in, or {out}.", f"{key!r} is empty")
    if not (found := _elsewhere(row, columns, answers)):
        return None
    key = str(found["instruction"])
    return RowProblem(
        f"there is no prompt, and {key!r} may be it: {reprlib.repr(row[key])}. Pass columns={found}; if it is "
        f"something else, leave it out with columns={_out(columns, key)}.",
        f"there is no prompt, and {key!r} may be it",
    )


def no_prompt_in(row: Mapping[str, Any], columns: Columns, answers: tuple[str, str]) -> RowProblem:
    """What is wrong with answers that begin with no prompt."""
    return without_prompt(row, columns, answers) or no_prompt()


def check_said_once(row: Mapping[str, Any], pair: Preference, used: str, input_key: str | None, given: Columns) -> None:
    """Raise RowProblem if a key that may hold the prompt, or a part of it, says what the pair does not.

    Args:
        row: The row.
        pair: What was read from it.
        used: The key that was read as the prompt, or "" if the answers hold it.
        input_key: The key of the input.
        given: Columns.
    """
    others = ["prompt", *TURN_KEYS, "history", *([input_key] if input_key else [])]
    others = [key for key in others if key != used and key in row and given.get(key, "") is not None]
    others = [key for key in others if says(row[key]) and row[key] not in ([], ())]
    if not others:
        return
    texts = [*pair.chosen, *pair.rejected]
    known = {_words(text) for text in (*texts, "\n\n".join([*pair.chosen][:2]))}
    for key in others:
        value = row[key]
        if all(_words(text) in known for text in _said(value)):
            continue
        if key == input_key and all_stand(value, texts):  # joined with the instruction
            continue
        part = key in ("history", input_key)
        what = f"{used!r} is read as the prompt" if used else "the answers begin with their prompt"
        instead = "Write it into the prompt" if part else f"Read it with columns={_with(given, key)}"
        raise RowProblem(
            f"{what}, and {key!r} says something else: {reprlib.repr(value)}. {instead}, or leave it out on purpose "
            f"with columns={_out(given, key)}.",
            f"{key!r} says something else than the prompt",
        )


def _said(value: Any) -> Iterator[str]:
    """The texts of a prompt: of one text, a dialogue, messages or pairs of turns; of another kind as it is written."""
    if isinstance(value, str) and is_dialogue(value):
        value = messages_of(value)
    if not isinstance(value, (str, list, tuple)):
        yield repr(value)
        return
    for turn in [value] if isinstance(value, str) else value:
        said = turn.get("content", turn.get("value")) if isinstance(turn, Mapping) else turn
        yield from (text for text in texts_in(said) if text.strip())


def _words(text: str) -> str:
    return " ".join(text.split())


def _elsewhere(row: Mapping[str, Any], columns: Columns, answers: tuple[str, str]) -> dict[str, str | None]:
    """The `columns` that read the prompt from a key that could hold it, by name or by its text; {} if none could."""
    left = {
        key: value
        for key, value in row.items()
        if isinstance(key, str)
        and key not in answers
        and columns.get(key, "") is not None
        and isinstance(value, (str, list, tuple))
    }
    left = {key: value for key, value in left.items() if any(text.strip() for text in texts_in(value))}
    found = suggest_pair(left, columns)
    if found.get("instruction") in left:
        return found
    named = columns.get("input") or found.get("input") or ""
    likely = [named, *(key for key, value in left.items() if _could_ask(plain(key), value))]
    key = next((key for key in likely if key in left), "")
    return _with(columns, key) if key else {}


def _could_ask(name: str, value: Any) -> bool:
    if name in CONVERSATIONS:
        return True
    if name in WATCHED or name in ANSWERS or name in MEANING or not isinstance(value, str):
        return False
    if name.startswith(("chosen_", "rejected_")) or name.endswith(("_chosen", "_rejected")):
        return False
    return len(value.split()) >= _MIN_WORDS or is_long(value)


def _with(columns: Columns, key: str) -> dict[str, str | None]:
    rest = {field: name for field, name in columns.items() if key not in (field, name) and field != "instruction"}
    return {"instruction": key, **rest}


def _out(columns: Columns, key: str) -> dict[str, str | None]:
    return {**{field: name for field, name in columns.items() if name != key}, key: None}
