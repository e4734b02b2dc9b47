"""Candidates written as a list: a heading or a number, then the instruction, and labelled input and output.

    ### Task 4             4. Instruction: ...        **4.** Name three rivers.      4) Name three rivers.
    Instruction: ...          **Input:** N/A          Input: None                    Output: ...
    Input: ...                **Output:** ...         ### Response: ...
    Output: ...

Where items start is told by the surest sign there is: a label of the instruction, else headings, else numbers. Numbers
also stand in answers that are lists, so that one starts an item only if an output follows before the next number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..data.records import Record
from .candidates import NAMES, Candidate, without_placeholder

FENCE = re.compile(r"[ \t]*(?:```|~~~)")

_NUMBER = r"#?\d{1,4}"
_WORD = r"(?:task|item|example|record)"
_DECORATION = r"[ \t>*#_`-]*"


def _label(*names: str) -> str:
    """The start of a line with a label: `Output:`, `**Output**: `, `### Output:`, `3. Instruction 3: `."""
    either = "|".join(name.replace(" ", r"[ \t]") for name in names)
    return (
        rf"^{_DECORATION}(?:{_NUMBER}[.):]{_DECORATION})?(?:{either})(?:[ \t]*{_NUMBER})?[ \t*_`]*[:：]"
        r"[ \t]*(?:[*_]+(?=\s|$))?"
    )


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.MULTILINE)


_INPUT, _OUTPUT = _pattern(_label(*NAMES["input"])), _pattern(_label(*NAMES["output"]))
_HEADING = (
    rf"^[ \t]*(?:#+[ \t]*(?:{_WORD}[ \t]*)?{_NUMBER}\b|\*\*(?:{_WORD}[ \t]*)?{_NUMBER}\b|{_WORD}[ \t]*{_NUMBER}\b)"
    r"[.):：]?(?:\*\*)?[:：]?[ \t]*"
)
_LISTED = r"^[ \t]*\d{1,4}[.)](?=\s)[ \t]*"
_SIGNS = [
    # A recipe has "Instructions:", too: the plural counts only below a heading.
    _pattern(rf"(?:(?:{_HEADING}|{_LISTED})\s*)?{_label('instruction')}|{_HEADING}\s*{_label('instructions')}"),
    _pattern(_HEADING),
    *(_pattern(_label(name)) for name in NAMES["instruction"][1:]),
]
_NUMBERED = _pattern(_LISTED)
_ANY_START = _pattern(f"{_HEADING}|{_LISTED}")
# A line with nothing but the heading of another item, or a rule.
_EMPTY_LINE = re.compile(
    rf"[#*_ \t-]*(?:{_WORD}[ \t]*{_NUMBER}|(?<=#)[ \t]*{_NUMBER})[.):：*_ \t]*|[-*_=#\s]*", re.IGNORECASE
)
_BROKEN_END = re.compile(
    r"(?:[,;:(\[{]|\b(?:and|or|but|the|an?|of|to|with|in|for|from|is|are|was|by|as|that|which))$", re.IGNORECASE
)
_LEAST_WORDS_OF_PROSE = 8


def read_list(text: str, truncated: bool) -> Iterator[Candidate]:
    """The items of `text`, in order.

    The last one is not whole if the model had to stop (`truncated`), its output is missing, a code fence stays open,
    a list ends in a bare number, or prose ends as no sentence does ("and then the").
    """
    starts, sure = _starts(text)
    before = text[: starts[0][0]] if starts else ""
    if _OUTPUT.search(before):
        yield Candidate(before.strip(), None, whole=True)
    ends = [start for start, _ in starts[1:]] + [len(text)]
    for number, ((start, content), end) in enumerate(zip(starts, ends, strict=False), 1):
        body = text[content:end]
        answer = _OUTPUT.search(body)
        head = body[: answer.start()] if answer else body
        given = _INPUT.search(head)
        output = _clean(body[answer.end() :]) if answer else ""
        record: Record | None = None
        if answer is None or not _holds_another(body, answer.end(), sure):
            record = Record(
                _clean(head[: given.start()] if given else head),
                without_placeholder(_clean(head[given.end() :])) if given else "",
                output,
            )
        last = number == len(starts)
        yield Candidate(
            text[start:end].strip(), record, whole=not (last and (truncated or not answer or _is_broken(output)))
        )


def _starts(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Where items start, as (start, start of the instruction), and whether by more than a number."""
    for sign in _SIGNS:
        starts = [(match.start(), match.end()) for match in sign.finditer(text)]
        if starts and (sign is _SIGNS[0] or _OUTPUT.search(text, starts[0][1])):
            return starts, True
    listed = list(_NUMBERED.finditer(text))
    ends = [match.start() for match in listed[1:]] + [len(text)]
    pairs = zip(listed, ends, strict=False)
    return [(match.start(), match.end()) for match, end in pairs if _OUTPUT.search(text, match.end(), end)], False


def _holds_another(body: str, output: int, sure: bool) -> bool:
    """Whether perhaps a second item follows in the output that starts at `output`; its seam cannot be told."""
    second = _OUTPUT.search(body, output)
    return second is not None and (not sure or _ANY_START.search(body, output, second.start()) is not None)


def _clean(text: str) -> str:
    """A text without the heading of the next item, rules, bold type and half a fence around it."""
    lines = text.strip().split("\n")
    while lines and (_EMPTY_LINE.fullmatch(lines[-1]) or (FENCE.match(lines[-1]) and _open_fence(lines))):
        lines.pop()
    text = "\n".join(lines).strip()
    bold = re.fullmatch(r"\*\*([^*\n]+)\*\*", text)
    return bold[1].strip() if bold else text


def _open_fence(lines: list[str]) -> bool:
    return sum(1 for line in lines if FENCE.match(line)) % 2 == 1


def _is_broken(output: str) -> bool:
    lines = output.split("\n")
    if _open_fence(lines) or (len(lines) > 1 and re.fullmatch(r"\s*\d{1,4}[.)]", lines[-1])):
        return True
    return len(output.split()) >= _LEAST_WORDS_OF_PROSE and bool(_BROKEN_END.search(output))
