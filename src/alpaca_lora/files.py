"""Files and folders written whole or not at all, and the hashes that tell whether they still are what was written."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from .errors import DataError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a file system says that takes no more: it is full, a quota is used up, a file is too large for it."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_LOCK = ".lock"
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_HALF_MADE: set[tuple[int, Path]] = set()
"""What is to be removed when this process is told to end: its number, and the file or folder."""


def write_atomically(path: Path, content: str | bytes, errors: str = "strict") -> None:
    """Write a file whole or not at all, and have it on the disk before returning; `errors` as for `open`.

    Several processes may write one file at once: each writes all of it, and the last one's stays.
    """
    written = content.encode("utf-8", errors) if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.part")
    with locked(part, wait=True) as file, _half_made(part):
        try:
            file.truncate(0)  # what a killed process left
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def unfinished(out: Path, wait: bool = False) -> Iterator[Path]:
    """A place beside `out`, of this process alone, to make it in; what is still there at the end is removed.

        parent/.OUT.unfinished/.lock    held by the process that makes OUT
                               OUT      the place: a file or a folder to make, and to move to parent/OUT

    A process that is killed leaves it; the next one that makes the same `out` removes it, and says so.

    Args:
        out: What is to be made; its parent is there.
        wait: Wait for another process that makes the same.

    Raises:
        BlockingIOError: another process makes the same.
        OSError: nothing can be written there.
    """
    folder = out.with_name(f".{out.name}.unfinished")
    lock = _lock_in(folder, wait)
    with _half_made(folder):
        try:
            if left := _entries(folder):
                files = [path for path in folder.rglob("*") if path.is_file()]
                size = sum(path.stat().st_size for path in files) / 1e9
                warnings.warn(f"{folder}: a process that was killed left {size:.3f} GB there; removed.", stacklevel=4)
                _remove(left)
            yield folder / out.name
        finally:
            _remove(_entries(folder))
            (folder / _LOCK).unlink(missing_ok=True)
            lock.close()
            with suppress(OSError):  # another process has taken it already
                folder.rmdir()


@contextmanager
def explained(path: Path, advice: str) -> Iterator[None]:
    """Raise DataError, with the file's name and `advice`, where it cannot be written: a full disk, say."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}. {advice}") from error


def locked(path: Path, wait: bool = False) -> IO[bytes]:
    """Open a file to append to it, and keep it from other processes until it is closed, or this process ends.

    Where a file system knows no locks, it is only opened, with a warning.

    Raises:
        BlockingIOError: another process has it, and `wait` is not set.
    """
    while True:
        file = path.open("ab")
        try:
            _lock(file, path, wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # who had it has moved or removed it


def _lock(file: IO[bytes], path: Path, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{path.parent}: its file system knows no locks. Let only one process at a time write there.", stacklevel=4
        )


@contextmanager
def _half_made(path: Path) -> Iterator[None]:
    """While it is entered, SIGTERM and SIGHUP remove `path` before they end the process.

    Raising an exception instead would not do: C code that it passes through makes another one of it, or none. Who
    handles a signal already goes on doing so. Only the main thread may set handlers.
    """
    own, entry = threading.current_thread() is threading.main_thread(), (os.getpid(), path)
    numbers = [number for number in _ENDING if own and signal.getsignal(number) == signal.SIG_DFL]
    _HALF_MADE.add(entry)
    for number in numbers:
        signal.signal(number, _remove_and_end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        _HALF_MADE.discard(entry)


def _remove_and_end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one does what it always did
    own = [path for pid, path in list(_HALF_MADE) if pid == os.getpid()]  # not those of the process that forked it
    _remove(own)
    os.kill(os.getpid(), number)


def _lock_in(folder: Path, wait: bool) -> IO[bytes]:
    """The lock of a folder, which is made; who had it may remove the folder in between."""
    while True:
        with suppress(FileExistsError):  # not by exist_ok, which raises where the folder goes at that moment
            folder.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            return locked(folder / _LOCK, wait)


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != _LOCK]


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def no_room(error: BaseException) -> str:
    """Why something could not be written, where that is a lack of room; "" for any other error.

    Python, torch, sqlite and the libraries written in Rust each raise their own kind.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    told = re.search(
        r"(no space left|file too large|disk quota exceeded|disk is full|iostream error)[^\n]*",
        str(error),
        re.IGNORECASE,
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
