"""Mending what needs no judgement: white space, `<noinput>`, outputs that are none, exact duplicates.

A new file is written, in Alpaca's keys, other keys kept, and a JSON report beside it; mending it again changes nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DataError
from ...files import write_atomically
from ..record import Record
from ..records.reader import RowReader
from .texts import is_no_input, trimmed

_SUFFIXES = {".json", ".jsonl"}


def mend(record: Record) -> Record:
    """The record with its texts trimmed and an input that says that there is none left empty.

    Example:
        >>> mend(Record("Name a cat. ", "<noinput>", "Felix\\n"))
        Record(instruction='Name a cat.', input='', output='Felix')
    """
    instruction, given, output = map(trimmed, record)
    return Record(instruction, "" if is_no_input(given) else given, output)


def check_out(out: Path) -> Path:
    """The path of the report beside `out`, if both may be written.

    Raises:
        ConfigError: `out` is neither JSON nor JSON Lines by its name, is there already or cannot be written.
    """
    report = out.with_name(f"{out.stem}.lint.json")
    if out.suffix.lower() not in _SUFFIXES:
        raise ConfigError(
            f"fix: {out} is no name of a data file; end it in .json (an array) or .jsonl (one record per line)."
        )
    for path in (out, report):
        if path.exists():
            raise ConfigError(
                f"fix: {path} is there already, and nothing is overwritten. Name a new file, or remove it."
            )
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"fix: {out.parent} is no folder. Create it, or name another file.")
    try:
        tempfile.TemporaryFile(dir=out.absolute().parent).close()
    except OSError as error:
        raise ConfigError(f"fix: {out}: cannot be written: {error.strerror or error}. Name another file.") from error
    return report


def write_rows(rows: Iterable[Any], out: Path) -> None:
    """Write rows as a JSON array, or one per line if the name ends in .jsonl.

    Raises:
        DataError: A value of another key than a record's is not JSON (NaN, say), or nested too deep.
    """
    lines = []
    for number, row in enumerate(rows, 1):
        try:
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False, default=str))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{out}: record {number} holds a value that JSON has not ({error}). Remove that column first."
            ) from error
    if out.suffix.lower() == ".jsonl":
        text = "".join(f"{line}\n" for line in lines)
    else:
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    write_atomically(out, text, errors="backslashreplace")


def mended_row(row: Any, record: Record, reader: RowReader) -> dict[str, Any]:
    """A source's row with a record's texts: Alpaca's keys first, then the keys that are not its texts."""
    taken = {*Record._fields, *reader.keys_read(row), *reader.left_out}
    return {**record._asdict(), **{key: value for key, value in row.items() if key not in taken}}
