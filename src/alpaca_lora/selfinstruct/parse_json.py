"""Candidates written as JSON: a list, an object that holds one, an object a line, or what is left of them after a cut.

Every object is decoded by itself, so that one that is broken or cut off costs no other. Time is linear in the text:
once many objects were broken, each is decoded only up to where the next item starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..data.records import FIELDS, Record
from .candidates import NAMES, Candidate, without_placeholder

_FIELD_OF = {name: field for field, names in NAMES.items() for name in names}
_ITEM = re.compile(r"\{\s*\"[^\"\n]{1,40}\"\s*:\s*(?![\s\[{])")  # its first value is no list and no object
_OBJECT = re.compile(r"\{(?=\s*[\"}])")
_MAX_BROKEN = 50
_DECODER = json.JSONDecoder(strict=False)  # takes a bare line end inside a string, which models often write


def read_objects(text: str, truncated: bool) -> Iterator[Candidate]:
    """The items of `text`, in order; `truncated` tells that the model had to stop."""
    broken, position, decoded = 0, _next(_OBJECT, text, 0), text
    while position >= 0:
        if broken >= _MAX_BROKEN:
            if (position := _next(_ITEM, text, position)) < 0:
                return
            following = _next(_ITEM, text, position + 1)
            decoded = text[position : following if following >= 0 else len(text)]
        start = position if decoded is text else 0
        try:
            value, length = _DECODER.raw_decode(decoded, start)
        except (ValueError, RecursionError):
            broken += 1
            if not _ITEM.match(text, position):
                position = _next(_OBJECT, text, position + 1)  # something around the items
                continue
            following = _next(_ITEM, text, position + 1)
            end = following if following >= 0 else len(text)
            raw = text[position:end].strip()
            yield Candidate(raw, None, whole=following >= 0 or not (truncated or raw[-1] not in "}]`"))
        else:
            end = position + length - start
            fields = {_field(key) for key in value}
            if fields == {None} or not fields:
                position = _next(_OBJECT, text, position + 1)
                continue
            yield Candidate(text[position:end], _record(value), whole=True)
        position = _next(_OBJECT, text, end)


def _next(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.search(text, position)
    return found.start() if found else -1


def _field(key: str) -> str | None:
    return _FIELD_OF.get(key.strip().lower().replace("_", " "))


def _record(value: dict[str, Any]) -> Record | None:
    """The record of an object, or None if a field is neither a text nor a number."""
    texts = dict.fromkeys(FIELDS, "")
    for key, text in value.items():
        field = _field(key)
        if field is None or text is None or texts[field]:
            continue
        if isinstance(text, (int, float)):
            text = json.dumps(text)
        if not isinstance(text, str):
            return None
        texts[field] = text.strip()
    return Record(texts["instruction"], without_placeholder(texts["input"]), texts["output"])
