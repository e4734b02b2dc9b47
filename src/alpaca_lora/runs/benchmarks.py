"""Benchmarks of a model, as they are shown, kept beside it in benchmarks.json, and put in its card.

    {"model": "first", "weights": "5c1e...", "tasks": [{"task": "arc_easy", "documents": 2376, ..., "scores": [...]}]}

Measured by evaluation/benchmarks. The file goes with the weights that it was measured on: a folder whose weights are
others has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from html import escape
from json import dumps
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..errors import DataError
from ..files import sha256_of_file, write_atomically
from ..models.fingerprint import fingerprint
from ..textfiles import read_text_file
from .adapter_files import WEIGHTS, is_adapter

BENCHMARKS = "benchmarks.json"
_HEADING = "## Benchmarks by lm-eval"
_SECTION = re.compile(rf"^{_HEADING}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BEFORE = re.compile(r"^## Limits$", re.MULTILINE)
_CARD = "README.md"
_ROWS = ("task", "shots", "documents", "asked", "measure", "value (95% interval)")
_METHOD = (
    "Intervals are about the choice of documents: Wilson's where a document counts 0 or 1, else 1.96 of lm-eval's "
    "standard errors to either side."
)
_AGAIN = "Delete it, and measure again."


@dataclass(frozen=True)
class Score:
    """One figure of a task."""

    measure: str
    """lm-eval's name for it: `acc`, `exact_match (strict-match)`."""
    value: float
    low: float | None = None
    """Lower end of its 95% interval; None where lm-eval has no standard error."""
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends or none")

    def __str__(self) -> str:
        ends = "" if self.low is None else f" ({self.low:.4f} to {self.high:.4f})"
        return f"{self.value:.4f}{ends}"


@dataclass(frozen=True)
class TaskScores:
    """A task, or a group of tasks that has an average of its own."""

    task: str
    version: str
    """Of the task's definition."""
    num_fewshot: int | None
    """Examples before each question; None for a group of tasks that differ in it."""
    documents: int
    """Measured on."""
    of: int
    """Documents that the task has."""
    template: str
    """Name of the template that questions were put in; "" for bare text."""
    dtype: str
    """In which the model was computed."""
    lm_eval: str
    """Version of lm-eval."""
    scores: tuple[Score, ...]

    def __str__(self) -> str:
        """`arc_easy: acc 0.5714 (0.5514 to 0.5912), acc_norm ...`."""
        return f"{self.task}: {', '.join(f'{score.measure} {score}' for score in self.scores)}"


@dataclass(frozen=True)
class Benchmarks:
    """What lm-eval's tasks say of a model; `print` shows a table."""

    model: str
    """What it is called."""
    tasks: tuple[TaskScores, ...]
    weights: str = ""
    """Hash of the folder's weights; "" for a model without a folder of ours."""

    @classmethod
    def read(cls, folder: str | Path) -> Benchmarks | None:
        """Those of a folder's weights; None without any.

        Raises:
            DataError: benchmarks.json is damaged.
        """
        path = Path(folder) / BENCHMARKS
        if not path.exists():
            return None
        try:
            found = TypeAdapter(cls).validate_json(read_text_file(path, DataError, _AGAIN))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "it"
            raise DataError(f"{path}: damaged: {place}: {first['msg']}. {_AGAIN}") from None
        return found if found.weights == weights_of(folder) else None

    def keep(self, folder: str | Path) -> Benchmarks:
        """Write them beside the model and into its card, with those of other tasks that are there already.

        A task measured again in the same way (shots, template) takes the place of the earlier one, unless that was
        measured on more documents.
        """
        folder = Path(folder)
        before = Benchmarks.read(folder)
        tasks: dict[object, TaskScores] = {}
        for one in (*(before.tasks if before else ()), *self.tasks):
            way = one.task, one.num_fewshot, one.template
            if way not in tasks or one.documents >= tasks[way].documents:
                tasks[way] = one
        all_of = replace(self, tasks=tuple(tasks.values()), weights=weights_of(folder))
        write_atomically(folder / BENCHMARKS, dumps(asdict(all_of), indent=1, ensure_ascii=False) + "\n")
        if (card := folder / _CARD).exists():
            write_atomically(card, all_of.put_in(read_text_file(card, DataError)))
        return all_of

    def put_in(self, card: str) -> str:
        """A model card with them, in place of what it has of them; all else in it stays."""
        section = f"{_HEADING}\n\n{self.markdown}\n\n"
        if _SECTION.search(card):
            return _SECTION.sub(lambda _: section, card, count=1)
        if found := _BEFORE.search(card):
            return card[: found.start()] + section + card[found.start() :]
        return f"{card.rstrip()}\n\n{section}".rstrip() + "\n"

    @property
    def markdown(self) -> str:
        """A table, and how it was made."""
        rows = [_ROWS, ("---",) * len(_ROWS), *(tuple(map(_cell, row)) for row in self.rows())]
        return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", self.method])

    @property
    def method(self) -> str:
        """How they were measured."""
        versions = ", ".join(sorted({one.lm_eval for one in self.tasks}))
        dtypes = ", ".join(sorted({one.dtype for one in self.tasks}))
        return f"Measured with lm-eval {versions} in {dtypes}. {_METHOD}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A row for each figure: task, shots, documents, template, measure, value."""
        for one in self.tasks:
            shots = "" if one.num_fewshot is None else f"{one.num_fewshot}"
            count = f"{one.documents:,}" + (f" of {one.of:,}" if one.documents < one.of else "")
            for score in one.scores:
                yield one.task, shots, count, one.template or "bare text", score.measure, str(score)

    def __str__(self) -> str:
        table = [_ROWS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join([f"{self.model}:", *lines, self.method])

    def _repr_html_(self) -> str:
        head, *rows = (
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
            for row, tag in [(_ROWS, "th"), *((row, "td") for row in self.rows())]
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<table><caption>{escape(self.model)}</caption><tr>{head}</tr>{body}</table><p>{escape(self.method)}</p>"
        )


def weights_of(folder: str | Path) -> str:
    """What tells an adapter's or a model's weights from others."""
    return sha256_of_file(Path(folder) / WEIGHTS) if is_adapter(folder) else fingerprint(str(folder))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
