"""What the lines of a journal say, taken one after the other.

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
    The answer, one per request: what the model wrote (zlib, base64), the tokens the server counted, the fields it was
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
"""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..generation.completion import Completion
from .budget import Usage


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
    """Request -> what the server said when it refused it for good."""
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
    """By reason, the first few that were not accepted."""
    thoughts: int = 0
    """Judged answers that began with the model thinking aloud."""
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


def _usage(line: Mapping[str, Any]) -> Usage:
    return Usage(line["prompt_tokens"], line["completion_tokens"])
