"""Commands that messages end with: each reads a stranger's file and writes its records to a new one."""

from __future__ import annotations

import re
from pathlib import Path

from .compressed import is_compressed
from .rows import path_of


def python_command(code: str, source: str) -> str:
    """The shell command that runs a line of Python, in which FILE and OUT stand for a source and a new file."""
    file, out = _names(source)
    if is_compressed(path_of(source)):
        opened = r"io.TextIOWrapper(pyarrow.input_stream(FILE), \1)"
        code = "import io, pyarrow; " + re.sub(r"open\(FILE, (encoding='[\w-]+')\)", opened, code)
    code = re.sub(r"\b(FILE|OUT)\b", lambda word: quoted(file if word[0] == "FILE" else out), code)
    return f'python -c "{code}"'


def write_records(expression: str, source: str) -> str:
    """The command that writes what a Python expression makes of a source's `rows`.

    For rows that no file holds, the expression itself, as an assignment.
    """
    if source.startswith("<"):
        return f"rows = {expression}"
    file, out = _names(source)
    modules = "import json; from alpaca_lora.data.sources import open_source"
    made = f"rows = open_source({quoted(file)}).values; json.dump({expression}, open({quoted(out)}, 'w'))"
    return f'python -c "{modules}; {made}"'


def quoted(text: str) -> str:
    """A name as Python code inside a command in double quotes: what a shell or Python would read is escaped.

    Example:
        >>> print(quoted("$my.json"))
        '\\x24my.json'
    """
    return "'" + re.sub(r"[\\'\"$`]", lambda one: f"\\x{ord(one[0]):02x}", text) + "'"


def new_file(path: Path, suffix: str) -> str:
    """The name of a file to write beside `path`, or here if `path` has no folder."""
    return (path if path.parent.is_dir() else Path(path.name)).with_name(f"{path.stem}{suffix}").as_posix()


def _names(source: str) -> tuple[str, str]:
    path = path_of("FILE" if " + " in source else source)  # several sources are written one at a time
    return path.as_posix(), new_file(path, ".records.json")
