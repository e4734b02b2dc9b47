"""A completion read back as records, whatever form the model gave it.

In: the text of one completion. Out: records whose instruction and output have content, and every candidate that gave
none, with the reason. No text raises. Models drift from the form they were asked for: parse_list.py says which lists
are read, parse_json.py which JSON. Text in front of the first candidate is the model's small talk, and is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..data.records import Record
from ..llm.reply import REMEDIES
from .candidates import Candidate
from .parse_json import read_objects
from .parse_list import FENCE, read_list
from .prompt import opening

TRUNCATED = "truncated"
MALFORMED = "malformed"
EMPTY_OUTPUT = "empty_output"
PARSE_REASONS = (*REMEDIES, TRUNCATED, MALFORMED, EMPTY_OUTPUT)


@dataclass(frozen=True)
class Parsed:
    """What a completion gave.

    Attributes:
        records: The records, in order; instruction and output have content, and input is "" if there is none.
        dropped: (reason, raw text) of each item that gave no record; the reasons are PARSE_REASONS.
    """

    records: list[Record]
    dropped: list[tuple[str, str]]


def parse(completion: str, *, mode: str, truncated: bool, first: int = 1, chat: bool = True) -> Parsed:
    """Reads a completion. One without a record in the form asked for is tried in the other form.

    Args:
        completion: The model's text.
        mode: The form that was asked for, "list" or "json".
        truncated: The model had to stop (finish_reason "length" or "content_filter"): the last item of a list is
            dropped, as nothing tells whether it is whole; of JSON only an item without its closing brace.
        first: Number of the first new item.
        chat: The text is an answer of its own; otherwise it continues the prompt's last line (`Prompt.text`).

    Example:
        >>> parse("### Task 4\\nInstruction: Add.\\nInput: 2, 3\\nOutput: 5", mode="list", truncated=False).records
        [Record(instruction='Add.', input='2, 3', output='5')]
    """
    text = completion.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        return Parsed([], [])
    text = _without_fence(text) if chat else opening(mode, first) + text
    readers = (read_objects, read_list) if mode == "json" else (read_list, read_objects)
    result = _sorted_out(readers[0](text, truncated))
    if not result.records:
        other = _sorted_out(readers[1](text, truncated))
        if other.records or not result.dropped:
            result = other
    if not result.records and not result.dropped:
        result.dropped.append((TRUNCATED if truncated else MALFORMED, text.strip()))
    return result


def _sorted_out(items: Iterable[Candidate]) -> Parsed:
    result = Parsed([], [])
    for item in items:
        if not item.whole:
            result.dropped.append((TRUNCATED, item.raw))
        elif item.record is None or not item.record.instruction or not _is_encodable(item.record):
            result.dropped.append((MALFORMED, item.raw))
        elif not item.record.output:
            result.dropped.append((EMPTY_OUTPUT, item.raw))
        else:
            result.records.append(item.record)
    return result


def _is_encodable(record: Record) -> bool:
    """Whether no text holds half a character (JSON can write one: \\ud83d), which no file and no tokenizer takes."""
    return not any(0xD800 <= ord(character) < 0xE000 for text in record for character in text)


def _without_fence(text: str) -> str:
    """The text inside a fence that is around all of it, closed or cut off."""
    lines = text.strip().split("\n")
    if not FENCE.match(lines[0]):
        return text
    del lines[0]
    if lines and FENCE.match(lines[-1]) and sum(1 for line in lines if FENCE.match(line)) % 2:
        lines.pop()
    return "\n".join(lines)
