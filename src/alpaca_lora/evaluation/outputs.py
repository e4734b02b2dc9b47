"""Instructions to answer, and files of answers: what a comparison is made from.

Instructions come as records (Alpaca's keys or one ShareGPT exchange; the output is not read), as Self-Instruct's tasks
(`instances`; user_oriented_instructions.jsonl), in AlpacaEval's format, as questions of MT-bench (`turns`), or under
other usual names (`prompt`, `question` with `context`, `text`). Answers come, and go, as AlpacaEval's `model_outputs`,
one row per instruction:

    {"instruction": ..., "input": ..., "output": ..., "generator": "my-model", "dataset": "email", "settings": "{...}"}

An input stands below its instruction as well, in one text: AlpacaEval pairs by `instruction` alone, and shows its
judges nothing else. `generator` names the model, `dataset` is the instruction's category, and `settings`, a JSON object
as text (AlpacaEval cannot read nested values), says how the answers were made. Self-Instruct's `*_predictions.jsonl`
are read, too.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.columns import list_keys, question_columns
from ..data.probe import PROBE_FILE
from ..data.record import BLANK, Record, as_record, is_blank
from ..data.records.reader import RowReader
from ..data.records.row_problem import RowProblem
from ..data.sources import Rows, open_source
from ..errors import DataError, a, counted
from ..files import write_atomically

CATEGORY_KEYS = ("category", "dataset", "motivation_app")
PROBE = "probe"
"""The word for the packaged probe of known limits; a file of that name is `./probe`."""
_PREDICTIONS = "_predictions"
_BETWEEN = "\n\n"
_FASTCHAT = (
    "this is FastChat's model_answer, which holds no instruction. Have FastChat judge it; `alpaca-lora compare "
    "--preferences FILE` reads its judgements. Or answer again into a .json file."
)


@dataclass(frozen=True)
class Instruction:
    """What a model is asked.

    Attributes:
        instruction: The text.
        input: What it is about; "" if that is in the text.
        category: "" if the file has none.
        more: Turns that are asked after it, in one conversation.
        question: Its `question_id` in MT-bench, or its place in the file, from 1; 0 if it is asked alone.
    """

    instruction: str
    input: str
    category: str = ""
    more: tuple[str, ...] = ()
    question: int | str = 0

    @property
    def text(self) -> str:
        """Instruction and input as one text, as AlpacaEval's own instructions hold theirs."""
        return _BETWEEN.join(part for part in (self.instruction, self.input) if not is_blank(part))

    @property
    def id(self) -> str:
        """12 hex digits of a hash over instruction and input; white space does not count, nor where one ends.

        Example:
            >>> Instruction("Add.", "2, 3").id == Instruction("Add.\\n\\n2, 3 ", "").id
            True
        """
        words = f"{self.instruction}\n\n{self.input}".split()
        return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ModelOutput:
    """A model's answer; `settings` is the JSON text that says how it was made, "" if the file has none."""

    instruction: str
    input: str
    output: str
    generator: str
    category: str = ""
    settings: str = ""

    @property
    def asked(self) -> Instruction:
        """What it answers."""
        return Instruction(self.instruction, self.input, self.category)


def read_instructions(path: str | Path, *, turns: bool = False) -> list[Instruction]:
    """The instructions of a file, in its order; a task of Self-Instruct gives one for each of its instances.

    Args:
        path: The file, or "probe": 50 packaged questions with false premises, invented things and harmful requests.
        turns: Give further turns and ids of questions, too; without, there is a warning if any question has several.

    Raises:
        DataError: the file cannot be read, or a row cannot be used; file, record and line are named.
    """
    rows = open_source(PROBE_FILE if str(path) == PROBE else Path(path))
    reader = RowReader()
    found: list[Instruction] = []
    several_turns = sum(isinstance(row, dict) and len(_turns(row)) > 1 for row in rows.values)
    if several_turns and not turns:
        warnings.warn(
            f"{rows.source}: of {counted(several_turns, 'question')} with several 'turns', only the first is asked. "
            "Name an answer file in .jsonl to ask all of them.",
            stacklevel=2,
        )
    for index, row in enumerate(rows.values):
        try:
            for part in _instances(row):
                record = as_record(reader.read({**part, "output": ""} if isinstance(part, dict) else part))
                one = Instruction(*_asked(record, row), _category(row))
                found.append(replace(one, **_conversation(row, len(found) + 1)) if turns else one)
        except RowProblem as problem:
            raise DataError(f"{rows.where(index)}: {problem}") from None
    if not found:
        raise DataError(f"{rows.source}: the file holds no instructions (0 rows). Name another file.")
    return found


