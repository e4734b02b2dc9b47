"""Tables to rows: CSV text (commas, semicolons, tabs or bars between columns) and Parquet files.

CSV cells are strings and stay strings (no type is guessed); an empty cell is "". Parquet keeps the types it was
written with, and a column that is not text is refused later, record by record.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from alpaca_lora.data.rows import FIELDS, Rows, list_keys
from alpaca_lora.errors import DataError, MissingDependencyError

_MAX_CELL_CHARACTERS = 2**31 - 1  # the most that csv takes on every platform; its default is 131,072

_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_LONGEST_NAME = 80  # characters of a column's name; more is a text


def read_csv(text: str, source: str) -> Rows:
    """The rows of text whose first line names the columns.

    Columns are separated by commas; by semicolons, tabs or bars where those make several names of a header in which
    commas make one; or by what an Excel line such as `sep=;` before the header says. Empty columns, cells and rows
    at the end are dropped.

    Args:
        text: The whole file, decoded, line ends untouched.
        source: Its name, for messages.

    Returns:
        A dict of strings a row; blank lines are skipped.

    Raises:
        DataError: A quote is not closed, a row has more or fewer cells than the header, a column is named twice, or the
            first line is a record.
    """
    said = re.match(r"sep=(.)\r?\n", text)
    mark = said[1] if said else _mark_between(text, source)
    stream = io.StringIO(text, newline="")
    stream.seek(said.end() if said else 0)
    reader = csv.reader(stream, delimiter=mark, strict=True)
    values: list[dict[str, str]] = []
    lines: list[int] = []
    header: list[str] = []
    before = line = 1 if said else 0
    line += 1
    limit_before = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        for cells in reader:
            if not cells:
                pass
            elif not header:
                header = _without_empty_end(cells)
                _check_header(header, source)
                _check_names(header, source, line)
            else:
                while len(cells) > len(header) and not cells[-1]:
                    cells.pop()
                if len(cells) != len(header):
                    raise DataError(
                        f"{source}, line {line}: {len(cells)} cells, but the header names {len(header)} columns "
                        f"({list_keys(header)}). Put text that holds {_NAMES.get(mark, repr(mark))} in double quotes."
                    )
                values.append(dict(zip(header, cells, strict=True)))
                lines.append(line)
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{source}, line {line}: {error}. This row starts on line {line}; close its quotes, and write a quote "
            'inside a cell twice (""). If the file was cut short, write it again.'
        ) from None
    finally:
        csv.field_size_limit(limit_before)
    while values and not any(values[-1].values()):
        values.pop()
        lines.pop()
    return Rows(values, source, lines)


def _mark_between(text: str, source: str) -> str:
    """The mark between columns: commas, unless they make one name of the header and another mark makes several."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    marks = "\t,;|" if source.lower().endswith(".tsv") else ",;\t|"
    return next((mark for mark in marks if len(_without_empty_end(next(csv.reader([first], delimiter=mark)))) > 1), ",")


def _without_empty_end(cells: list[str]) -> list[str]:
    return cells[: max((place for place, cell in enumerate(cells, 1) if cell), default=0)]


def _check_names(names: list[str], source: str, line: int) -> None:
    text = next((name for name in names if len(name) > _LONGEST_NAME or re.search(r"\s\S+\s\S+[.!?]$|\n", name)), None)
    if text is not None and not set(names) & set(FIELDS):
        raise DataError(
            f"{source}, line {line}: this line should name the columns, but holds a text: {text[:40]!r}. "
            "Put a line with their names above it, such as instruction,input,output"
        )


def read_parquet(path: Path, source: str) -> Rows:
    """The rows of one Parquet file.

    Raises:
        DataError: The file is damaged, or names a column twice.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(f"{source}: reading Parquet needs pyarrow. Run: pip install pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read()
        _check_header(table.column_names, source)
        return Rows(table.to_pylist(), source)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: this Parquet file cannot be read: {error}. Write or download it again.") from error


def _check_header(names: list[str], source: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source}: the column {twice!r} stands more than once. Rename or remove one of them.")
