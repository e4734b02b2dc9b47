"""Text and JSON files that anyone may have damaged: read whole, or refused in one sentence that names the file.

In: a path, and the error its room raises. Out: text, or what the JSON says. A pipe or a device may never end, so only
regular files are opened; a file over the limit is not read.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

AGAIN = "Copy it again from where it was made."
_LIMIT_BYTES = 1 << 28


def read_whole_file(
    path: str | Path, error: type[Exception], advice: str = AGAIN, limit_bytes: int = _LIMIT_BYTES
) -> bytes:
    """The bytes of a regular file.

    Args:
        path: The file.
        error: What to raise.
        advice: The last sentence of each message.
        limit_bytes: A larger file is refused.

    Raises:
        error: it is missing, no regular file, too large or unreadable.
    """
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise error(f"{path}: is {kind}, not a file. {advice}")
        if found.st_size > limit_bytes:
            raise error(f"{path}: has {found.st_size:,} bytes; at most {limit_bytes:,} are read. {advice}")
        return path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: is missing. {advice}") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}. {advice}") from problem


def read_text_file(
    path: str | Path, error: type[Exception], advice: str = AGAIN, limit_bytes: int = _LIMIT_BYTES
) -> str:
    """The text of a UTF-8 file, without a byte-order mark; arguments and errors are those of `read_whole_file`."""
    content = read_whole_file(path, error, advice, limit_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        found = f"byte {problem.start + 1} is 0x{problem.object[problem.start]:02x}"
        raise error(f"{path}: damaged: not UTF-8 text: {found}. {advice}") from None


def parse_json(text: str, where: str, error: type[Exception], advice: str = AGAIN) -> dict[str, Any]:
    """What a JSON object says; `where` begins the message.

    Raises:
        error: it is not JSON, no object, repeats a key, or is deeper or has longer numbers than Python takes.
    """
    try:
        content = json.loads(text, object_pairs_hook=_each_key_once)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise error(f"{where}: damaged: not JSON ({place}: {problem.msg}). {advice}") from None
    except RecursionError:
        raise error(f"{where}: damaged: nested too deep. {advice}") from None
    except ValueError as problem:
        reason = str(problem).partition(";")[0]  # Python goes on about a setting of its own
        raise error(f"{where}: damaged: {reason}. {advice}") from None
    if not isinstance(content, dict):
        raise error(f"{where}: damaged: holds a {type(content).__name__}, not an object. {advice}")
    return content


def read_json_file(
    path: str | Path, error: type[Exception], advice: str = AGAIN, limit_bytes: int = _LIMIT_BYTES
) -> dict[str, Any]:
    """The object a JSON file holds; arguments and errors are those of `read_text_file` and `parse_json`."""
    return parse_json(read_text_file(path, error, advice, limit_bytes), str(path), error, advice)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found
