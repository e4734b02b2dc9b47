"""Lint: what is wrong with instruction data, found with record numbers, and mended if that is mechanical.

linter.py      runs the checks                   lint_report.py  what they found
findings.py    the checks, and what they mean    fix.py          writes the mended file
texts.py       one text: damage, cut-off ends    leftovers.py    what templates and chat formats left in it
tasks.py       one record's texts together       overlap.py      against other records and an evaluation set
personal.py    addresses and numbers of people         pairs.py        two answers to one prompt
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .lint_report import LintReport


def lint(
    data: Any,
    *,
    against: Any = None,
    fix: str | Path | None = None,
    columns: dict[str, str | None] | None = None,
    objective: Literal["sft", "dpo", "orpo"] = "sft",
) -> LintReport:
    """Find what is wrong with instruction data or preferences, and mend what needs no judgement.

    Args:
        data: Records: files, folders, patterns, a hub id, or `seeds`. Blank outputs and rows that are no records are
            findings here.
        against: An evaluation set, with any keys; records that share text with it are errors.
        fix: A new .json or .jsonl file for the records with white space, <noinput>, empty outputs and duplicates mended
            or removed. NAME.lint.json beside it says what was done, and what is left with all record numbers.
        columns: Our field -> the data's own column; a column of theirs -> None is left out on purpose.
        objective: What the records are for, as for `finetune`; with "dpo" and "orpo" they are preferences.

    Returns:
        The findings, of the data as they were; `print` shows a table and examples.

    Raises:
        DataError: data that cannot be read, or without a single record.
        ConfigError: `fix` names a file that is there already, or none for data; there is no such objective.
        MissingDependencyError: rapidfuzz is not installed.
    """
    from .linter import lint_data

    return lint_data(data, against=against, fix=fix, columns=columns, objective=objective)
