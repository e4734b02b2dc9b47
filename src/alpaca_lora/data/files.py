"""Files written whole or not at all, and the hashes that tell whether they still are what was written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..textfiles import read_json_file as read_json_file


def write_atomically(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file whole or not at all, and have it on the disk before returning; `errors` as for `open`."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", errors=errors, newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


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
