"""FastChat's files: judgements of MT-bench as votes, and answers to its questions.

`model_judgment/JUDGE_pair.jsonl`, a row per question, turn and pair of models; the judge saw both orders (g1: model_1
first), and has preferred a model only if both say so:

    {"question_id": 81, "model_1": ..., "model_2": ..., "g1_winner": "model_1", "g2_winner": "tie",
     "judge": ["gpt-4", "pair-v2"], "turn": 1, ...}            winners: model_1, model_2, tie, error (left out)

People's, as in the published judgements of MT-bench: `model_a`, `model_b`, and one `winner` of model_a, model_b, tie.

`model_judgment/JUDGE_single.jsonl`, a row per question, turn and model. Two models' scores of a turn that are more
than 0.1 apart are a win (FastChat's TIE_DELTA):

    {"question_id": 81, "model": ..., "judge": ["gpt-4", "single-v1"], "score": 7, "turn": 1, ...}    -1: left out

`model_answer/MODEL.jsonl`, a row per question; FastChat calls the model as the file is called:

    {"question_id": 81, "answer_id": ..., "model_id": ..., "choices": [{"index": 0, "turns": [...]}], "tstamp": ...}

Source: Zheng et al. (2023), arXiv 2306.05685; lm-sys/FastChat, fastchat/llm_judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from ..data.columns import list_keys
from ..errors import DataError, did_you_mean
from ..files import sha256_of_json, write_atomically
from .statistics.votes import Vote

_TIE = 0.1
_SIDES = {"model_1": ("model_1", "model_2"), "model_a": ("model_a", "model_b")}


class Score(NamedTuple):
    """A grade of one model's answer; `judge` and `question` say which others it can be compared with."""

    judge: str
    question: str
    turn: int
    model: str
    value: float


def is_fastchat(row: object) -> bool:
    """Whether a row is a judgement of FastChat's."""
    return isinstance(row, dict) and "question_id" in row and "judge" in row


def is_graded(row: Mapping[str, Any]) -> bool:
    """Whether it grades one model's answer."""
    return "score" in row and "model" in row


def votes_of_games(row: Any) -> list[Vote]:
    """The vote that a row comes to, and each order by itself if it has both; nothing if the judge failed.

    Both turns of a question are votes on one item: they are not independent.

    Raises:
        DataError: a key is missing, or a winner is none.
    """
    first, second = _SIDES["model_a" if isinstance(row, dict) and "model_a" in row else "model_1"]
    games = ["winner"] if isinstance(row, dict) and "winner" in row else ["g1_winner", "g2_winner"]
    _check(row, ("question_id", "judge", first, second, *games))
    won = [_won(row[game], game, (first, second)) for game in games]
    if None in won:
        return []
    values = [value for value in won if value is not None]
    vote = Vote(
        item=str(row["question_id"]),
        rater=_judge(row),
        a=str(row[first]),
        b=str(row[second]),
        preference=values[0] if len(set(values)) == 1 else 0.5,
        category=f"turn {_turn(row)}",
    )
    if len(games) == 1 or "m1_score" in row:  # one order, or none: two grades
        return [vote]
    orders = zip(values, (vote.a, vote.b), strict=True)
    return [vote, *(replace(vote, preference=value, shown_first=shown) for value, shown in orders)]


def score_of(row: Any) -> Score | None:
    """A row's grade; None if the judge gave none.

    Raises:
        DataError: a key is missing, or the score is no number.
    """
    _check(row, ("question_id", "judge", "model", "score"))
    value = row["score"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
        raise DataError(f"score is {value!r}; give a number, of MT-bench from 1 to 10, or -1 where there is none.")
    if value == -1:
        return None
    return Score(_judge(row), str(row["question_id"]), _turn(row), str(row["model"]), float(value))


def votes_of_scores(scores: Sequence[Score]) -> list[Vote]:
    """A vote for each two models graded by the same judge on the same turn."""
    graded: dict[tuple[str, str, int], dict[str, float]] = {}
    for score in scores:
        graded.setdefault(score[:3], {})[score.model] = score.value
    votes = []
    for (judge, question, turn), values in graded.items():
        for a, b in combinations(values, 2):
            lead = round(values[a] - values[b], 9)
            preference = 0.5 if abs(lead) <= _TIE else float(lead > 0)
            votes.append(Vote(question, judge, a, b, preference, f"turn {turn}"))
    return votes


class Answer(NamedTuple):
    """A model's answers to the turns of one question; `time`: when the last one came, in seconds since 1970."""

    question: int | str
    turns: list[str]
    time: float


def write_model_answers(path: Path, model: str, answers: Sequence[Answer]) -> None:
    """Write FastChat's `model_answer`, whole or not at all."""
    lines = [
        {
            "question_id": one.question,
            "answer_id": sha256_of_json([model, one.question, one.turns])[:22],
            "model_id": model,
            "choices": [{"index": 0, "turns": one.turns}],
            "tstamp": one.time,
        }
        for one in answers
    ]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _won(value: Any, key: str, sides: tuple[str, str]) -> float | None:
    """1, 0 or 0.5 for the first side; None for a judge's failure."""
    if value == "error":
        return None
    if value in sides:
        return float(value == sides[0])
    if isinstance(value, str) and value.startswith(("tie", "inconsistent")):  # people's: "tie (bothbad)"
        return 0.5
    raise DataError(f"{key} is {value!r}; a winner is {sides[0]}, {sides[1]}, tie or error.")


def _check(row: Any, needed: Sequence[str]) -> None:
    if not isinstance(row, dict):
        raise DataError("this is no object. A judgement of FastChat's is one.")
    if missing := [key for key in needed if row.get(key) is None]:
        raise DataError(
            f"{missing[0]!r} is missing.{did_you_mean(missing[0], map(str, row))} A judgement of FastChat's has "
            f"{list_keys(needed)}."
        )


def _judge(row: dict[str, Any]) -> str:
    """The judge's name; FastChat puts its prompt's beside it, which differs by category."""
    judge = row["judge"]
    return str(judge[0] if isinstance(judge, list) and judge else judge)


def _turn(row: dict[str, Any]) -> int:
    turn = row.get("turn", 1)
    if isinstance(turn, bool) or not isinstance(turn, int):
        raise DataError(f"turn is {turn!r}; give 1 or 2.")
    return turn
