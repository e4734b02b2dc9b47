"""Tables to rows: CSV text and Parquet files.

CSV cells are strings and stay strings (no type is guessed); an empty cell is "". Parquet keeps the types it was
written with, and a column that is not text is refused later, record by record.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from alpaca_lora.data.rows import Rows, list_keys
from alpaca_lora.errors import DataError, MissingDependencyError

_MAX_CELL_CHARACTERS = 2**31 - 1  # the most that csv takes on every platform; its default is 131,072


def read_csv(text: str, source: str) -> Rows:
    """The rows of comma-separated text whose first line names the columns.

    Args:
        text: The whole file, decoded, line ends untouched.
        source: Its name, for messages.

    Returns:
        A dict of strings a row; blank lines are skipped.

    Raises:
        DataError: A quote is not closed, a row has more or fewer cells than the header, or a column is named twice.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    values: list[dict[str, str]] = []
    lines: list[int] = []
    header: list[str] = []
    line = 1
    limit_before = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        for cells in reader:
            if not cells:
                pass
            elif not header:
                header = cells
                _check_header(header, source)
            elif len(cells) != len(header):
                raise DataError(
                    f"{source}, line {line}: {len(cells)} cells, but the header names {len(header)} columns "
                    f"({list_keys(header)}). Put text that holds a comma in double quotes."
                )
            else:
                values.append(dict(zip(header, cells, strict=True)))
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{source}, line {line}: {error}. This row starts on line {line}; close its quotes, and write a quote "
            'inside a cell twice (""). If the file was cut short, write it again.'
        ) from None
    finally:
        csv.field_size_limit(limit_before)
    return Rows(values, source, lines)


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
    other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
    if other:
        raise DataError(f"{source}: columns are separated by {other!r}. Save the file with commas between columns.")
