"""A folder to write in, found to be one before a model is loaded or anything is paid for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import ConfigError


def make_folder(folder: Path, file: Path | None = None) -> None:
    """Make a folder and its parents, and check that it can be written in.

    Args:
        folder: The folder.
        file: The file that the user named, if the folder goes by its name; for messages.

    Raises:
        ConfigError: it cannot be made or written in; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or error
        raise ConfigError(
            f"{file or folder}: cannot be written: {reason}. Name another {'file' if file else 'folder'}."
        ) from error
