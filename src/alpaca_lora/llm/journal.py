"""journal.jsonl: everything that a job sent, paid for and decided; one JSON object per line, only appended to.

Self-instruct, answers and verdicts all keep one; `judged` lines are self-instruct's.

A process that dies loses nothing that is in it: the next one reads it and goes on.

    {"line": "run", "version": 1, "settings": {...}, "filters": {...}, "time": 1760000000.0}
        The first line. What the requests are made from, and how records are judged.
    {"line": "sent", "request": 7, "prompt_tokens": 2210, "completion_tokens": 3072, "time": 1760000000.0}
        An attempt is about to be sent; its worst case. One that neither a `refused` nor a `done` line follows had no
        answer (a timeout, a cut connection, a killed process), may have been billed, and counts at its worst.
    {"line": "refused", "request": 7, "time": 1760000000.4}
        That attempt was refused and cost nothing.
    {"line": "done", "request": 7, "text": "eNpL...", "finish_reason": "stop", "prompt_tokens": 801,
     "completion_tokens": 1702, "sent": {"max_tokens": 3072, "temperature": 1.0}, "first": 4, "cost": 0.0021,
     "seconds": 14.2, "time": 1760000014.6}
        The answer, one a request: what the model wrote (zlib, base64), the tokens the server counted, the fields it was
        sent beside the prompt (those it refused are not there), the number its list began at, its cost (null without
        prices), and the seconds it took, all attempts of the process together.
    {"line": "failed", "request": 8, "problem": "HTTP 400: ...", "time": 1760000015.0}
        The server refuses this request and answers others; it is not sent again.
    {"line": "judged", "request": 7, "parsed": 18, "accepted": [0, 1, 4], "rejected": {"similar": 15, "truncated": 1},
     "samples": [{"reason": "similar", "detail": "...", "text": "..."}], "thoughts": false, "time": 1760000015.1}
        Which of the records found in the answer were accepted, counted from 0, and for what reasons others, and pieces
        that are no records, were not; the first few of each reason are kept. Answers are judged in the order of their
        `done` lines. `thoughts` tells whether the model thought aloud first.
    {"line": "torn", "bytes": 91, "time": 1760000020.0}
        A process died while it wrote a line; what there was of it, and of nothing else, was cut off.

52,000 accepted records are some 4,000 requests and 30 MB, read in about a second; their texts stay compressed.
"""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import ConfigError, DataError
from ..files import explained, locked, sync_folder, write_atomically
from ..generation.completion import Completion
from ..textfiles import parse_json, read_whole_file
from .budget import Usage
from .folder import make_folder

NAME = "journal.jsonl"
VERSION = 1
GO_ON = "Make room; the same command goes on from here."
_HASHED = {
    "instructions": "the file of instructions",
    "seeds": "the file of seeds",
    "weights": "the file of the adapter's weights",
    "contract": "the adapter's contract",
    "comparison": "the comparison",
    "prompt": "the judge's prompt",
}
"""Settings that are hashes, and of what."""


