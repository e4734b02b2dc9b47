"""Values that clients write in several forms: what is read of them, and in one sentence why they cannot be read.

Problems name the value and, in a list, its place: `-1 at [1] must be a token id, a whole number from 0`.
"""

from __future__ import annotations

import json
from typing import Any

from ..generation.logprobs import MAX_TOP

Prompt = str | list[int]
"""A text, or its token ids."""
COUNT = f"a number from 0 to {MAX_TOP}"
"""Of how many of the likeliest tokens to tell."""


def short(value: Any) -> str:
    """A value as JSON, in at most 80 characters."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def counted(value: Any) -> str:
    """A number of likeliest tokens where it may be sent as it is, else what may be sent.

    Example:
        >>> counted(3), counted(True)
        ('3', 'a number from 0 to 20')
    """
    return str(value) if type(value) is int and 0 <= value <= MAX_TOP else COUNT


def read_count(value: Any) -> int:
    """A number of likeliest tokens.

    Raises:
        ValueError: it is none.
    """
    if counted(value) == COUNT:
        raise ValueError(f"{short(value)} must be {COUNT}")
    return int(value)


def read_stop(value: Any) -> str | list[str]:
    """A text or several that end an answer.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, str | list):
        raise ValueError(f"{short(value)} must be a text, or a list of texts")
    for place, text in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(text, str):
            raise ValueError(f"{short(text)} at [{place}] must be a text")
    return value


def read_prompts(value: Any) -> list[Prompt]:
    """Prompts, each a text or token ids; one may be sent by itself.

    Raises:
        ValueError: there is none, or one that is neither.
    """
    if not value or not isinstance(value, str | list):
        text = "a text" if value != "" else "a text of at least one character"
        raise ValueError(f"{short(value)} must be {text}, token ids, or a list of at least one of either")
    if isinstance(value, str):
        return [value]
    if type(value[0]) in (int, float):
        return [_read_ids(value, "")]
    for place, one in enumerate(value):
        if not isinstance(one, str | list) or one == []:
            id = "" if place or one == [] else " a token id,"
            raise ValueError(f"{short(one)} at [{place}] must be a text,{id} or a list of at least one token id")
    return [one if isinstance(one, str) else _read_ids(one, f"[{place}]") for place, one in enumerate(value)]


def _read_ids(value: list[Any], where: str) -> list[int]:
    for place, id in enumerate(value):
        if type(id) is not int or id < 0:
            raise ValueError(f"{short(id)} at {where}[{place}] must be a token id, a whole number from 0")
    return value


def read_content(value: Any) -> str | None:
    """What a message says; a list of text parts is their text.

    Raises:
        ValueError: it holds something else.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{short(value)} must be a text, or a list of parts of the type 'text'")
    for place, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise ValueError(f"part {place} is {kind!r:.80}; this server reads parts of the type 'text' only")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"part {place} has no text: {short(part)}")
    return "".join(part["text"] for part in value)
