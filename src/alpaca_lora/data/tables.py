"""Tables to rows: CSV text (commas, semicolons, tabs or bars between columns) and Parquet files.

CSV cells are strings and stay strings (no type is guessed); an empty cell is "". Parquet keeps the types it was
written with, and a column that is not text is refused later, record by record.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from ..errors import DataError, MissingDependencyError, counted
from .columns import suggest
from .nearly_json import CONFLICT
from .rows import FIELDS, Rows, list_keys

_MAX_CELL_CHARACTERS = 2**31 - 1  # the most that csv takes on every platform; its default is 131,072

_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_LONGEST_NAME = 80  # characters of a column's name; more is a text
_HEAD_CHARACTERS = 1 << 20  # among which the header is looked for
_FIRST_LINES = 5  # among which it may stand below a title
_MOST_DOUBTS = 100  # cells that are looked for in the whole text
_CONFLICT = re.compile(r"<{7} |={7}$|>{7} ")
_NO_CELL = re.compile(r":?[-=_]{2,}:?")  # a line drawn below names
_TYPE = re.compile(
    r"(string|str|text|utf8|object|n?varchar|char|int(eger)?(32|64)?|float(32|64)?|double|bool(ean)?)(\(\d+\))?", re.I
)
_SHOWN = 8


def read_csv(text: str, source: str) -> Rows:
    """The rows of text whose first line names the columns.

    Columns are separated by commas; by semicolons, tabs or bars where those make several names of a header in which
    commas make one; or by what an Excel line such as `sep=;` before the header says. Lines end in LF, CRLF or CR. Where
    spaces follow the marks in the header, or stand before quotes, spaces after marks belong to no cell. Empty columns,
    cells and rows at the end are dropped.

    Args:
        text: The whole file, decoded, line ends untouched.
        source: Its name, for messages.

    Returns:
        A dict of strings a row; blank lines are skipped.

    Raises:
        DataError: A quote is not closed, rows have more or fewer cells than the header, a column is named twice, the
            header stands again in the rows, a line or types stand below it, or the first line is a record or a title.
    """
    limit_before = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        said = re.match(r"sep=(.)(?:\r\n?|\n)", text)
        if said:
            return _Table(text, source, said[1], said.end()).rows()
        _check_title(text, source)
        return _Table(text, source, _mark_between(text, source)).rows()
    finally:
        csv.field_size_limit(limit_before)


def csv_header(text: str, source: str) -> list[str]:
    """The names in the first line, where they are those of a question and its answer, else []."""
    names = _first_row(text, _mark_between(text, source))
    return names if _names_fields(names) else []


class _Table:
    """One reading of CSV text; `spaced` says that spaces after marks belong to no cell."""

    def __init__(self, text: str, source: str, mark: str, start: int = 0, spaced: bool = False) -> None:
        self._text, self._source, self._mark, self._start, self._spaced = text, source, mark, start, spaced
        self._header: list[str] = []
        self._wrong: list[tuple[int, list[str]]] = []
        self._doubts = _MOST_DOUBTS

    def rows(self) -> Rows:
        stream = io.StringIO(self._text, newline="")
        stream.seek(self._start)
        reader = csv.reader(stream, delimiter=self._mark, strict=True, skipinitialspace=self._spaced)
        values: list[dict[str, str]] = []
        lines: list[int] = []
        before = 1 if self._start else 0
        line = before + 1
        try:
            for cells in reader:
                if not self._spaced and self._has_spaces(cells):
                    return _Table(self._text, self._source, self._mark, self._start, spaced=True).rows()
                if not cells:
                    pass
                elif not self._header:
                    self._header = _names(cells)
                    _check_header(self._header, self._source)
                    _check_names(self._header, self._source, line)
                else:
                    while len(cells) > len(self._header) and not cells[-1]:
                        cells.pop()
                    if len(cells) != len(self._header):
                        self._wrong.append((line, cells))
                    elif cells[-1].strip() == self._header[-1] and _names(cells) == self._header and len(cells) > 1:
                        raise DataError(
                            f"{self._source}, line {line}: the header stands here again, so files were put together. "
                            "Remove this line, or pass the files themselves, as a list or a pattern."
                        )
                    else:
                        if not values:
                            _check_first(cells, self._source, line)
                        values.append(dict(zip(self._header, cells, strict=True)))
                        lines.append(line)
                line = before + reader.line_num + 1
        except csv.Error as error:
            if not self._wrong:
                raise DataError(self._cannot_be_read(error, line)) from None
        if self._wrong:
            raise DataError(self._wrong_counts())
        while values and not any(values[-1].values()):
            values.pop()
            lines.pop()
        return Rows(values, self._source, lines)

    def _has_spaces(self, cells: list[str]) -> bool:
        """Whether a space follows each mark of the header, or stands before a cell's quote."""
        if not self._header and len(cells) > 1:
            return all(cell.startswith(" ") for cell in cells[1:])
        begin = [cell for cell in cells if cell[:1] == " " and cell.lstrip(" ")[:1] == '"'] if self._doubts > 0 else []
        self._doubts -= len(begin)
        # A cell that holds such a text, and is quoted as it should be, `" ""so"""`, looks otherwise in the file.
        return any(f"{self._mark}{cell}" in self._text for cell in begin)

    def _cannot_be_read(self, error: csv.Error, line: int) -> str:
        if "NUL" in str(error):  # Python 3.10; later versions read it
            return f"{self._source}, line {line}: a zero byte stands in this row. Remove it."
        return (
            f"{self._source}, line {line}: {error}. This row starts on line {line}; close its quotes, and write a "
            'quote inside a cell twice (""). If the file was cut short, write it again.'
        )

    def _wrong_counts(self) -> str:
        line, cells = self._wrong[0]
        if marker := next((at for at, row in self._wrong if _CONFLICT.match(row[0])), 0):
            return f"{self._source}, line {marker}: {CONFLICT}"
        where = f"{self._source}, line {line}: {counted(len(cells), 'cell')}"
        columns = f"{counted(len(self._header), 'column')} ({list_keys(self._header)})"
        shown = ", ".join(str(at) for at, _ in self._wrong[:_SHOWN]) + (", ..." if len(self._wrong) > _SHOWN else "")
        all_of_them = f" So it is with {len(self._wrong):,} rows, on lines {shown}." if len(self._wrong) > 1 else ""
        mark = _NAMES.get(self._mark, repr(self._mark))
        how = (
            f"Put text that holds {mark} in double quotes."
            if len(cells) > len(self._header)
            else f"Write every cell, an empty one as nothing between {mark} and the next."
        )
        return f"{where}, but the header names {columns}.{all_of_them} {how}"


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


def _names_fields(names: list[str]) -> bool:
    return {"instruction", "output"} <= {*suggest(names), *names}


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
