"""A record: an instruction, its input and its output, as texts; or a conversation; or two answers to one prompt."""

from __future__ import annotations

import json
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

FIELDS = ("instruction", "input", "output")
PAIR_FIELDS = ("instruction", "input", "chosen", "rejected")
"""Of a preference."""
BLANK = "instruction and input are both blank, so nothing is asked. Fill one in, or remove it."
_INVISIBLE = re.compile(
    r"[\s\u00ad\u034f\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe0e\ufe0f\ufeff\uffa0]*"
)


class Record(NamedTuple):
    """One training record. `input` is "" when the instruction stands alone; texts are kept byte for byte."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Conversation:
    """Messages of several speakers; each trained one is learned as the answer to all before it.

    `as_record` gives its texts to what looks at texts alone, such as lint.

    Args:
        messages: As chat templates read them: `role`, `content`, and others such as `tool_calls`.
        trained: Places of the assistant's messages to learn, from 0.
        tools: JSON schemas of the functions that may be called.
        parents: For a tree of replies, the place of the message that each one replies to, -1 for none; empty if each
            follows the one before it.
    """

    messages: tuple[Mapping[str, Any], ...]
    trained: tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    parents: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return (message["content"] for message in self.messages)

    @property
    def canonical(self) -> str:
        """All of it as JSON, the same for equal conversations."""
        told = [self.messages, self.trained, self.tools, self.parents]
        return json.dumps(told, sort_keys=True, ensure_ascii=False)

    def upto(self, place: int) -> Sequence[Mapping[str, Any]]:
        """The message at a place and those that it follows, in order."""
        if not self.parents:
            return self.messages[: place + 1]
        path = []
        while place >= 0:
            path.append(self.messages[place])
            place = self.parents[place]
        return path[::-1]


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, the first of which was preferred. Its texts are the prompt's, then both answers.

    Args:
        chosen: The prompt with the better answer: a record, or a conversation of which the last message is learned.
        rejected: The same with the other answer.
    """

    chosen: Record | Conversation
    rejected: Record | Conversation

    def __iter__(self) -> Iterator[str]:
        yield from self.chosen
        yield self.answers[1]

    @property
    def answers(self) -> tuple[str, str]:
        """The texts of both answers, the better one first."""
        chosen, rejected = ([*one][-1] for one in (self.chosen, self.rejected))
        return chosen, rejected

    @property
    def prompt(self) -> str:
        """What the better answer answers, as JSON, the same for equal prompts."""
        told = self.chosen
        asked = told[:2] if isinstance(told, Record) else (told.messages[:-1], told.tools)
        return json.dumps(asked, sort_keys=True, ensure_ascii=False)

    @property
    def canonical(self) -> str:
        """All of it as JSON, the same for equal pairs."""
        both = [one.canonical if isinstance(one, Conversation) else [*one] for one in (self.chosen, self.rejected)]
        return json.dumps(["preference", *both], ensure_ascii=False)

    def turned(self) -> Preference:
        """The opposite preference."""
        return Preference(self.rejected, self.chosen)


AnyRecord = Record | Conversation | Preference


def content_of(record: AnyRecord) -> bytes:
    """All texts of a record, each with its length before it, so that ("ab", "c") is not ("a", "bc")."""
    texts = record if isinstance(record, Record) else (record.canonical,)
    contents = [text.encode("utf-8") for text in texts]
    return b"".join(len(content).to_bytes(8, "big") + content for content in contents)


def exchanges(record: AnyRecord) -> list[Record]:
    """A record itself; of a conversation, what is learned with what was said since the assistant spoke before; of a
    preference, both."""
    if isinstance(record, Record):
        return [record]
    if isinstance(record, Preference):
        return [*exchanges(record.chosen), *exchanges(record.rejected)]
    found = []
    for place in record.trained:
        *before, answer = record.upto(place)
        since = max((at + 1 for at, one in enumerate(before) if one["role"] == "assistant"), default=0)
        if answer["content"] or not answer.get("tool_calls"):
            found.append(Record("\n\n".join(one["content"] for one in before[since:]), "", answer["content"]))
    return found


def as_record(record: AnyRecord) -> Record:
    """A conversation's texts as a record: what is learned as its output, all else as its instruction; of a preference,
    both answers as its output."""
    if isinstance(record, Record):
        return record
    if isinstance(record, Preference):
        return as_record(record.chosen)._replace(output="\n\n".join(record.answers))
    learned = [text for place, text in enumerate(record) if place in record.trained]
    others = [text for place, text in enumerate(record) if place not in record.trained]
    return Record("\n\n".join(others), "", "\n\n".join(learned))


def is_blank(text: str) -> bool:
    """Whether nothing of a text shows: white space, zero-width characters, soft hyphens, fillers.

    Example:
        >>> is_blank(" \\u200b\\u3164"), is_blank("0")
        (True, False)
    """
    return _INVISIBLE.fullmatch(text) is not None


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, or pandas' NaN, NaT and NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Real) and value != value
