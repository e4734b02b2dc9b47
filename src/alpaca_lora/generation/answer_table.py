"""Answers of several models to the same instructions, side by side: as a table in a notebook, as text, as a DataFrame.

In: models and instructions. Out: an `AnswerTable`. One model at a time is in memory, unless it was given loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..errors import ConfigError
from .model import LocalModel
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
    instructions: Sequence[str | Mapping[str, str]],
    sampling: Sampling,
) -> AnswerTable:
    """Ask each model everything.

    Args:
        models: What gives each model, by its name.
        instructions: Texts, or records of which `instruction` and `input` are read.
        sampling: How tokens are chosen.

    Raises:
        ConfigError: nothing to ask, or nobody.
    """
    if isinstance(instructions, str) or not instructions or not models:
        raise ConfigError("compare_answers: give one model or more and a list of one instruction or more.")
    asked = [_pair(each, number) for number, each in enumerate(instructions, start=1)]
    return AnswerTable(asked, {name: give().answers(asked, sampling) for name, give in models.items()})


def _pair(given: str | Mapping[str, str], number: int) -> tuple[str, str]:
    if isinstance(given, str):
        return given, ""
    if not isinstance(given, Mapping) or not isinstance(given.get("instruction"), str):
        raise ConfigError(f"compare_answers: instruction {number} is neither a text nor a record: {given!r:.80}")
    return given["instruction"], given.get("input") or ""
