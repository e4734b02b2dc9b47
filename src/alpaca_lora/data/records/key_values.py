"""Values of keys that nobody reads: whether they hold text of their own, or what the record says already.

Enter any value and the record of its row; leave yes or no. Nesting of any depth is walked without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..record import Record, is_missing

_MIN_BYTES = 60
_MIN_INSTRUCTION = 12


def is_filled(value: Any) -> bool:
    """Whether a value holds anything: no blank text, no empty list, and nothing that stands for none."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null", "None")
    if isinstance(value, (list, tuple, dict)):
        return len(value) > 0
    return not is_missing(value)


def is_longer(value: Any, record: Record) -> bool:
    """Whether a list of turns has more than a record has, with texts of its own."""
    turns = value if isinstance(value, (list, tuple)) else ()
    told = [{**turn, "role": "", "from": ""} if isinstance(turn, dict) else turn for turn in turns]
    spoken = [turn for turn in told if any(text.strip() for text in texts_in(turn))]
    return len(spoken) > 2 and not all_stand(spoken, record)


def all_stand(value: Any, texts: Sequence[str]) -> bool:
    """Whether each text of a value stands in one of these, inside no longer word of ASCII, and it has some."""
    whole = "\n".join(texts)
    found = [one for text in texts_in(value) if (one := text.strip())]
    own = r"(?a:(?<!\w){}(?!\w))"
    return bool(found) and all(one in whole and re.search(own.format(re.escape(one)), whole) for one in found)


def is_long(text: str) -> bool:
    """Whether a text has 60 bytes of UTF-8 or more, with a space or a letter beyond ASCII."""
    return len(text.encode("utf-8", "replace")) >= _MIN_BYTES and (" " in text.strip() or not text.isascii())


def repeats(text: str, record: Record) -> bool:
    """Whether a text is one of the record's, or the record rendered into a prompt, with its answer or without."""
    instruction, given, output = map(str.strip, record)
    if instruction and len(text) > len(instruction) >= _MIN_INSTRUCTION:  # the usual case first
        return (instruction in text and given in text) or text.strip() in (given, output)
    own = text.strip()
    if own in (instruction, given, output) or (len(own) >= _MIN_INSTRUCTION and (own in instruction or own in given)):
        return True
    if not instruction or instruction not in text or given not in text:
        return False
    return len(instruction) >= _MIN_INSTRUCTION or output in text


def texts_in(value: Any) -> Iterator[str]:
    """The texts inside a value, in order, however deep they lie."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            left += reversed([*value.values()] if isinstance(value, dict) else value)