@dataclass
class State:
    """What a journal's lines say, taken one after the other."""

    head: dict[str, Any] = field(default_factory=dict)
    """The `run` line."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """The `done` lines, in order."""
    judged: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The `judged` line of a request."""
    failed: dict[int, str] = field(default_factory=dict)
    """What the server said to requests it does not take."""
    attempts: Counter[str] = field(default_factory=Counter)
    """How many were `sent`, `refused`, `done`."""
    torn: int = 0
    """Lines cut off."""
    spent: Usage = field(default_factory=Usage)
    """Tokens the servers counted."""
    unanswered: Usage = field(default_factory=Usage)
    """Worst cases of attempts without an answer, so far."""
    accepted: int = 0
    """Records accepted."""
    rejected: Counter[str] = field(default_factory=Counter)
    """What was not accepted, by reason."""
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """By reason, the first few that were not."""
    thoughts: int = 0
    """Answers in front of which the model thought aloud, as far as they were judged."""
    _worst: dict[int, Usage] = field(default_factory=dict)
    """Worst case of the newest attempt at each request."""

    def take(self, line: dict[str, Any]) -> None:
        """Add what one line says."""
        kind, request = line["line"], line.get("request", -1)
        if kind == "run":
            self.head = line
        elif kind == "sent":
            self._worst[request] = _usage(line)
            self.unanswered += _usage(line)
        elif kind == "refused":
            self.unanswered -= self._worst.pop(request)
        elif kind == "done":
            self.answers.append(line)
            self.unanswered -= self._worst.pop(request)
            self.spent += _usage(line)
        elif kind == "failed":
            self.failed[request] = line["problem"]
        elif kind == "judged":
            self.judged[request] = line
            self.accepted += len(line["accepted"])
            self.rejected.update(line["rejected"])
            self.thoughts += line.get("thoughts", False)
            for sample in line["samples"]:
                self.samples.setdefault(sample["reason"], []).append(sample)
        elif kind == "torn":
            self.torn += 1
        else:
            raise ValueError(f"unknown line {kind!r}")
        if kind in ("sent", "refused", "done"):
            self.attempts[kind] += 1

    @property
    def begun(self) -> bool:
        """Whether anything was answered, or may have been; attempts that were refused bind to no settings."""
        return bool(self.answers or self.failed or self.unanswered.tokens)

    @property
    def left_out(self) -> list[str]:
        """Fields that the model refused, so that at least one answer was asked for without them."""
        sent = [answer["sent"] for answer in self.answers if answer.get("sent")]
        return ["temperature"] if any("temperature" not in one for one in sent) else []

    def unfinished(self) -> list[int]:
        """Requests begun before and to be sent again, and the first one never sent."""
        over = {answer["request"] for answer in self.answers} | self.failed.keys()
        return [number for number in range(max(over | self._worst.keys(), default=-1) + 2) if number not in over]


def completion_of(answer: Mapping[str, Any]) -> Completion:
    """The completion in a `done` line."""
    text = zlib.decompress(base64.b64decode(answer["text"])).decode("utf-8", "surrogatepass")
    return Completion(text, answer["finish_reason"], answer["prompt_tokens"], answer["completion_tokens"])


def fields_of(completion: Completion) -> dict[str, Any]:
    """A completion as the fields of a `done` line."""
    text = completion.text.encode("utf-8", "surrogatepass")
    return {**asdict(completion), "text": base64.b64encode(zlib.compress(text)).decode()}


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
        file: What the user named, where that was a file and the folder goes by its name; for messages.

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
        with self.lock, told, explained(self.path, GO_ON), self.file:
            os.fsync(self.file.fileno())

    def append(self, kind: str, **fields: Any) -> None:
        """Write a line. It outlives this process at once, and a loss of power from the next `sync` on.

        Raises:
            DataError: it cannot be written; what there is of it is cut off by the next process.
        """
        line = {"line": kind, **fields, "time": round(time.time(), 3)}
        with explained(self.path, GO_ON):
            self.file.write(_text(line))
            self.file.flush()
        self.state.take(line)

    def sync(self) -> None:
        """Have what was written on the disk."""
        with explained(self.path, GO_ON):
            os.fsync(self.file.fileno())

    def _open(self, settings: dict[str, Any], filters: dict[str, Any]) -> tuple[IO[str], State]:
        state, whole = _read(self.path) if self.path.exists() else (State(), 0)
        before = (state.head.get("settings"), state.head.get("filters"))
        if not state.begun and before != (settings, filters):
            head = {"line": "run", "version": VERSION, "settings": settings, "filters": filters, "time": time.time()}
            with explained(self.path, GO_ON):
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


def rejudge(folder: str | Path, filters: Mapping[str, Any], judge: Callable[[dict[str, Any]], dict[str, Any]]) -> State:
    """Replace all judgements of a journal; it is the old one until all are made. The caller holds the lock.

    Args:
        folder: Where the journal is.
        filters: How records are judged now.
        judge: Gives the fields of a `judged` line for a `done` line; called in their order.
    """
    path = Path(folder) / NAME
    old, whole = _lines(path)
    lines = []
    for line in old:
        if line["line"] != "judged":
            lines.append(line | {"filters": dict(filters)} if line["line"] == "run" else line)
        if line["line"] == "done":
            lines.append({"line": "judged", **judge(line), "time": round(time.time(), 3)})
    if torn := path.stat().st_size - whole:
        lines.append({"line": "torn", "bytes": torn, "time": round(time.time(), 3)})
    with explained(path, GO_ON):
        write_atomically(path, "".join(map(_text, lines)))
    return read_journal(folder)


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
    """Raise ConfigError naming every setting that is another now; `other` is what else can be named."""
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


def _usage(line: Mapping[str, Any]) -> Usage:
    return Usage(line["prompt_tokens"], line["completion_tokens"])
