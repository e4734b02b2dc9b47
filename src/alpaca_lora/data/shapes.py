"""Shapes of files that hold no records: what they are, and what to do with them.

One table, so that a file of questions, conversations, preferences or annotations is called by its name whichever
command it was given to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from alpaca_lora.data.columns import CALLED, TURN_KEYS, suggest

_WRITE = "Write one object with 'instruction', 'input' and 'output' for"


class Shape(NamedTuple):
    """What rows of one kind are (a plural), what to do with them, and how to know one.

    Attributes:
        keys: Keys that say it all, where the rows could be read as records.
    """

    what: str
    advice: str
    matches: Callable[[Mapping[str, Any]], bool]
    keys: tuple[str, ...] = ()


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: all(key in row for key in keys)


def _is_question(row: Mapping[str, Any]) -> bool:
    """Something that is asked, and no key that could hold an answer."""
    names = {str(key).casefold() for key in row}
    return bool({*names} & {*CALLED["instruction"], "text", "turns"}) and not names & {*CALLED["output"]}


QUESTIONS = Shape(
    "instructions or questions without answers",
    "To have a model answer them: alpaca-lora answer MODEL FILE OUT.json. To train, give data with an 'output'.",
    lambda row: _is_question(row) and [*map(str.casefold, map(str, row))] != ["text"],
)
SHAPES = (
    Shape(
        "annotations of AlpacaEval: two models' outputs and which of them was preferred",
        "To report on them: alpaca-lora compare A B --preferences FILE. There is nothing in them to train on.",
        _has("output_1", "output_2"),
    ),
    Shape(
        "predictions of a model on Self-Instruct's evaluation tasks ('response'), with references ('target')",
        "Give them to alpaca-lora compare; do not train on what you evaluate with.",
        _has("instruction", "response", "target"),
    ),
    Shape(
        "answers of a model to an evaluation set (AlpacaEval's outputs; 'generator' names the model)",
        "Give them to alpaca-lora compare. To train on them all the same, pass columns={'generator': None}.",
        _has("instruction", "output", "generator"),
        ("generator",),
    ),
    Shape(
        "preference pairs, a better and a worse answer to each prompt ('chosen', 'rejected')",
        "Only single answers are trained on: read the better ones, where they are texts, with the names of your keys "
        "in columns={'instruction': 'prompt', 'output': 'chosen'}; or leave both out on purpose with "
        "columns={'chosen': None, 'rejected': None}.",
        _has("chosen", "rejected"),
        ("chosen", "rejected"),
    ),
    Shape(
        "answers marked good or bad ('prompt', 'completion', 'label')",
        "Keep the rows whose label is true, and pass columns={'instruction': 'prompt', 'output': 'completion'}.",
        _has("prompt", "completion", "label"),
    ),
    Shape(
        "conversation trees of OpenAssistant (a message and its replies)",
        f"{_WRITE} a prompter's message and the best reply to it.",
        lambda row: "replies" in row or (isinstance(row.get("prompt"), dict) and "message_tree_id" in row),
    ),
    Shape(
        "messages of OpenAssistant's conversation trees (a reply names its 'parent_id')",
        f"{_WRITE} a prompter's message and the best reply to it.",
        _has("parent_id"),
    ),
    Shape(
        "questions of MT-bench, without answers ('question_id', 'turns')",
        "To have a model answer them: alpaca-lora answer MODEL FILE OUT.json. To train, give data with an 'output'.",
        _has("turns"),
    ),
    Shape(
        "Self-Instruct seed tasks, which keep input and output in a list, 'instances'",
        f"{_WRITE} every instance.",
        _has("instances"),
    ),
    Shape(
        "conversations of several turns, or with a system text",
        "A record is one exchange: split each into one record an exchange, or keep the first exchange.",
        lambda row: any(key in row for key in (*TURN_KEYS, "conversation", "dialog", "dialogue")),
    ),
    QUESTIONS,
    Shape(
        "texts, each in a single key ('text')",
        "A record is an instruction and its answer: split each text into 'instruction', 'input' and 'output'.",
        lambda row: "text" in row and _is_question(row),
    ),
)


def shape_of(row: object) -> Shape | None:
    """The first shape that a row has, if any."""
    return next((shape for shape in SHAPES if shape.matches(row)), None) if isinstance(row, Mapping) else None


def question_columns(row: Mapping[str, Any]) -> dict[str, str | None]:
    """The `columns` that read what a row asks, be it a record or a question under another name; {} as it is.

    Example:
        >>> question_columns({"question": "Why?", "context": "Because."})
        {'instruction': 'question', 'input': 'context'}
    """
    if any(key in row for key in TURN_KEYS) and "instruction" not in row:
        return {}
    found = suggest([key for key in row if str(key).casefold() not in CALLED["output"]])
    if "instruction" not in row and "instruction" not in found and "text" in row:
        found["instruction"] = "text"
    return found
