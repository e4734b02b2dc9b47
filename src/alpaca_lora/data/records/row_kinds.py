"""Rows that are no records, by kind: what they are, and what to do with them.

One table, so that a file of questions, conversations, preferences or annotations is called by its name whichever
command it was given to. Its first kind that matches a row is the row's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..columns import list_keys, names_record, suggest
from ..key_names import BETTER_WORSE, CALLED
from ..sources.commands import write_records
from .conversation_kinds import FORM, KINDS, is_conversation, kind_of, turns_key

_TWO = re.compile(
    r"(.*(?:response|answer|completion|output|conversation|reply|summary|ref)s?_?)([ab]|[0-2])", re.IGNORECASE
)
_BOTH = "To train on both answers, set objective=dpo, or orpo."
_HAVE_ANSWERED = (
    "To have a model answer them: alpaca-lora answer MODEL FILE OUT.json. To train, give data with an 'output'"
)


class RowKind(NamedTuple):
    """What rows of one kind are, how to know one, and what to do with them.

    Attributes:
        what: A plural.
        advice: A text, or how to make it of a row of this kind.
        matches: Whether a row is of this kind.
        expression: A Python expression that makes records of `rows`; the advice says what it does. KEY is the key
            that `key` finds in a row.
        key: Finds the key that the expression needs.
        keys: Keys that say it all if the rows could be read as records.
        wider: What these rows and their like are together, for files that mix them.
    """

    what: str
    advice: str | Callable[[Mapping[str, Any]], str]
    matches: Callable[[Any], bool]
    expression: str = ""
    key: Callable[[Mapping[str, Any]], str] = turns_key
    keys: tuple[str, ...] = ()
    wider: RowKind | None = None

    def how(self, rows: Sequence[Any], source: str, kind_of: Callable[[object], RowKind | None]) -> str:
        """What to do with rows of a source; `kind_of` tells the kind of a row."""
        row: Mapping[str, Any] = next((row for row in rows if kind_of(row) is self), {})
        said = self.advice if isinstance(self.advice, str) else self.advice(row)
        expression = self.expression
        if not expression:
            return said
        if "KEY" in expression:
            expression = expression.replace("KEY", repr(self.key(row)))
        return f"{said}: {write_records(expression, source)}"


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: all(key in row for key in keys)


def _are_dicts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and isinstance((value or [0])[0], str)


def _is_question(row: Mapping[str, Any]) -> bool:
    """Something that is asked, and no key that could hold an answer."""
    names = {str(key).casefold() for key in row}
    asked = {*names} & {*CALLED["instruction"], "text", "turns"} or "instruction" in suggest(row)
    answered = names & {*CALLED["output"]} or "output" in suggest(row) or any("answer" in name for name in names)
    return bool(asked) and not answered


def better_and_worse(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the better and the worse answer, if their names say it."""
    names = {str(key).casefold(): str(key) for key in row}
    return next(((names[one], names[two]) for one, two in BETTER_WORSE if one in names and two in names), None)


def _take_better(row: Mapping[str, Any]) -> str:
    better, worse = better_and_worse(row) or ("", "")
    if "output" in row:
        return f"{_BOTH} To train on the 'output' of each, leave both out with columns={ {better: None, worse: None} }."
    columns = suggest(key for key in row if key not in (better, worse))
    prompt = columns.get("instruction") or "instruction"
    if isinstance(row.get(prompt), str) and isinstance(row[better], str):
        columns = {field: key for field, key in columns.items() if field != "output"}
        return f"{_BOTH} To take the better ones alone, pass columns={ {**columns, 'output': better, worse: None} }."
    return (
        f"{_BOTH} To take the better ones alone, write one object for each, with the prompt as 'instruction' and the "
        f"answer in {better!r} as 'output'."
    )


