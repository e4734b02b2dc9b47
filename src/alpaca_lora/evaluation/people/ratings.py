"""ratings.sqlite: what people said about a comparison's answers, stored at once.

    settings   name, value                       what the ratings were begun with; the secret that orders are drawn from
    raters     name, place                       in the order of their arrival, from 0; names differ in more than case
    ratings    number, item, rater, choice, shown_left, reason, seconds, time
                                                 choice is left, right, tie or skip; shown_left is a or b

A rating is one transaction, on the disk before it is confirmed (WAL, synchronous=FULL; about a millisecond on an SSD):
killing the process, or a loss of power, loses nothing that was confirmed. Nor does removing the file: what is written
is confirmed only while the file at that path, and its log beside it, are still those that were opened. A rater has one
rating of an item; another takes its place.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ...data.sources.votes import RATINGS
from ...errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..comparison import Comparison

NAME = RATINGS
VERSION = 1

Choice = Literal["left", "right", "tie", "skip"]
Side = Literal["a", "b"]

_SCHEMA = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE raters (name TEXT PRIMARY KEY COLLATE NOCASE, place INTEGER NOT NULL UNIQUE)",
    """CREATE TABLE ratings (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        item TEXT NOT NULL,
        rater TEXT NOT NULL REFERENCES raters (name),
        choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'skip')),
        shown_left TEXT NOT NULL CHECK (shown_left IN ('a', 'b')),
        reason TEXT NOT NULL,
        seconds REAL NOT NULL,
        time REAL NOT NULL,
        UNIQUE (rater, item)
    )""",
    f"PRAGMA user_version = {VERSION}",
)
COLUMNS = "item, rater, choice, shown_left, reason, seconds"


class NotStoredError(DataError):
    """A rating is not in the file, because it is gone, full, or cannot be written."""


class Rater(NamedTuple):
    """Who rates, and their place in the order of arrival, from 0."""

    name: str
    place: int


class Rating(NamedTuple):
    """What a rater chose between the two answers to an item, which was on the left, and the time it took."""

    item: str
    rater: str
    choice: Choice
    shown_left: Side
    reason: str
    seconds: float


class Ratings:
    """The ratings of a comparison, open for writing; a context manager. Threads may share it, and processes the file.

    Args:
        comparison: What is rated; the file is in its folder, and made there if it is not yet.
        settings: Who is given which items; the file is opened with the same ones ever after.

    Raises:
        ConfigError: The ratings were begun with other settings; all that differ are named.
        DataError: The file is damaged, or holds ratings of other answers.
    """

    def __init__(self, comparison: Comparison, settings: dict[str, Any] | None = None) -> None:
        path = Path(comparison.folder) / NAME
        self._lock = threading.Lock()
        begun = {"comparison": comparison.fingerprint, **(settings or {})}
        try:
            # Without an isolation level each statement is a transaction.
            self._file = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise DataError(f"{path}: cannot be opened ({error}). Name a folder that can be written.") from None
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._file.execute(f"PRAGMA {pragma}")
            stored = _begin(self._file, begun)
            check_comparison(path, stored, comparison)
            _check_settings(path, stored, begun)
            self._path, self._opened = path, _identities(path)
        except sqlite3.Error as error:
            self._file.close()
            raise damaged(path, error) from None
        except BaseException:
            self._file.close()
            raise
        self.secret = bytes.fromhex(stored["secret"])

    def __enter__(self) -> Ratings:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """All is stored already; this only tidies up."""
        with self._lock:
            self._file.close()

    def join(self, name: str) -> Rater:
        """The rater of that name, in any case; one who is new gets the next place."""
        find = "SELECT name, place FROM raters WHERE name = ?"
        found = self._do(find, name)
        if not found:
            self._do(
                "INSERT INTO raters SELECT ?, coalesce(max(place) + 1, 0) FROM raters WHERE true "
                "ON CONFLICT (name) DO NOTHING",
                name,
            )
            found = self._do(find, name)
        return Rater(*found[0])

    def add(self, rating: Rating) -> None:
        """Store a rating, in place of an earlier one of the same item by the same rater; it is on the disk on return.

        Raises:
            NotStoredError: It is not.
        """
        self._do(f"REPLACE INTO ratings ({COLUMNS}, time) VALUES (?, ?, ?, ?, ?, ?, ?)", *rating, time.time())

    def undo(self, item: str, rater: str) -> Rating | None:
        """Take a rating back, and return it; None if there is none."""
        with self._stored(), self._file:
            self._file.execute("BEGIN IMMEDIATE")
            own = "FROM ratings WHERE item = ? AND rater = ?"
            found = self._file.execute(f"SELECT {COLUMNS} {own}", (item, rater)).fetchone()
            self._file.execute(f"DELETE {own}", (item, rater))
        return None if found is None else Rating(*found)

    def of(self, rater: str) -> dict[str, Rating]:
        """Item -> that rater's rating; the last one given stands last."""
        found = self._do(f"SELECT {COLUMNS} FROM ratings WHERE rater = ? ORDER BY number", rater)
        return {row[0]: Rating(*row) for row in found}

    def _do(self, statement: str, *values: Any) -> list[Any]:
        with self._stored():
            return self._file.execute(statement, values).fetchall()

    @contextmanager
    def _stored(self) -> Iterator[None]:
        """One statement at a time; what it wrote is at the file's path on leaving, or it is an error."""
        with self._lock:
            try:
                yield
            except sqlite3.IntegrityError:  # a fault of the caller's, not of the file
                raise
            except sqlite3.Error as error:
                problem = f"cannot be written or read ({error}). Make room, or make it writable again."
                raise NotStoredError(f"{self._path}: {problem}") from error
            if _identities(self._path) != self._opened:
                raise NotStoredError(
                    f"{self._path}: was removed, moved or replaced while it was open, so no vote is stored. Put it "
                    "back with the files beside it, or end the page and start it again."
                )


