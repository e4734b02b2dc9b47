"""Preference files: judgements made elsewhere, as votes.

AlpacaEval's `annotations.json`, a row:

    {"instruction": ..., "output_1": ..., "generator_1": baseline, "output_2": ..., "generator_2": model,
     "annotator": ..., "preference": 1.5, "dataset": ...}

`preference` is 1 (the baseline is better), 2 (the model is), 1.5 (a draw; 0 in old files), a number in between
(1 + the probability that the model is better), or null (the annotator failed; left out, and counted).

Or a table, CSV or JSON, of our own:

    item,model_a,model_b,preference,rater,category,length_a,length_b,shown_first

`preference` is a, b, tie, or the probability from 0 to 1 that a's answer is better; empty is left out, and counted.
`shown_first` is a or b. The columns after `preference` may be absent, and their cells empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.rows import list_keys
from ..data.sources import open_source
from ..errors import DataError, a, did_you_mean
from .votes import Vote, one_sided

COLUMNS = ("item", "model_a", "model_b", "preference")
OPTIONAL = ("rater", "category", "length_a", "length_b", "shown_first")
_ALPACA_EVAL = ("instruction", "generator_1", "generator_2", "preference")
_WORDS = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Preferences:
    """What a file gave.

    Attributes:
        votes: In the order of the file; of AlpacaEval's, `a` is the model (generator_2) and `b` the baseline.
        left_out: Rows without a preference.
        source: The file, for messages.
    """

    votes: list[Vote]
    left_out: int
    source: str


class AlpacaEvalScore(NamedTuple):
    """As AlpacaEval's leaderboard shows them: percents."""

    win_rate: float
    standard_error: float


def read_preferences(path: str | Path) -> Preferences:
    """Reads annotations of AlpacaEval or a table of preferences.

    Args:
        path: A JSON, JSON Lines, CSV or Parquet file.

    Raises:
        DataError: The file cannot be read, or a row cannot be used; the message names file, record and line.
    """
    rows = open_source(Path(path))
    if not rows.values:
        raise DataError(f"{rows.source}: the file holds no preferences (0 rows). Name another file.")
    read = _read_annotation if _is_alpaca_eval(rows.values[0]) else _read_row
    votes = []
    for index, row in enumerate(rows.values):
        try:
            vote = read(row)
        except DataError as problem:
            raise DataError(f"{rows.where(index)}: {problem}") from None
        if vote is not None:
            votes.append(vote)
    left_out = len(rows.values) - len(votes)
    if not votes:
        raise DataError(f"{rows.source}: none of the {left_out:,} rows has a preference. Name another file.")
    return Preferences(votes, left_out, rows.source)


def alpaca_eval_score(votes: Sequence[Vote]) -> AlpacaEvalScore:
    """Win rate and standard error of `votes[0].a` as AlpacaEval computes them.

        win_rate = 100 mean(x),    standard_error = 100 sd(x) / sqrt(n),    x = preference from 0 to 1

    sd with n - 1. Rows count as independent, and an interval of +- 1.96 standard errors may leave [0, 100]; `win_rate`
    of statistics.py has neither fault, and is what reports use. Source: alpaca_eval 0.6.6, metrics/winrate.py.

    Example:
        >>> alpaca_eval_score([Vote(str(i), "judge", "A", "B", x) for i, x in enumerate([1, 1, 0.5, 0])])
        AlpacaEvalScore(win_rate=62.5, standard_error=23.9...)
    """
    values = [vote.preference for vote in one_sided(votes)]
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return AlpacaEvalScore(100 * mean, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return AlpacaEvalScore(100 * mean, 100 * math.sqrt(variance / len(values)))


def _is_alpaca_eval(row: object) -> bool:
    return isinstance(row, dict) and ("generator_1" in row or "generator_2" in row)


def _read_annotation(row: Any) -> Vote | None:
    _check_keys(row, _ALPACA_EVAL)
    value = _number(row["preference"], "preference")
    if value is None:
        return None
    if value == 0:
        value = 1.5
    if not 1 <= value <= 2:
        raise DataError(
            f"preference is {value:g}; AlpacaEval's is 1 (generator_1 is better), 2 (generator_2), 1.5 (a draw) or a "
            "number in between. Correct it, or make it null."
        )
    # Old files put an input beside the instruction.
    item = "\n\n".join(text for text in (_text(row, "instruction"), _text(row, "input")) if text)
    return Vote(
        item=item,
        rater=_text(row, "annotator"),
        a=_text(row, "generator_2"),
        b=_text(row, "generator_1"),
        preference=value - 1,
        category=_text(row, "dataset"),
        length_a=len(row["output_2"]) if isinstance(row.get("output_2"), str) else None,
        length_b=len(row["output_1"]) if isinstance(row.get("output_1"), str) else None,
    )


def _read_row(row: Any) -> Vote | None:
    _check_keys(row, COLUMNS, OPTIONAL)
    given = row["preference"]
    word = given.strip().lower() if isinstance(given, str) else None
    value = _WORDS[word] if word in _WORDS else _number(given, "preference", ", or a, b or tie")
    if value is None:
        return None
    models = {"a": _text(row, "model_a"), "b": _text(row, "model_b")}
    first = _text(row, "shown_first").strip().lower()
    if first not in ("", *models):
        raise DataError(f"shown_first is {row['shown_first']!r}; give a (model_a) or b (model_b), or leave it empty.")
    empty = [key for key in COLUMNS[:3] if not _text(row, key).strip()]
    if empty:
        raise DataError(f"{empty[0]} is empty. Fill it in: a vote needs an item and two models.")
    return Vote(
        item=_text(row, "item"),
        rater=_text(row, "rater"),
        a=models["a"],
        b=models["b"],
        preference=value,
        category=_text(row, "category"),
        length_a=_length(row, "length_a"),
        length_b=_length(row, "length_b"),
        shown_first=models[first] if first else "",
    )


def _check_keys(row: Any, needed: Sequence[str], optional: Sequence[str] | None = None) -> None:
    """`optional` given, other keys than these are refused: a misspelt column would silently be missing."""
    if not isinstance(row, dict):
        raise DataError(f"this is {a(type(row).__name__)}, not an object. A row is an object or a line of a CSV table.")
    missing = [key for key in needed if key not in row]
    if missing:
        raise DataError(
            f"{missing[0]!r} is missing.{did_you_mean(missing[0], map(str, row))} The row has {list_keys(row)}; it "
            f"needs {list_keys(needed)}."
        )
    unknown = [] if optional is None else [str(key) for key in row if key not in (*needed, *optional)]
    if unknown:
        raise DataError(
            f"{unknown[0]!r} is no column of a preference table.{did_you_mean(unknown[0], optional or ())} "
            f"Beside {list_keys(needed)} it may have {list_keys(optional or ())}."
        )


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{key} is {value!r}, {a(type(value).__name__)}; give text.")


def _number(value: Any, key: str, other: str = "") -> float | None:
    """None for a value that is not there: null, NaN or an empty cell."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise DataError(f"{key} is {value!r}; give a number{other}, or leave it empty.")
    return None if math.isnan(number) else number


def _length(row: dict[str, Any], key: str) -> int | None:
    value = _number(row.get(key), key)
    if value is not None and (value < 0 or value != int(value)):
        raise DataError(f"{key} is {row[key]!r}; give a count of characters, or leave it empty.")
    return None if value is None else int(value)
