"""Shapes of files that hold no records: what they are, and what to do with them.

One table, so that a file of questions, conversations, preferences or annotations is called by its name whichever
command it was given to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .columns import CALLED, TURN_KEYS, list_keys, suggest
from .compared import best_rated, better_and_worse, take_better, take_good, take_named, two_answers
from .dialogues import KINDS, ONE_EXCHANGE, best_branches, best_replies, cut_texts, is_dialogue, kind_of
from .wrapped import is_record, write_records

_WRITE = "Write one object with 'instruction', 'input' and 'output' for"


class Shape(NamedTuple):
    """What rows of one kind are (a plural), what to do with them, and how to know one.

    Attributes:
        advice: A text, or how to make it of rows, one of this kind among them, and of the name of their source.
        keys: Keys that say it all, where the rows could be read as records.
        wider: What these rows and their like are together, for files that mix them.
    """

    what: str
    advice: str | Callable[[Sequence[Any], str], str]
    matches: Callable[[Any], bool]
    keys: tuple[str, ...] = ()
    wider: Shape | None = None

    def how(self, rows: Sequence[Any], source: str) -> str:
        """What to do with rows of a source."""
        return self.advice if isinstance(self.advice, str) else self.advice(rows, source)


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: all(key in row for key in keys)


def _is_question(row: Mapping[str, Any]) -> bool:
    """Something that is asked, and no key that could hold an answer."""
    names = {str(key).casefold() for key in row}
    asked = {*names} & {*CALLED["instruction"], "text", "turns"} or "instruction" in suggest(row)
    answered = names & {*CALLED["output"]} or "output" in suggest(row) or any("answer" in name for name in names)
    return bool(asked) and not answered


def _made(what: str, expression: str) -> Callable[[Sequence[Any], str], str]:
    return lambda rows, source: f"{what}: {write_records(expression, source)}"


def _dialogue(kind: str) -> Shape:
    what, how = KINDS[kind]

    def advice(rows: Sequence[Any], source: str) -> str:
        return how(next(row for row in rows if isinstance(row, Mapping) and kind_of(row) == kind), source)

    return Shape(what, advice, lambda row: kind_of(row) == kind, wider=DIALOGUES)


def _has_header(rows: Sequence[Any]) -> bool:
    return all(isinstance(name, str) for name in rows[0]) and {"instruction", "output"} <= {*rows[0], *suggest(rows[0])}


def _take_lists(rows: Sequence[Any], source: str) -> str:
    if _has_header(rows):
        made = "[dict(zip(rows[0], row)) for row in rows[1:]]"
        return f"The first names the others' values: {write_records(made, source)}"
    return "A record is an object: write each list as one, with the keys 'instruction', 'input' and 'output'."


def _inner(row: Mapping[str, Any]) -> str:
    """The key that holds the record of a row, such as `row` in what the hub's data viewer answers."""
    found = (str(key) for key, value in row.items() if isinstance(value, Mapping) and is_record(value))
    return "" if is_record(row) else next(found, "")


def _take_out(rows: Sequence[Any], source: str) -> str:
    key = next(_inner(row) for row in rows if isinstance(row, Mapping) and _inner(row))
    made = f"[row[{key!r}] for row in rows if not row.get('truncated_cells')]"  # texts that the hub's viewer cut
    return f"Take them out: {write_records(made, source)}"


def _to_answer(rows: Sequence[Any], source: str) -> str:
    row = next((row for row in rows if isinstance(row, Mapping) and QUESTIONS.matches(row)), {})
    asked = suggest(row)
    texts = [key for key, value in row.items() if isinstance(value, str) and " " in value.strip()]
    others = [key for key in texts if key not in (*asked.values(), "instruction", "input", "text")]
    how = "To have a model answer them: alpaca-lora answer MODEL FILE OUT.json. To train, give data with an 'output'"
    if not others:
        return f"{how}."
    return f"{how}, or if one of {list_keys(others)} is the answer, pass columns={ {**asked, 'output': '<its name>'} }."


def _are_dicts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


DIALOGUES = Shape("conversations, not all of a single exchange", ONE_EXCHANGE, is_dialogue)
_DIALOGUE_KINDS = {kind: _dialogue(kind) for kind in KINDS}


