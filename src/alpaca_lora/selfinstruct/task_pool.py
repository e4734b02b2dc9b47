"""The task pool: records accepted so far, and the judgement of each answer against them.

What is accepted follows from the answers in the journal's order and from nothing else, so the same answers give the
same records in every process, and other filters can judge them again without a request.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.records import Record, RecordSet
from ..errors import ConfigError, DataError
from ..files import explained, write_atomically
from ..llm.journal import MAKE_ROOM, read_lines, replace_lines, timed
from ..llm.journal_state import State, completion_of
from ..llm.reply import read_reply
from .filters import Filters
from .parse import Parsed, parse

NAME = "records.jsonl"
SAMPLES = 5  # kept of each reason
SAMPLE_CHARACTERS = 500


class TaskPool:
    """Judges answers one after the other."""

    def __init__(self, seeds: Sequence[Record], settings: Mapping[str, Any], filters: Mapping[str, Any]) -> None:
        self.mode, self.chat = settings["mode"], settings["kind"] == "chat"
        self.max_new_tokens = settings.get("max_new_tokens", 0)
        self.filters = Filters(seeds, language=settings["language"], threshold=filters["threshold"])
        self.records: list[Record] = []
        self.sampled: Counter[str] = Counter()

    def restore(self, state: State) -> None:
        """Take over what a journal says was judged, without judging it again.

        Raises:
            DataError: another version of the library found other records in the same text, or lines are missing.
        """
        restored = state.answers[: len(state.judged)]
        if [answer["request"] for answer in restored] != [*state.judged]:  # judgements are made in order
            raise DataError(
                "journal.jsonl: its answers and their judgements do not belong together; a line was taken out or "
                "moved. Judge all answers again: alpaca-lora self-instruct refilter."
            )
        for answer in restored:
            judged = state.judged[answer["request"]]
            found = self._parse(answer)[0].records
            if len(found) != judged["parsed"]:
                raise DataError(
                    f"request {answer['request']}: {judged['parsed']} records were found in its answer, and "
                    f"{len(found)} are now. The library has changed; judge all answers again: alpaca-lora "
                    "self-instruct refilter."
                )
            for index in judged["accepted"]:
                self._add(found[index])
            self.sampled.update(sample["reason"] for sample in judged["samples"])

    def judge(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Judge the records of an answer, and keep the good ones.

        Returns:
            The fields of its `judged` line.
        """
        parsed, thoughts = self._parse(answer)
        accepted: list[int] = []
        rejected: Counter[str] = Counter()
        samples: list[dict[str, str]] = []

        def reject(reason: str, detail: str, text: str) -> None:
            rejected[reason] += 1
            if self.sampled[reason] < SAMPLES:
                self.sampled[reason] += 1
                samples.append({"reason": reason, "detail": detail, "text": text[:SAMPLE_CHARACTERS]})

        for reason, text in parsed.dropped:
            reject(reason, "", text)
        for index, record in enumerate(parsed.records):
            if rejection := self.filters.judge(record):
                reject(rejection.reason, rejection.detail, "\n".join(filter(None, record)))
            else:
                self._add(record)
                accepted.append(index)
        return {
            "request": answer["request"],
            "parsed": len(parsed.records),
            "accepted": accepted,
            "rejected": dict(rejected),
            "samples": samples,
            "thoughts": thoughts,
        }

    def write(self, folder: Path) -> None:
        """Write all accepted records."""
        with explained(folder / NAME, MAKE_ROOM):
            write_atomically(folder / NAME, "".join(map(_line, self.records)))

    def extend(self, folder: Path, first: int) -> None:
        """Add the records from number `first` (from 0) on to the file."""
        with explained(folder / NAME, MAKE_ROOM), (folder / NAME).open("a", encoding="utf-8") as file:
            file.writelines(map(_line, self.records[first:]))
            file.flush()
            os.fsync(file.fileno())

    def _parse(self, answer: Mapping[str, Any]) -> tuple[Parsed, bool]:
        """What an answer gives, and whether the model thought aloud before it."""
        completion = completion_of(answer)
        reply = read_reply(completion, self.max_new_tokens)
        if reply.problem:
            return Parsed([], [(reply.problem, completion.text)]), reply.thoughts
        truncated = completion.finish_reason != "stop"
        parsed = parse(reply.text, mode=self.mode, truncated=truncated, first=answer["first"], chat=self.chat)
        return parsed, reply.thoughts

    def _add(self, record: Record) -> None:
        self.filters.add(record)
        self.records.append(record)


def rejudge(folder: str | Path, filters: Mapping[str, Any], judge: Callable[[dict[str, Any]], dict[str, Any]]) -> State:
    """Replace all judgements of a journal; it is the old one until all are made. The caller holds the lock.

    Args:
        folder: Where the journal is.
        filters: How records are judged now.
        judge: Gives the fields of a `judged` line for a `done` line; called in their order.
    """
    lines = []
    for line in read_lines(folder):
        if line["line"] != "judged":
            lines.append(line | {"filters": dict(filters)} if line["line"] == "run" else line)
        if line["line"] == "done":
            lines.append(timed("judged", **judge(line)))
    return replace_lines(folder, lines)


def check_seeds(seeds: RecordSet, settings: Mapping[str, Any], folder: str | Path) -> None:
    """Raise ConfigError if the seeds are not those a run began with."""
    if settings["seeds"] != seeds.fingerprint:
        raise ConfigError(f"seeds: {seeds.source} holds other records than the run in {folder} began with.")


def _line(record: Record) -> str:
    return json.dumps(record._asdict(), ensure_ascii=False) + "\n"