def read_outputs(path: str | Path) -> list[ModelOutput]:
    """One model's answers, in the order of their file.

    Without `generator` the model is called as the file is. Texts are kept as they are.

    Raises:
        DataError: the file cannot be read, a row cannot be used, or the answers are not all one model's.
    """
    path = Path(path)
    rows = open_source(path)
    readers = {"output": RowReader(), "response": RowReader({"output": "response"})}
    found = []
    for index, row in enumerate(rows.values):
        predicted = isinstance(row, dict) and "response" in row and "output" not in row
        try:
            if isinstance(row, dict) and "choices" in row and "question_id" in row:
                raise RowProblem(_FASTCHAT)
            record = as_record(readers["response" if predicted else "output"].read(row))
            instruction, input = _asked(record, row)
            generator = _text(row, "generator") or path.stem.removesuffix(_PREDICTIONS)
            category, settings = _category(row), _text(row, "settings")
            found.append(ModelOutput(instruction, input, record.output, generator, category, settings))
        except RowProblem as problem:
            raise DataError(f"{rows.where(index)}: {problem}") from None
    _check_one_model(rows, found)
    return found


def write_outputs(path: str | Path, outputs: Sequence[ModelOutput]) -> None:
    """Write answers as AlpacaEval's `model_outputs`, whole or not at all."""
    rows: list[dict[str, Any]] = []
    for made in outputs:
        row = {"instruction": made.asked.text, "input": made.input, "output": made.output, "generator": made.generator}
        rows.append({**row, **({"dataset": made.category} if made.category else {}), "settings": made.settings})
    write_atomically(Path(path), json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def _instances(row: Any) -> list[Any]:
    """The rows that a task of Self-Instruct stands for; any other row alone, with its question under our names."""
    if not isinstance(row, dict):
        return [row]
    if turns := _turns(row):
        return [{"instruction": turns[0]}]
    if "instances" not in row:
        return [{**row, **{field: row[key] for field, key in question_columns(row).items() if key in row}}]
    instances = row["instances"]
    if not isinstance(instances, list) or not all(isinstance(instance, dict) for instance in instances):
        raise RowProblem("'instances' is no list of objects, as it is in Self-Instruct's files. Correct it.")
    return [{"instruction": row.get("instruction"), "input": instance.get("input")} for instance in instances]


def _turns(row: dict[str, Any]) -> list[str]:
    """The turns of a question of MT-bench."""
    turns = row.get("turns") if "instruction" not in row else None
    return turns if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns) else []


def _conversation(row: Any, place: int) -> dict[str, Any]:
    """What an `Instruction` has beside the first turn."""
    id = row.get("question_id", place)
    if isinstance(id, bool) or not isinstance(id, (int, str)):
        raise RowProblem(f"'question_id' is {id!r}, {a(type(id).__name__)}. Give a number or a text.")
    return {"more": tuple(_turns(row)[1:]), "question": id}


def _asked(record: Record, row: Any) -> tuple[str, str]:
    """Instruction and input; in a file of answers, the one may hold the other, too."""
    instruction, input = record.instruction, record.input
    if is_blank(instruction) and is_blank(input):
        raise RowProblem(BLANK)
    if isinstance(row, dict) and "generator" in row and not is_blank(input):
        instruction = "" if instruction == input else instruction.removesuffix(_BETWEEN + input)
    return instruction, input


def _category(row: dict[str, Any]) -> str:
    return next(filter(None, (_text(row, key) for key in CATEGORY_KEYS)), "")


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise RowProblem(f"{key!r} is {value!r}, {a(type(value).__name__)}, not a string. Write it as text.")
    return (value or "").strip()


def _check_one_model(rows: Rows, found: Sequence[ModelOutput]) -> None:
    if not found:
        raise DataError(f"{rows.source}: the file holds no answers (0 rows). Name another file.")
    names = Counter(made.generator for made in found)
    if len(names) > 1:
        raise DataError(
            f"{rows.source}: holds answers of {len(names)} models: {list_keys(names)} (generator). A file holds those "
            "of one; write a file for each."
        )
