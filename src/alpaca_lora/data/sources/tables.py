"""Tables to rows: CSV text (commas, semicolons, tabs or bars between columns) and Parquet files.

CSV cells are strings and stay strings (no type is guessed); an empty cell is "". Parquet keeps the types it was
written with, and a column that is not text is refused later, record by record.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from ...errors import DataError, counted
from ..columns import list_keys, names_record
from ..record import FIELDS
from .json_advice import CONFLICT
from .rows import Rows

_MAX_CELL_CHARACTERS = 2**31 - 1  # the maximum of csv on every platform; its default is 131,072

_MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_LONGEST_NAME = 80  # characters of a column's name; more is a text
_HEAD_CHARACTERS = 1 << 20  # among which the header is looked for
_FIRST_LINES = 5  # among which it may stand below a title
_CONFLICT = re.compile(r"<{7} |={7}$|>{7} ")
_NO_CELL = re.compile(r":?[-=_]{2,}:?")  # a line drawn below names
_TYPE = re.compile(
    r"(string|str|text|utf8|object|n?varchar|char|int(eger)?(32|64)?|float(32|64)?|double|bool(ean)?)(\(\d+\))?", re.I
)
_SHOWN = 8


def read_csv(text: str, source: str) -> Rows:
    """The rows of text whose first line names the columns.

    Columns are separated by commas; by semicolons, tabs or bars if those make several names of a header in which
    commas make one; or by what an Excel line such as `sep=;` before the header says. Lines end in LF, CRLF or CR. If
    spaces follow the marks in the header, or stand before quotes, spaces after marks belong to no cell. Empty columns,
    cells and rows at the end are dropped.

    Args:
        text: The whole file, decoded, line ends untouched.
        source: Its name, for messages.

    Returns:
        A dict of strings for each row; blank lines are skipped.

    Raises:
        DataError: A quote is not closed, rows have more or fewer cells than the header, a column is named twice, the
            header stands again in the rows, a line or types stand below it, or the first line is a record or a title.
    """
    limit_before = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        if said := re.match(r"sep=(.)(?:\r\n?|\n)", text):
            return _read(text[said.end() :], source, said[1], skipped=1)
        _check_title(text, source)
        return _read(text, source, _mark_between(text, source), skipped=0)
    finally:
        csv.field_size_limit(limit_before)


def csv_header(text: str, source: str) -> list[str]:
    """The names in the first line, if they are those of a question and its answer, else []."""
    names = _first_row(text, _mark_between(text, source))
    return names if names_record(names) else []


def _read(text: str, source: str, mark: str, skipped: int) -> Rows:
    """The rows of text after so many skipped lines."""
    spaced = _has_spaces(text, mark)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True, skipinitialspace=spaced)
    header: list[str] = []
    values: list[dict[str, str]] = []
    lines: list[int] = []
    wrong: list[tuple[int, list[str]]] = []
    line = skipped + 1
    try:
        for cells in reader:
            if cells and not header:
                header = _names(cells)
                _check_header(header, source)
                _check_names(header, source, line)
            elif cells:
                while len(cells) > len(header) and not cells[-1]:
                    cells.pop()
                if len(cells) != len(header):
                    wrong.append((line, cells))
                elif cells[-1].strip() == header[-1] and _names(cells) == header and len(cells) > 1:
                    raise DataError(
                        f"{source}, line {line}: the header stands here again, so files were put together. Remove this "
                        "line, or pass the files themselves, as a list or a pattern."
                    )
                else:
                    if not values:
                        _check_first(cells, source, line)
                    values.append(dict(zip(header, cells, strict=True)))
                    lines.append(line)
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        if not wrong:
            raise DataError(
                f"{source}, line {line}: {error}. This row starts on line {line}; close its quotes, and write a quote "
                'inside a cell twice (""). If the file was cut short, write it again.'
                if "NUL" not in str(error)  # Python 3.10; later versions read it
                else f"{source}, line {line}: a zero byte stands in this row. Remove it."
            ) from None
    if wrong:
        raise DataError(_wrong_counts(wrong, header, source, _MARKS.get(mark, repr(mark))))
    while values and not any(values[-1].values()):
        values.pop()
        lines.pop()
    return Rows(values, source, lines)


def _wrong_counts(wrong: list[tuple[int, list[str]]], header: list[str], source: str, mark: str) -> str:
    """What to say of rows that have other numbers of cells than the header."""
    line, cells = wrong[0]
    if marker := next((at for at, row in wrong if _CONFLICT.match(row[0])), 0):
        return f"{source}, line {marker}: {CONFLICT}"
    columns = f"{counted(len(header), 'column')} ({list_keys(header)})"
    shown = ", ".join(str(at) for at, _ in wrong[:_SHOWN]) + (", ..." if len(wrong) > _SHOWN else "")
    all_of_them = f" So it is with {len(wrong):,} rows, on lines {shown}." if len(wrong) > 1 else ""
    how = f"Write every cell, an empty one as nothing between {mark} and the next."
    if len(cells) > len(header):
        how = f"Put text that holds {mark} in double quotes."
    found = f"{counted(len(cells), 'cell')}, but the header names {columns}"
    return f"{source}, line {line}: {found}.{all_of_them} {how}"


def _has_spaces(text: str, mark: str) -> bool:
    """Whether a space follows each mark of the header, or stands between a mark and a quote that opens a cell."""
    header = next(csv.reader(io.StringIO(text[:_HEAD_CHARACTERS], newline=""), delimiter=mark), [])
    if len(header) > 1 and all(cell.startswith(" ") for cell in header[1:]):
        return True
    mark = re.escape(mark)
    # Inside a quoted cell a quote is doubled, or closes the cell.
    return re.search(rf'{mark} +"(?!"|{mark}|[\r\n]|$)', text) is not None


def _mark_between(text: str, source: str) -> str:
    """The mark between columns: commas, unless they make one name of the header and another mark makes several."""
    marks = "\t,;|" if source.lower().endswith(".tsv") else ",;\t|"
    return next((mark for mark in marks if len(_first_row(text, mark)) > 1), ",")


def _first_row(text: str, mark: str) -> list[str]:
    stream = io.StringIO(text[:_HEAD_CHARACTERS], newline="")
    reader = csv.reader(stream, delimiter=mark, skipinitialspace=True)
    return _names(next(filter(None, reader), []))


def _names(cells: list[str]) -> list[str]:
    """The names that cells hold, without spaces around them, a byte-order mark, and empty ones at the end."""
    names = [cell.strip(" \ufeff") for cell in cells]
    return names[: max((place for place, name in enumerate(names, 1) if name), default=0)]


def _check_title(text: str, source: str) -> None:
    lines = re.split(r"\r\n?|\n", text[:_HEAD_CHARACTERS])
    first = next(place for place, line in enumerate(lines) if line.strip())
    below = range(first, min(first + _FIRST_LINES, len(lines)))
    header = next((place for place in below if csv_header(lines[place], source)), first)
    if header > first:
        raise DataError(
            f"{source}, line {first + 1}: {lines[first][:40]!r} does not name the columns, and line {header + 1} does. "
            "Remove what stands above that line."
        )


def _check_names(names: list[str], source: str, line: int) -> None:
    text = next((name for name in names if len(name) > _LONGEST_NAME or re.search(r"\s\S+\s\S+[.!?]$|\n", name)), None)
    if text is not None and not set(names) & set(FIELDS):
        raise DataError(
            f"{source}, line {line}: this line should name the columns, but holds a text: {text[:40]!r}. "
            "Put a line with their names above it, such as instruction,input,output"
        )


def _check_first(cells: list[str], source: str, line: int) -> None:
    filled = [cell.strip() for cell in cells if cell.strip()]
    for pattern, what in ((_NO_CELL, "a line drawn below the names"), (_TYPE, "the types of the columns")):
        if len(filled) > 1 and all(map(pattern.fullmatch, filled)):
            raise DataError(f"{source}, line {line}: this is {what} ({list_keys(filled)}), not a record. Remove it.")


def read_parquet(path: Path, source: str) -> Rows:
    """The rows of one Parquet file.

    Raises:
        DataError: The file is damaged, or names a column twice.
    """
    import pyarrow
    import pyarrow.parquet

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
