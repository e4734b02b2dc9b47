"""A folder to write in, found to be one before a model is loaded or anything is paid for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import ConfigError


def make_folder(folder: Path, file: Path | None = None) -> None:
    """Make a folder, and those above it, where it is not there yet, and see that it can be written in.

    Args:
        folder: The folder.
        file: What was named instead, where that was a file, and the folder goes by its name.

    Raises:
        ConfigError: it cannot be made or written in; what was named and the reason are told.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or error
        raise ConfigError(
            f"{file or folder}: cannot be written: {reason}. Name another {'file' if file else 'folder'}."
        ) from error
