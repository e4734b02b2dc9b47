"""The checks of lint, by name, and what one of them finds in a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["error", "warn"]

EXCERPT_CHARACTERS = 100


@dataclass(frozen=True)
class Check:
    """One kind of fault.

    Attributes:
        severity: "error" is wrong whatever the data is for; "warn" wants a look.
        meaning: What a finding says, in one sentence.
        advice: What to do about it, in one sentence.
    """

    severity: Severity
    meaning: str
    advice: str


_TABLE: tuple[tuple[str, Severity, str, str], ...] = (
    ("unusable", "error", "The row is no record, so training refuses the data.", "Mend or remove the row."),
    ("lost-key", "error", "A key that is not read says what the record is, so training refuses the data.",
     "Name it in columns, or leave it out on purpose with columns={KEY: None}."),
    ("unread-key", "warn", "A key that is not read holds text of its own.",
     "Name it in columns, or leave it out on purpose."),
    ("empty-output", "error", "The output is blank.", "Fill it in or remove the record; --fix removes it."),
    ("placeholder", "error", "The output stands for an answer that was never filled in.",
     "Remove the record; --fix does."),
    ("same-answers", "error", "The chosen answer is the rejected one, too.", "Remove the record; --fix does."),
    ("other-prompt", "error", "The chosen and the rejected answer answer different prompts.",
     "Compare the last answers only, or remove the record; --fix removes it."),
    ("contradiction", "warn", "An earlier record prefers the other one of the two answers.",
     "Keep what most raters say; set label_smoothing if both stay."),
    ("score-order", "warn", "The scores beside the answers do not prefer the chosen one.",
     "Remove the record, or turn it round."),
    ("duplicate", "error", "All texts are those of an earlier record.",
     "Keep the first; --fix removes the others."),
    ("noinput", "error", "The marker for an absent input was left in.",
     "Leave the input empty; --fix does, in inputs."),
    ("whitespace", "warn", "A text begins or ends with white space.", "Trim it; --fix does."),
    ("encoding", "error", "Characters were damaged by a wrong encoding.",
     "Read the source again as UTF-8 and export it anew."),
    ("unfilled", "warn", "A variable or placeholder was never filled in.", "Fill it in, or remove the record."),
    ("chat-marker", "error", "Markers of a chat format stand in a text.",
     "Split the conversation, and take the markers out."),
    ("value-as-text", "error", "A list or a missing value was written as a program prints it.",
     "Export the column as text, with missing values left empty."),
    ("control-character", "warn", "A text holds a control character or a byte-order mark.",
     "Remove it, or export the text again."),
    ("html", "warn", "HTML was left in a text that is not about it.", "Take the markup out."),
    ("unclosed-fence", "error", "A code fence is opened and not closed.", "Close it, or complete the code."),
    ("cut-off", "warn", "The output stops in the middle of a sentence.",
     "Complete or shorten it; raise the limit it hit."),
    ("refusal", "warn", "The output refuses, or speaks of itself as a language model.",
     "Answer the task, or remove the record."),
    ("missing-input", "warn", "The task needs a text, a list or facts that are not there.",
     "Put it into the input, or remove the record."),
    ("not-text", "warn", "The task is about an address, image or file, which a text model can neither open nor make.",
     "Remove the record."),
    ("repeated-input", "warn", "Instruction and input say the same thing twice.", "Keep it in one place."),
    ("merged-tasks", "error", "A second task stands inside a text of this one.",
     "Split the record, or cut the second task off."),
    ("personal-data", "warn", "A text holds what looks like an e-mail address, phone, card or bank account number.",
     "Remove or replace it, unless it is made up."),
    ("near-duplicate", "warn", "The prompt is that of an earlier record except for a few words.",
     "Keep the better one."),
    ("evaluation-overlap", "error", "The record shares text with an item of the evaluation set.",
     "Remove it before you measure with that set."),
)  # fmt: skip
CHECKS = {name: Check(severity, meaning, advice) for name, severity, meaning, advice in _TABLE}


class Found(NamedTuple):
    """A fault inside one record: where, what, and what `fix` does about it ("" for nothing)."""

    check: str
    field: str
    excerpt: str
    fix: str = ""


class Finding(NamedTuple):
    """A fault in the data; `record` is the 1-based number in the source."""

    record: int
    check: str
    field: str
    excerpt: str
    fix: str = ""


def excerpt(text: str, start: int = 0, end: int | None = None) -> str:
    """The text around [start, end) on one line, at most `EXCERPT_CHARACTERS` and two dots of it.

    Example:
        >>> excerpt("one\\ntwo")
        'one two'
    """
    end = len(text) if end is None else end
    first = max(0, min(start, end - EXCERPT_CHARACTERS) if end == len(text) else start - EXCERPT_CHARACTERS // 4)
    last = min(len(text), first + EXCERPT_CHARACTERS)
    shown = " ".join(text[first:last].split())
    return ("…" if first else "") + shown + ("…" if last < len(text) else "")
