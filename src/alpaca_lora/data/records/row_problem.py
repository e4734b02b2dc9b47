"""What is wrong inside a row, and its texts read so that something wrong is told."""

from __future__ import annotations

import reprlib

from ...errors import DataError, a
from ..record import BLANK, Record, is_blank, is_missing


class RowProblem(DataError):
    """What is wrong inside one row; the caller puts the row's place in front of it.

    Attributes:
        kind: The same words for all rows that have this wrong, whatever their texts.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or message


def text_of(value: object, key: str) -> str:
    """A value as a text that can be encoded; a missing one is ""."""
    if not isinstance(value, str):
        if is_missing(value):
            return ""
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


def check_asked(record: Record) -> None:
    """Raise RowProblem if nothing is asked."""
    if is_blank(record.instruction) and is_blank(record.input):
        raise RowProblem(BLANK, "instruction and input are both blank")
