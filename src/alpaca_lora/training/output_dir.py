"""A run's folder: kept to one run at a time, checked for what is in it, and made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..config import FinetuneConfig
from ..errors import AdapterError, ConfigError
from ..models.distributed import processes
from ..runs.identity import check_settings, settings_of
from ..runs.run_file import RUN_FILE, RunFile


@contextmanager
def output_dir_locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder while this one goes on.

    The system lets go of the lock when its process ends, however it ends; the empty file `.lock` may stay. A folder
    that was made here and is still empty at the end goes again.

    Raises:
        ConfigError: another run works in the folder, or it cannot be made or written.
    """
    if not processes().is_main_process:
        yield
        return
    if os.path.exists(folder) and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; name a folder.")
    lock, made = FileLock(folder / ".lock", blocking=False), not os.path.exists(folder)
    locked_before = os.path.exists(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"output_dir: another run is at work in {folder}. Wait until it ends, stop it, or name a new folder."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: it holds a NUL
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"output_dir: cannot write to {folder}: {reason}. Name another folder.") from error
    try:
        yield
    finally:
        empty = [entry.name for entry in folder.iterdir()] == [".lock"]
        if empty or not (locked_before or (folder / RUN_FILE).exists()):  # what was refused leaves nothing
            (folder / ".lock").unlink()  # before it is released: whoever waits for it would lock a file that is gone
            if made:
                with suppress(OSError):
                    folder.rmdir()
        lock.release()


def check_output_dir(config: FinetuneConfig) -> RunFile | None:
    """The folder's run file if the run continues, else None; makes nothing.

    Raises:
        ConfigError: it is a file, holds something else, or `resume` finds another run.
    """
    folder = Path(config.output_dir)
    if os.path.exists(folder) and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; name a folder.")
    run_file = folder / RUN_FILE
    holds = [entry.name for entry in folder.iterdir() if entry.name[0] != "."] if folder.exists() else []
    before = None
    if config.resume and run_file.exists():
        before = _read_run(folder)
        check_settings(settings_of(before.config), settings_of(config))
    elif config.resume is True:
        raise ConfigError(f"resume: {folder} holds no run. Start it without resume, or with resume=auto.")
    elif holds and processes().is_main_process:
        if not run_file.exists():
            advice = f"is not empty ({', '.join(sorted(holds)[:3])}). Name a new folder."
        else:
            advice = "holds another run. Name a new folder, or continue that run with --resume auto (resume='auto')."
        raise ConfigError(f"output_dir: {folder} {advice}")
    return before


def make_output_dir(config: FinetuneConfig) -> Path:
    """The run's folder, made where it is missing; ConfigError where it cannot be written.

    Comes after the checks of the settings alone. What is refused later leaves no folder behind, either:
    `output_dir_locked` removes one that is still empty.
    """
    folder = Path(config.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f"output_dir: cannot write to {folder}: {error.strerror}.") from error
    return folder


def _read_run(folder: Path) -> RunFile:
    try:
        found = RunFile.read(folder)
    except AdapterError as error:
        raise ConfigError(f"resume: {error} Or start the run anew, in a new output_dir.") from error
    if found is None or found.finished is None or found.data is None:
        raise ConfigError(f"resume: {folder / RUN_FILE} is not a run's. Start the run in a new output_dir.")
    return found
