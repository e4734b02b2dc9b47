"""Lint: what is wrong with instruction data, found with record numbers, and mended where that is mechanical.

findings.py    the checks and what they mean     texts.py        one text: placeholders, damage, cut-off ends
tasks.py       instruction, input and output against each other
arithmetic.py  sums that are wrong               expressions.py  the value of a sum
personal.py    addresses and numbers of people   overlap.py      against other records and an evaluation set
report.py      runs them all                     fix.py          writes the mended file
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report import LintReport


def lint(
    data: Any,
    *,
    against: Any = None,
    fix: str | Path | None = None,
    columns: dict[str, str | None] | None = None,
) -> LintReport:
    """Find what is wrong with instruction data, and mend what needs no judgement.

    Args:
        data: Records: files, folders, patterns, a hub id, or `seeds`. Blank outputs and rows that are no records are
            findings here.
        against: An evaluation set, with any keys; records that share text with it are errors.
        fix: A new .json or .jsonl file for the records with white space, <noinput>, empty outputs and duplicates mended
            or removed. NAME.lint.json beside it says what was done, and what is left with all record numbers.
        columns: Our field -> the data's own column; a column of theirs -> None is left out on purpose.

    Returns:
        The findings, of the data as they were; `print` shows a table and examples.

    Raises:
        DataError: data that cannot be read, or without a single record.
        ConfigError: `fix` names a file that is there already, or none for data.
        MissingDependencyError: rapidfuzz is not installed.
    """
    from .report import lint_data

    return lint_data(data, against=against, fix=fix, columns=columns)