def _identities(path: Path) -> list[tuple[int, int] | None]:
    """Device and number of the file and of its log, where votes are until the file is closed; None for one gone."""
    found: list[tuple[int, int] | None] = []
    for name in (path, f"{path}-wal"):
        try:
            status = os.stat(name)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found


def _begin(file: sqlite3.Connection, begun: dict[str, Any]) -> dict[str, str]:
    """The settings stored; a new file gets `begun` and a secret."""
    with file:
        file.execute("BEGIN IMMEDIATE")
        if file.execute("PRAGMA user_version").fetchone() == (0,):
            for statement in _SCHEMA:
                file.execute(statement)
            rows = [("secret", secrets.token_hex(32)), *((name, json.dumps(value)) for name, value in begun.items())]
            file.executemany("INSERT INTO settings VALUES (?, ?)", rows)
        return dict(file.execute("SELECT name, value FROM settings"))


def check_comparison(path: Path, stored: dict[str, str], comparison: Comparison) -> None:
    """Raise DataError if the ratings are of other answers."""
    if stored.get("comparison") != json.dumps(comparison.fingerprint):
        raise DataError(f"{path}: holds ratings of other answers than this comparison's. Rate in another folder.")


def _check_settings(path: Path, stored: dict[str, str], begun: dict[str, Any]) -> None:
    before = {name: json.loads(value) for name, value in stored.items() if name != "secret"}
    names = [name for name in {**before, **begun} if before.get(name) != begun.get(name)]
    if names:
        raise ConfigError(
            [
                f"{name}: the ratings in {path} were begun with {before.get(name)!r}, not {begun.get(name)!r}. Give "
                "that again, or rate in another folder."
                for name in names
            ]
        )


def damaged(path: Path, error: sqlite3.Error) -> DataError:
    """What is said of a file that SQLite cannot read."""
    return DataError(f"{path}: cannot be read as ratings ({error}). Restore it from a copy, or rate in another folder.")
