"""Files written whole or not at all, and the hashes that tell whether they still are what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file whole or not at all, and have it on the disk before returning; `errors` as for `open`."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", errors=errors, newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # a full disk, Ctrl-C: nothing half written stays
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def no_room(error: BaseException) -> str:
    """Why something could not be written, where that is a lack of room; "" for any other error.

    Python, torch, sqlite and the libraries written in Rust each raise their own kind.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    told = re.search(
        r"(no space left|file too large|disk quota exceeded|disk is full)[^\n]*", str(error), re.IGNORECASE
    )
    return told[0] if told else ""


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of_file(path: Path) -> str:
    """Hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(content: Any) -> str:
    """Hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
