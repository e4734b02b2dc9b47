"""Answers of several models to the same instructions, side by side: as a table in a notebook, as text, as a DataFrame.

In: models and instructions. Out: an `AnswerTable`. One model at a time is in memory, unless it was given loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from ..errors import ConfigError
from .model import LocalModel
from .prompt_format import Question, is_conversation, question_of, questions_of
from .sampling import Sampling

_CELL = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere"


@dataclass(frozen=True)
class AnswerTable:
    """Answers side by side."""

    instructions: list[tuple[str, str]]
    """Instruction and input of each row."""
    answers: dict[str, list[str]]
    """Answers by the model's name, in the order of the rows."""

    def to_pandas(self) -> Any:
        """A DataFrame: `instruction`, `input`, and one column per model."""
        import pandas

        instructions, inputs = zip(*self.instructions, strict=True)
        return pandas.DataFrame({"instruction": instructions, "input": inputs, **self.answers})

    def _repr_html_(self) -> str:
        width = f"width: {100 / (len(self.answers) + 1):.0f}%"
        head = "".join(f'<th style="{_CELL}; {width}">{escape(name)}</th>' for name in ("instruction", *self.answers))
        rows = "".join(
            "<tr>" + "".join(f'<td style="{_CELL}">{escape(text)}</td>' for text in row) + "</tr>" for row in self._rows
        )
        return f'<table style="width: 100%; table-layout: fixed"><tr>{head}</tr>{rows}</table>'

    def __str__(self) -> str:
        blocks = []
        for instruction, *texts in self._rows:
            answers = [f"--- {name}\n{text}" for name, text in zip(self.answers, texts, strict=True)]
            blocks.append("\n".join([f"=== {instruction}", *answers]))
        return "\n\n".join(blocks)

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        asked = [f"{instruction}\n\n{input}" if input else instruction for instruction, input in self.instructions]
        return list(zip(asked, *self.answers.values(), strict=True))


def answer_table(
    models: Mapping[str, Callable[[], LocalModel]],
    instructions: Iterable[Question],
    sampling: Sampling,
) -> AnswerTable:
    """Ask each model everything.

    Args:
        models: What gives each model, by its name.
        instructions: Texts, pairs of instruction and input, or records of which these are read.
        sampling: How tokens are chosen.

    Raises:
        ConfigError: nothing to ask, or nobody.
        DataError: an instruction that cannot be read.
    """
    asked = questions_of(instructions)
    if not asked or not models:
        raise ConfigError("compare_answers: give one model or more and a list of one instruction or more.")
    answers = {name: give().answers(asked, sampling) for name, give in models.items()}
    return AnswerTable([_shown(question) for question in asked], answers)


def _shown(question: Any) -> tuple[str, str]:
    """Instruction and input; of a conversation its turns, and no input."""
    if is_conversation(question):
        return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in question), ""
    return question_of(question)