def two_answers(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of two answers that differ in a last letter or digit, such as `response_0` and `response_1`."""
    found: dict[str, list[str]] = {}
    for key in map(str, row):
        if (match := _TWO.fullmatch(key)) and isinstance(row[key], (str, list)):
            found.setdefault(match[1], []).append(key)
    return next(((min(keys), max(keys)) for keys in found.values() if len(keys) == 2), None)


def _take_one(row: Mapping[str, Any]) -> str:
    first, second = two_answers(row) or ("", "")
    return f"Write one object per row with 'instruction' and, as 'output', the better of {first!r} and {second!r}."


def _inner(row: Mapping[str, Any]) -> str:
    """The key that holds the record of a row, such as `row` in what the hub's data viewer answers."""
    found = (str(key) for key, value in row.items() if isinstance(value, Mapping) and names_record(value))
    return "" if names_record(row) else next(found, "")


def _to_answer(row: Mapping[str, Any]) -> str:
    asked = suggest(row)
    texts = [key for key, value in row.items() if isinstance(value, str) and " " in value.strip()]
    others = [key for key in texts if key not in (*asked.values(), "instruction", "input", "text")]
    if not others:
        return f"{_HAVE_ANSWERED}."
    columns = {**asked, "output": "<its name>"}
    return f"{_HAVE_ANSWERED}, or if one of {list_keys(others)} is the answer, pass columns={columns}."


CONVERSATIONS = RowKind(
    "conversations that cannot be read",
    f"Mend what is named here, or remove these rows. A conversation is {FORM}.",
    is_conversation,
)
_CONVERSATION_KINDS = {
    kind: RowKind(what, advice, is_conversation, expression, wider=CONVERSATIONS)
    for kind, (what, advice, expression) in KINDS.items()
}
QUESTIONS = RowKind(
    "instructions or questions without answers",
    _to_answer,
    lambda row: _is_question(row) and [*map(str.casefold, map(str, row))] != ["text"],
)
_OF_OBJECTS = (
    RowKind("annotations of AlpacaEval: two models' outputs and which of them was preferred",
            "To report on them: alpaca-lora compare --preferences FILE. There is nothing in them to train on.",
            _has("output_1", "output_2")),
    RowKind("predictions of a model on Self-Instruct's evaluation tasks ('response'), with references ('target')",
            "Give them to alpaca-lora compare; do not train on what you evaluate with.",
            _has("instruction", "response", "target")),
    RowKind("answers of a model to an evaluation set (AlpacaEval's outputs; 'generator' names the model)",
            "Give them to alpaca-lora compare. To train on them all the same, pass columns={'generator': None}.",
            _has("instruction", "output", "generator"), keys=("generator",)),
    RowKind("preference pairs, a better and a worse answer to each prompt", _take_better,
            lambda row: better_and_worse(row) is not None, keys=("chosen", "rejected")),
    RowKind("preference pairs, two answers to each prompt", _take_one,
            lambda row: two_answers(row) is not None and "output" not in row),
    RowKind("instructions with several rated answers to each ('completions')",
            "Write one object per row with 'instruction' and, as 'output', its best answer.",
            lambda row: _are_dicts(row.get("completions"))),
    RowKind("instructions with a list of answers to each ('output')", "Take one of them; if the first is the best",
            lambda row: _are_texts(row.get("output")) and isinstance(row.get("instruction"), str),
            "[{**row, 'output': row['output'][0]} for row in rows]"),
    RowKind("rows with the record inside a key of theirs", "Take them out", lambda row: bool(_inner(row)),
            "[row[KEY] for row in rows if not row.get('truncated_cells')]",  # texts that the hub's viewer cut
            _inner),
    RowKind("answers marked good or bad ('prompt', 'completion', 'label')", "Keep the rows whose label is true",
            _has("prompt", "completion", "label"),
            "[{'instruction': row['prompt'], 'output': row['completion']} for row in rows "
            "if row['label'] in (True, 'True', 'true')]"),
    RowKind("trees of replies that cannot be read",
            "Each message of a tree has a 'text', a 'role' ('prompter' or 'assistant') and a list of 'replies': mend "
            "or remove these.", lambda row: "replies" in row or (isinstance(row.get("prompt"), dict)
            and not {"replies", "message_tree_id"}.isdisjoint({*row, *row["prompt"]})), wider=CONVERSATIONS),
    RowKind("messages of OpenAssistant's conversation trees (a reply names its 'parent_id')",
            "Give the file of its trees ('....trees.jsonl'), in which replies stand inside what they reply to.",
            _has("parent_id")),
    RowKind("questions of MT-bench, without answers ('question_id', 'turns')", f"{_HAVE_ANSWERED}.", _has("turns")),
    RowKind("Self-Instruct seed tasks, which keep input and output in a list, 'instances'",
            "Write a record for every instance", _has("instances"),
            "[{'instruction': row['instruction'], **one} for row in rows for one in row['instances']]"),
    RowKind("questions with a list of answers to each ('answers')", "Take the first",
            lambda row: "question" in row and isinstance(row.get("answers"), Mapping) and "text" in row["answers"],
            "[{'instruction': row['question'], 'input': row.get('context', ''), 'output': row['answers']['text'][0]} "
            "for row in rows if row['answers']['text']]"),
    RowKind("questions with choices",
            "Write one object for each, with the choices in the 'instruction' and the right one as the 'output'.",
            lambda row: any(isinstance(row.get(key), (list, Mapping)) for key in ("choices", "options"))),
    CONVERSATIONS,
    QUESTIONS,
    RowKind("texts, each in a single key ('text')",
            "A record is an instruction and its answer: split each text into 'instruction', 'input' and 'output'.",
            lambda row: "text" in row and _is_question(row)),
)  # fmt: skip
_OF_OTHERS = (
    RowKind("conversations, each a bare list of messages", "Give each list its key",
            lambda row: _are_dicts(row) and any(key in row[0] for key in ("role", "from")),
            "[{'messages': row} for row in rows]"),
    RowKind("lists of objects; a file is a single list", "Join them", _are_dicts,
            "[one for row in rows for one in row]"),
    RowKind("lists of values without their names",
            "Write each list as an object with the keys 'instruction', 'input' and 'output'; if the first names the "
            "others' values", lambda row: isinstance(row, list), "[dict(zip(rows[0], row)) for row in rows[1:]]"),
    RowKind("bare texts, without a key", "If they are questions for alpaca-lora answer",
            lambda row: isinstance(row, str), "[{'instruction': row} for row in rows]"),
)  # fmt: skip


def row_kind(row: object) -> RowKind | None:
    """The kind of a row, if it has one."""
    table = _OF_OBJECTS if isinstance(row, Mapping) else _OF_OTHERS
    found = next((kind for kind in table if kind.matches(row)), None)
    if found is CONVERSATIONS and isinstance(row, Mapping):
        return _CONVERSATION_KINDS.get(kind_of(row), found)
    return found
