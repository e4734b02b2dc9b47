"""Text to rows: JSON arrays and JSON Lines are read with the place of every row.

Which of the two a file is shows in its first character, never in its name. The standard decoder does the parsing,
one element at a time, so 52,000 records (44 MB) take half a second; what it would let pass (duplicate keys, NaN) or
type for itself (nothing here: a date in quotes stays a string) is decided in this file.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from ...errors import DataError
from .containers import unwrapping
from .json_advice import advice, foreign_lines, rewrite, unique_keys
from .rows import Rows

_LONG_NUMBER = re.compile(r"\d{1000,}")
_SPACE = re.compile(r"[ \t\n\r]*")
_ONE_VALUE = "Keep one array, or one object per line; pass joined files themselves, as a list or a pattern."


def read_json(text: str, source: str) -> Rows:
    """The rows of a JSON array or of JSON Lines.

    Args:
        text: The whole file, decoded.
        source: Its name, for messages.

    Returns:
        Every row with the line it starts on.

    Raises:
        DataError: The text is not JSON or stops early (with line and column), repeats a key, holds NaN or Infinity,
            or wraps its rows in an object.

    Example:
        >>> read_json('[{"output": "a"},\\n {"output": "b"}]', "x.json").lines
        [1, 2]
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")  # line ends of old Macs; inside a string JSON writes \\r
    start = _skip_space(text, 0)
    try:
        return _read_array(text, start, source) if text.startswith("[", start) else _read_lines(text, start, source)
    except DataError:
        if problem := foreign_lines(text, source):
            raise DataError(problem) from None
        raise


def _read_array(text: str, start: int, source: str) -> Rows:
    rows: list[Any] = []
    lines: list[int] = []
    line, counted = 1, 0
    at = _skip_space(text, start + 1)
    closed = text.startswith("]", at)
    while not closed:
        line, counted = line + text.count("\n", counted, at), at
        row, end = _parse(text, at, source, len(rows) + 1, line)
        rows.append(row)
        lines.append(line)
        at = _skip_space(text, end)
        if text.startswith(",", at):
            at = _skip_space(text, at + 1)
            if text.startswith("]", at):
                _stop(text, at, source, "a comma stands before the closing ']'. " + rewrite(text, source, "surplus"))
        elif text.startswith("]", at):
            closed = True
        elif at == len(text):
            _stop(text, at, source, f"the array is not closed after record {len(rows)}. " + _cut_short("record"))
        else:
            _stop(text, at, source, f"expected ',' or ']' after record {len(rows)}, found {text[at]!r}. Correct it.")
    rest = _skip_space(text, at + 1)
    if rest < len(text):
        _stop(text, rest, source, f"text follows the closing ']'. {_ONE_VALUE}")
    return Rows(rows, source, lines)


def _read_lines(text: str, start: int, source: str) -> Rows:
    stripped = text.rstrip(" \t\n\r")
    end_of_first = text.find("\n", start)
    first_line = text[start : end_of_first if end_of_first >= 0 else len(text)]
    if not _is_json(first_line):
        # One object over several lines, or a broken first line: read from its start, so that positions are right.
        row, end = _parse(text, start, source, 1, text.count("\n", 0, start) + 1)
        rest = _skip_space(text, end)
        if rest < len(text):
            _stop(text, rest, source, f"expected one JSON object per line (JSON Lines) or one array. {_ONE_VALUE}")
        return Rows([_single(row, source)], source, [text.count("\n", 0, start) + 1])
    rows: list[Any] = []
    lines: list[int] = []
    at, number = 0, 0
    while at < len(stripped):
        number += 1
        newline = text.find("\n", at)
        stop = newline if newline >= 0 else len(text)
        content = text[at:stop]
        if content.strip():
            row, end = _parse(content, _skip_space(content, 0), source, len(rows) + 1, number, stop >= len(stripped))
            if content[end:].strip():
                end = _skip_space(content, end)
                how = _ONE_VALUE if content[end] in "[{" else "Remove it, or start a new line."
                raise DataError(
                    f"{source}, line {number}, column {end + 1}: {content[end]!r} follows the object; JSON Lines holds "
                    f"one object per line and nothing between lines. {how}"
                )
            rows.append(row)
            lines.append(number)
        at = stop + 1
    if len(rows) == 1:
        _single(rows[0], source)
    return Rows(rows, source, lines)


def _parse(text: str, at: int, source: str, record: int, line: int, last: bool = True) -> tuple[Any, int]:
    """The JSON value at `at`, and where it ends. `text` is the whole file, or line number `line` of it."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        error_line = line + text.count("\n", at, error.pos)
        cut = last and (error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()))
        what_to_do = _cut_short("line or record") if cut else advice(text, error, source)
        raise DataError(
            f"{source}, line {error_line}, column {error.colno}: {error.msg} (in record {record}). {what_to_do}"
        ) from None
    except RecursionError:
        problem = "the value is nested too deep. A record is a flat object; remove the nesting."
    except ValueError as error:
        problem = str(error) + (rewrite(text, source, "nan") if " is not JSON" in str(error) else "")
        if digits := _LONG_NUMBER.search(text, at) if "int_max_str_digits" in problem else None:
            line += text.count("\n", at, digits.start())
            problem = (
                f"a number of {len(digits[0]):,} digits is too long to be read. Put it in quotes, or remove its key."
            )
    raise DataError(f"{source}, record {record} (line {line}): {problem}")


def _single(row: Any, source: str) -> Any:
    if isinstance(row, dict) and (problem := unwrapping(row, source)):
        raise DataError(f"{source}: {problem}")
    return row


def _is_json(text: str) -> bool:
    """Whether `text` begins with a whole JSON value; what is wrong with the value is said later."""
    try:
        json.JSONDecoder().raw_decode(text)
    except RecursionError:
        return True
    except ValueError as error:
        return not isinstance(error, json.JSONDecodeError)
    return True


def _stop(text: str, at: int, source: str, problem: str) -> NoReturn:
    line = text.count("\n", 0, at) + 1
    raise DataError(f"{source}, line {line}, column {at - text.rfind(chr(10), 0, at)}: {problem}")


def _cut_short(what: str) -> str:
    return f"The file seems to be cut short: write or download it again, or remove the unfinished {what}."


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _no_constant(name: str) -> NoReturn:
    raise ValueError(
        f"{name} is not JSON. Write null for a missing value; pandas does: df.to_json(path, orient='records'). "
    )


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=_no_constant)
