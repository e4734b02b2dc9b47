"""Preference files: judgements made elsewhere, as votes.

AlpacaEval's `annotations.json`, a row:

    {"instruction": ..., "output_1": ..., "generator_1": baseline, "output_2": ..., "generator_2": model,
     "annotator": ..., "preference": 1.5, "dataset": ...}

`preference` is 1 (the baseline is better), 2 (the model is), 1.5 (a draw; 0 in old files), a number in between
(1 + the probability that the model is better), or null (the annotator failed; left out, and counted).

FastChat's judgements, of MT-bench for example: fastchat.py.

A table, CSV or JSON, of our own:

    item,model_a,model_b,preference,rater,category,length_a,length_b,shown_first

`preference` is a, b, tie, or the probability from 0 to 1 that a's answer is better; empty is left out, and counted.
`shown_first` is a or b. The columns after `preference` may be absent, and their cells empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..data.columns import list_keys
from ..data.sources import Rows, open_source
from ..errors import DataError, a, did_you_mean
from .fastchat import is_fastchat, is_graded, score_of, votes_of_games, votes_of_scores
from .statistics.votes import Vote

COLUMNS = ("item", "model_a", "model_b", "preference")
OPTIONAL = ("rater", "category", "length_a", "length_b", "shown_first")
_ALPACA_EVAL = ("instruction", "generator_1", "generator_2", "preference")
_WORDS = {"a": 1.0, "b": 0.0, "tie": 0.5}
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Preferences:
    """What a file gave.

    Attributes:
        votes: In the order of the file; of AlpacaEval's, `a` is the model (generator_2) and `b` the baseline.
        left_out: Rows without a preference.
        source: The file, for messages.
        single: Votes of one order each, if a judge saw every pair in both; for position bias.
        scores: Of graded answers: model -> turn -> its scores.
    """

    votes: list[Vote]
    left_out: int
    source: str
    single: list[Vote] = field(default_factory=list)
    scores: Mapping[str, Mapping[int, Sequence[float]]] = field(default_factory=dict)


def read_preferences(path: str | Path) -> Preferences:
    """Reads annotations of AlpacaEval, judgements of FastChat or a table of preferences.

    Args:
        path: A JSON, JSON Lines, CSV or Parquet file.

    Raises:
        DataError: The file cannot be read, or a row cannot be used; the message names file, record and line.
    """
    rows = open_source(Path(path))
    if not rows.values:
        raise DataError(f"{rows.source}: the file holds no preferences (0 rows). Name another file.")
    found = _read_fastchat(rows) if is_fastchat(rows.values[0]) else _read_votes(rows)
    if not found.votes:
        raise DataError(f"{rows.source}: none of the {found.left_out:,} rows has a preference. Name another file.")
    return found


def _read_votes(rows: Rows) -> Preferences:
    read = _read_annotation if _is_alpaca_eval(rows.values[0]) else _read_row
    votes = [vote for vote in _each(rows, read) if vote is not None]
    return Preferences(votes, len(rows.values) - len(votes), rows.source)


def _read_fastchat(rows: Rows) -> Preferences:
    if is_graded(rows.values[0]):
        scores = _each(rows, score_of)
        given = [score for score in scores if score is not None]
        if len({score.model for score in given}) == 1:
            raise DataError(
                f"{rows.source}: grades answers of one model ({given[0].model}); a comparison needs two. Put the "
                "grades of another model, by the same judge, into the file."
            )
        by_model: dict[str, dict[int, list[float]]] = {}
        for score in given:
            by_model.setdefault(score.model, {}).setdefault(score.turn, []).append(score.value)
        return Preferences(votes_of_scores(given), len(scores) - len(given), rows.source, scores=by_model)
    judged = _each(rows, votes_of_games)
    votes = [votes[0] for votes in judged if votes]
    return Preferences(votes, len(judged) - len(votes), rows.source, [one for votes in judged for one in votes[1:]])


def _each(rows: Rows, read: Callable[[Any], _Read]) -> list[_Read]:
    found = []
    for index, row in enumerate(rows.values):
        try:
            found.append(read(row))
        except DataError as problem:
            raise DataError(f"{rows.where(index)}: {problem}") from None
    return found


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
    asked, given = _text(row, "instruction"), _text(row, "input")
    item = asked if asked.endswith(given) else f"{asked}\n\n{given}"  # old files put an input beside the instruction
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
