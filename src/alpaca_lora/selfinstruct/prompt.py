"""The prompt that asks for new tasks: some known ones in context, and a numbered list to be continued.

In: example records and a brief. Out: the same request twice, as chat messages and as one text for a completions
endpoint. One call asks for many tasks, each with a single instance (one input and its output), as Alpaca did; unlike
Self-Instruct (arXiv 2212.10560) classification is no separate case.

    list mode                              json mode
    ### Task 1                             {"tasks": [
    Instruction: Translate into French.    {"instruction": "Translate into French.", "input": "Good night.", ...},
    Input: Good night.                     ...
    Output: Bonne nuit.                    ]}
    ...
    ### Task 4            <- `first`
    Instruction:          <- where `text` ends, and a completion starts
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..data.records import Record
from ..errors import ConfigError

Mode = Literal["list", "json"]
MODES = ("list", "json")
NO_INPUT = "<noinput>"

_SYSTEM = (
    "You write practice material for a text-only assistant: tasks that people might give it, each with an exemplary "
    "answer. You keep exactly to the format you are shown and write nothing around it."
)
_REQUEST = """\
Continue a collection of tasks for an assistant that reads and writes text. Write {count} new ones{domain}.

What makes a good task:
- It is unlike the examples and unlike the other new ones: vary the topic, the opening verb, the length, and the form \
(a question as well as a request).
- The kinds are mixed: writing, rewriting, explaining, planning, comparing, sorting into classes, pulling facts out of \
a passage, reasoning, calculating, coding, chatting.
- Text alone is enough. Nothing has to be seen, heard, drawn, opened, sent, bought or looked up on the web, and no \
news of today is needed.
- The instruction is one or two sentences in {language}.
- The input is the concrete material that the instruction works on, realistic and complete, at most 100 words; never a \
placeholder. A task that is complete without one, such as a question of general knowledge, has {no_input}.
- The output is the whole answer in {language}, correct and as long as the task deserves."""
_LIST_FORMAT = """\
Keep the form of the examples: the heading "### Task" with its number, then "Instruction:", "Input:" and "Output:", \
these words always in English. The new tasks have the numbers {first} to {last}."""
_JSON_FORMAT = """\
Give one JSON object with the key "tasks": a list of {count} new objects, each with the strings "instruction", "input" \
and "output", as in the examples."""


@dataclass(frozen=True)
class Brief:
    """What is asked for.

    Raises:
        ConfigError: A value is blank, below 1, or no mode.
    """

    domain: str | None = None
    """What all tasks are about ("medical questions for patients"); None: anything."""
    language: str = "English"
    """The language of the tasks, by its English name."""
    count: int = 20
    """New tasks per call."""
    mode: Mode = "list"
    """The form of the answer: a numbered list, which every model can write, or JSON."""

    def __post_init__(self) -> None:
        problems = []
        if self.domain is not None and not self.domain.strip():
            problems.append(f"domain: {self.domain!r} is blank; say what the tasks are about, or leave it out.")
        if not self.language.strip():
            problems.append(f"language: {self.language!r} is blank; name a language, as in 'English'.")
        if self.count < 1:
            problems.append(f"count: {self.count!r} new tasks per call; ask for 1 or more.")
        if self.mode not in MODES:
            problems.append(f"mode: {self.mode!r} is none of {', '.join(map(repr, MODES))}.")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True)
class Prompt:
    """One request, ready to send.

    Attributes:
        system: The system message, for chat.
        user: The user message, for chat; holds the examples.
        text: The request for a completions endpoint; ends in the opening of the first new item.
        first: Number of the first new item in list mode.
        stops: Stop sequences for `text`: where the last item asked for is over.
    """

    system: str
    user: str
    text: str
    first: int
    stops: tuple[str, ...]


def build_prompt(examples: Sequence[Record], brief: Brief) -> Prompt:
    """The request for `brief.count` new tasks after `examples` (Alpaca shows three).

    Raises:
        ConfigError: There are no examples.
    """
    if not examples:
        raise ConfigError("examples: none are given, and a model needs some to continue from; give three records.")
    first, last = len(examples) + 1, len(examples) + brief.count
    request = _REQUEST.format(
        count=brief.count,
        domain=f", all of them about this: {brief.domain.strip()}" if brief.domain else "",
        language=brief.language.strip(),
        no_input=f"the input {NO_INPUT}" if brief.mode == "list" else 'the input ""',
    )
    if brief.mode == "list":
        request += "\n\n" + _LIST_FORMAT.format(first=first, last=last)
        shown = "\n\n".join(f"{opening('list', number)} {_item(record)}" for number, record in enumerate(examples, 1))
        text = f"{shown}\n\n{opening('list', first)}"
        stops: tuple[str, ...] = (f"### Task {last + 1}",)
    else:
        request += "\n\n" + _JSON_FORMAT.format(count=brief.count)
        items = [json.dumps(record._asdict(), ensure_ascii=False) for record in examples]
        shown = '{"tasks": [\n' + ",\n".join(items) + "\n]}"
        text = '{"tasks": [\n' + ",\n".join([*items, opening("json", first)])
        stops = ("\n]",)  # inside a JSON string a line end is written \n
    return Prompt(
        system=_SYSTEM,
        user=f"{request}\n\nExamples:\n\n{shown}",
        text=f"{_SYSTEM}\n\n{request}\n\n{text}",
        first=first,
        stops=stops,
    )


def opening(mode: str, number: int) -> str:
    """How item `number` starts, up to where its instruction is written."""
    return f"### Task {number}\nInstruction:" if mode == "list" else '{"instruction":'


def _item(record: Record) -> str:
    return f"{record.instruction}\nInput: {record.input or NO_INPUT}\nOutput: {record.output}"
