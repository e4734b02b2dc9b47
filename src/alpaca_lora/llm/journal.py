"""journal.jsonl: everything that a job sent, paid for and decided; one JSON object per line, only appended to.

Self-instruct, answers and verdicts each keep one. A process that dies loses nothing that is in it: the next one reads
it and continues. journal_state.py lists the lines. 52,000 accepted records are some 4,000 requests and 30 MB, read in
about a second; their texts stay compressed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from ..errors import ConfigError, DataError
from ..files import explained, locked, sync_folder, write_atomically
from ..textfiles import parse_json, read_whole_file
from .journal_state import State
from .output_folder import make_folder

NAME = "journal.jsonl"
VERSION = 1
MAKE_ROOM = "Make room; the same command goes on from here."
_HASHED = {
    "instructions": "the file of instructions",
    "seeds": "the file of seeds",
    "weights": "the file of the adapter's weights",
    "contract": "the adapter's contract",
    "comparison": "the comparison",
    "prompt": "the judge's prompt",
}
"""Settings that are hashes, and of what."""


def read_journal(folder: str | Path) -> State:
    """What the journal in a folder says, whether or not a run is writing it; a last line without an end is left out.

    Raises:
        DataError: there is none, or it is damaged; the line is named.
    """
    path = Path(folder) / NAME
    if not path.exists():
        raise DataError(f"{folder}: holds no {NAME}. `alpaca-lora self-instruct run {folder}` writes one.")
    state, _ = _read(path)
    return state


class Journal:
    """A journal open for writing, by this process alone; a context manager.

    Args:
        folder: Made if it is not there.
        settings: What requests are made from. They replace those of a run that has not asked anything yet.
        filters: How records are judged; likewise.
        file: The file that the user named, if the folder goes by its name; for messages.

    Raises:
        ConfigError: the folder cannot be written, another process writes in it, or its run has other settings; all
            that differ are named.
        DataError: the journal is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        filters: Mapping[str, Any],
        file: Path | None = None,
    ) -> None:
        self.path = Path(folder) / NAME
        self.named_file = file
        self.lock = lock(Path(folder), file)
        try:
            self.file, self.state = self._open(dict(settings), dict(filters))
        except BaseException:
            self.lock.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *error: Any) -> None:
        told = suppress(DataError) if kind else nullcontext()  # of a full disk
        with self.lock, told, explained(self.path, MAKE_ROOM), self.file:
            os.fsync(self.file.fileno())

    def append(self, kind: str, **fields: Any) -> None:
        """Write a line. It outlives this process at once, and a loss of power from the next `sync` on.

        Raises:
            DataError: it cannot be written; what there is of it is cut off by the next process.
        """
        line = timed(kind, **fields)
        with explained(self.path, MAKE_ROOM):
            self.file.write(_text(line))
            self.file.flush()
        self.state.take(line)

    def sync(self) -> None:
        """Have what was written on the disk before returning."""
        with explained(self.path, MAKE_ROOM):
            os.fsync(self.file.fileno())

    def _open(self, settings: dict[str, Any], filters: dict[str, Any]) -> tuple[IO[str], State]:
        state, whole = _read(self.path) if self.path.exists() else (State(), 0)
        before = (state.head.get("settings"), state.head.get("filters"))
        if not state.begun and before != (settings, filters):
            head = {"line": "run", "version": VERSION, "settings": settings, "filters": filters, "time": time.time()}
            with explained(self.path, MAKE_ROOM):
                write_atomically(self.path, _text(head))
            state, whole = _read(self.path)
        _check(self.path.parent, state.head, settings, filters, "file" if self.named_file else "folder")
        size = self.path.stat().st_size
        file = self.path.open("a", encoding="utf-8")
        if torn := size - whole:
            file.truncate(whole)
            self.file, self.state = file, state
            self.append("torn", bytes=torn)
        sync_folder(self.path.parent)
        return file, state


def read_lines(folder: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a folder's journal, and a `torn` line if a dead process left a part of another."""
    path = Path(folder) / NAME
    lines, whole = _lines(path)
    if torn := path.stat().st_size - whole:
        lines.append(timed("torn", bytes=torn))
    return lines


def replace_lines(folder: str | Path, lines: Iterable[Mapping[str, Any]]) -> State:
    """Write a journal anew, whole or not at all; the caller holds the lock."""
    path = Path(folder) / NAME
    with explained(path, MAKE_ROOM):
        write_atomically(path, "".join(map(_text, lines)))
    return read_journal(folder)


def timed(kind: str, **fields: Any) -> dict[str, Any]:
    """A line of this moment."""
    return {"line": kind, **fields, "time": round(time.time(), 3)}


def lock(folder: Path, file: Path | None = None) -> IO[bytes]:
    """Keep other processes from writing in a folder until the file returned is closed, or this process ends.

    Args:
        folder: Made if it is not there.
        file: As for `Journal`.
    """
    make_folder(folder, file)
    try:
        return locked(folder / ".lock")
    except BlockingIOError:
        other = "file" if file else "folder"
        raise ConfigError(
            f"{folder}: another process is writing in it. Wait for it, or give another {other}."
        ) from None


def _read(path: Path) -> tuple[State, int]:
    """The state, and how many bytes its whole lines take."""
    lines, whole = _lines(path)
    state = State()
    for number, line in enumerate(lines, start=1):
        try:
            state.take(line)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a line of a journal ({error!r}).") from None
    if not state.head:
        raise DataError(f"{path}: has lost its first line. Restore it from a copy, or name a new folder.")
    if state.head.get("version") != VERSION:
        raise DataError(f"{path}, line 1: version {state.head.get('version')!r}; this library reads {VERSION}.")
    return state, whole


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    content = read_whole_file(path, DataError)
    whole = content.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(content[:whole].splitlines(), start=1):
        try:
            line = parse_json(text.decode("utf-8"), "", DataError)
            line["line"]
        except (ValueError, KeyError):
            raise DataError(
                f"{path}, line {number}: damaged. Requests from there on are sent again if that line and all after it "
                "are removed; keep a copy."
            ) from None
        lines.append(line)
    return lines, whole


def _check(
    folder: Path, head: Mapping[str, Any], settings: Mapping[str, Any], filters: Mapping[str, Any], other: str
) -> None:
    """Raise ConfigError naming every setting that has changed; `other` is what else can be named."""
    problems = [
        f"{name}: {_HASHED[name]} has changed since the run in {folder} began, or is another one. Give that again, or "
        f"another {other}."
        if name in _HASHED and before and now
        else f"{name}: the run in {folder} has {before!r}, not {now!r}; a run is continued with its own settings only. "
        f"Give them again, or another {other}."
        for name, before, now in _differing(head["settings"], settings)
    ]
    problems += [
        f"{name}: the run in {folder} has {before!r}, not {now!r}. Give that again, or judge all answers anew first: "
        f"alpaca-lora self-instruct refilter {folder} --{name} {now}"
        for name, before, now in _differing(head["filters"], filters)
    ]
    if problems:
        raise ConfigError(problems)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = [*before, *(name for name in now if name not in before)]
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"