QUESTIONS = Shape(
    "instructions or questions without answers",
    _to_answer,
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
        "preference pairs, a better and a worse answer to each prompt",
        take_better,
        lambda row: better_and_worse(row) is not None,
        ("chosen", "rejected"),
    ),
    Shape(
        "preference pairs, two answers to each prompt",
        take_named,
        lambda row: two_answers(row) is not None and "output" not in row,
    ),
    Shape(
        "instructions with several rated answers to each ('completions')",
        best_rated,
        lambda row: _are_dicts(row.get("completions")),
    ),
    Shape(
        "instructions with a list of answers to each ('output')",
        _made("Take one of them; where the first is the best", "[{**row, 'output': row['output'][0]} for row in rows]"),
        lambda row: (
            isinstance(row.get("output"), list)
            and isinstance((row["output"] or [0])[0], str)
            and isinstance(row.get("instruction"), str)
        ),
    ),
    Shape(
        "rows with the record inside a key of theirs",
        _take_out,
        lambda row: bool(_inner(row)),
    ),
    Shape(
        "answers marked good or bad ('prompt', 'completion', 'label')",
        take_good,
        _has("prompt", "completion", "label"),
    ),
    Shape(
        "conversation trees of OpenAssistant (a message and its replies)",
        best_branches,
        lambda row: "replies" in row or (isinstance(row.get("prompt"), dict) and "message_tree_id" in row),
    ),
    Shape(
        "messages of OpenAssistant's conversation trees (a reply names its 'parent_id')",
        best_replies,
        _has("parent_id"),
    ),
    Shape(
        "questions of MT-bench, without answers ('question_id', 'turns')",
        "To have a model answer them: alpaca-lora answer MODEL FILE OUT.json. To train, give data with an 'output'.",
        _has("turns"),
    ),
    Shape(
        "Self-Instruct seed tasks, which keep input and output in a list, 'instances'",
        _made(
            "Write a record for every instance",
            "[{'instruction': row['instruction'], **one} for row in rows for one in row['instances']]",
        ),
        _has("instances"),
    ),
    Shape(
        "questions with a list of answers to each ('answers')",
        _made(
            "Take the first",
            "[{'instruction': row['question'], 'input': row.get('context', ''), 'output': row['answers']['text'][0]} "
            "for row in rows if row['answers']['text']]",
        ),
        lambda row: "question" in row and isinstance(row.get("answers"), Mapping) and "text" in row["answers"],
    ),
    Shape(
        "questions with choices",
        "Write one object for each, with the choices in the 'instruction' and the right one as the 'output'.",
        lambda row: any(isinstance(row.get(key), (list, Mapping)) for key in ("choices", "options")),
    ),
    DIALOGUES,
    QUESTIONS,
    Shape(
        "texts, each in a single key ('text')",
        cut_texts,
        lambda row: "text" in row and _is_question(row),
    ),
)


BARE = (
    Shape(
        "conversations, each a bare list of messages",
        _made("Give each list its key", "[{'messages': row} for row in rows]"),
        lambda row: _are_dicts(row) and any(key in row[0] for key in ("role", "from")),
    ),
    Shape(
        "lists of objects; a file is a single list",
        _made("Join them", "[one for row in rows for one in row]"),
        _are_dicts,
    ),
    Shape("lists of values without their names", _take_lists, lambda row: isinstance(row, list)),
    Shape(
        "bare texts, without a key",
        _made("If they are questions for alpaca-lora answer", "[{'instruction': row} for row in rows]"),
        lambda row: isinstance(row, str),
    ),
)
"""Shapes of rows that are no objects."""


def shape_of(row: object) -> Shape | None:
    """The first shape that a row has, if any."""
    found = next((shape for shape in (SHAPES if isinstance(row, Mapping) else BARE) if shape.matches(row)), None)
    return _DIALOGUE_KINDS.get(kind_of(row), found) if found is DIALOGUES and isinstance(row, Mapping) else found


def question_columns(row: Mapping[str, Any]) -> dict[str, str | None]:
    """The `columns` that read what a row asks, be it a record or a question under another name; {} as it is.

    Example:
        >>> question_columns({"question": "Why?", "context": "Because."})
        {'instruction': 'question', 'input': 'context'}
    """
    if any(key in row for key in TURN_KEYS) and "instruction" not in row:
        return {}
    found = suggest([key for key in row if str(key).casefold() not in CALLED["output"]], slips=False)
    if "instruction" not in row and "instruction" not in found and "text" in row:
        found["instruction"] = "text"
    return found
