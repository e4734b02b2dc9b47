"""The folder of a comparison as preferences: `alpaca-lora compare` made it, and people or judges voted in it.

    folder/comparison.json   the pairs of answers
    folder/votes.jsonl       every vote, as the report counted it (votes.py)

By majority a pair is one record, numbered as in the comparison, if more votes prefer one answer than the other. With
`votes: every` each vote is a record. What has no winner is left out, and counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError, counted
from ...files import sha256_of_json
from ...textfiles import read_json_file
from ..record import is_blank
from .entry import SourceEntry
from .rows import Rows
from .votes import COMPARISON, HALF, JUDGES, ORDER, PEOPLE, TIE, VERSION, WHY, A, B, Vote, read_votes

_SPLIT = "as many votes for either answer"
_UNSEEN = "no vote"
_SAME = "both models gave the same answer"
_EMPTY = "one of the answers is empty"


def is_comparison(folder: Path) -> bool:
    """Whether a folder is a comparison's."""
    return (folder / COMPARISON).is_file()


def open_comparison(folder: Path, source: str, entry: SourceEntry) -> Rows:
    """The preferences of a comparison's folder; each has `instruction`, `input`, `chosen` and `rejected`.

    Args:
        folder: The folder.
        source: Its name, for messages.
        entry: May say `votes` (majority or every) and `raters` (people or judges).

    Raises:
        DataError: the folder is damaged, has no votes, has newer ones than its report, or has votes of people and of
            judges, and `raters` does not say whose are meant.
    """
    names, pairs, fingerprint = _read_pairs(folder, source)
    votes = _of_raters(read_votes(folder, source, pairs, fingerprint), source, entry.raters)
    if not votes:
        raise DataError(f"{source}: this comparison has no votes. Rate or judge its pairs first: alpaca-lora compare")
    every = entry.votes == "every"
    made = _each_vote(pairs, votes) if every else _by_majority(pairs, votes)
    rows, left_out = [], {}
    for index, (pair, winner) in enumerate(made):
        outputs = {A: pair["output_a"], B: pair["output_b"]}
        row = {"instruction": pair["instruction"], "input": pair["input"]}
        if winner in outputs:
            row |= {"chosen": outputs[winner], "rejected": outputs[A if winner == B else B]}
        rows.append(row)
        if reason := _why_left_out(outputs, winner):
            left_out[index] = reason
    note = _note(source, names, votes, made, left_out, "vote" if every else "pair")
    return Rows(rows, source, left_out=left_out, notes=(note,))


def _read_pairs(folder: Path, source: str) -> tuple[dict[str, str], dict[str, dict[str, str]], str]:
    """The models' names, the pairs by id, and a hash of both: the comparison's fingerprint."""
    content = read_json_file(folder / COMPARISON, DataError, "Compare the two files in another folder.")
    try:
        if (version := content["version"]) != VERSION:
            raise DataError(f"{source}: {COMPARISON} is of version {version!r}; this library reads {VERSION}.")
        pairs = {str(pair["id"]): pair for pair in content["pairs"]}
        texts = [pair[key] for pair in pairs.values() for key in ("instruction", "input", "output_a", "output_b")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text is none")
        names = {A: str(content["a"]), B: str(content["b"])}
        return names, pairs, sha256_of_json([content["a"], content["b"], content["pairs"]])
    except (KeyError, TypeError, AttributeError) as error:
        damage = f"{COMPARISON} is damaged ({error!r}). Compare the files in another folder."
        raise DataError(f"{source}: {damage}") from None


def _of_raters(votes: list[Vote], source: str, raters: str | None) -> list[Vote]:
    """The votes of people or of judges; they are never counted together."""
    kinds = sorted({vote.by for vote in votes})
    if raters is None and len(kinds) > 1:
        counts = Counter(vote.by for vote in votes)
        raise DataError(
            f"{source}: {counts[PEOPLE]:,} votes are of people and {counts[JUDGES]:,} of judges, and they are not "
            f"counted together. Name one: {{path: {source}, raters: {PEOPLE}}}."
        )
    if raters is not None and votes and raters not in kinds:
        raise DataError(f"{source}: none of its {counted(len(votes), 'vote')} is of {raters}. Leave raters out.")
    return [vote for vote in votes if raters in (None, vote.by)]


def _by_majority(pairs: Mapping[str, Any], votes: list[Vote]) -> list[tuple[Any, str]]:
    """Each pair with its winner, or why it has none."""
    cast: dict[str, Counter[str]] = {id: Counter() for id in pairs}
    for vote in votes:
        cast[vote.pair][vote.vote] += 1
    return [(pair, _winner(cast[id])) for id, pair in pairs.items()]


def _winner(cast: Counter[str]) -> str:
    if cast[A] != cast[B]:
        return A if cast[A] > cast[B] else B
    if cast[A]:
        return _SPLIT
    return next((vote for vote in (TIE, ORDER, HALF) if cast[vote]), _UNSEEN)


def _each_vote(pairs: Mapping[str, Any], votes: list[Vote]) -> list[tuple[Any, str]]:
    """Each vote with what it says, in the order of the pairs."""
    places = {id: place for place, id in enumerate(pairs)}
    return [(pairs[vote.pair], vote.vote) for vote in sorted(votes, key=lambda vote: places[vote.pair])]


def _why_left_out(outputs: Mapping[str, str], winner: str) -> str:
    if winner not in outputs:
        return WHY.get(winner, winner)
    if outputs[A].strip() == outputs[B].strip():
        return _SAME
    return _EMPTY if any(map(is_blank, outputs.values())) else ""


def _note(
    source: str,
    names: Mapping[str, str],
    votes: list[Vote],
    made: list[tuple[Any, str]],
    left_out: Mapping[int, str],
    unit: str,
) -> str:
    """In a sentence: what the votes gave."""
    raters = list(dict.fromkeys(vote.rater for vote in votes))
    won = Counter(winner for index, (_, winner) in enumerate(made) if index not in left_out)
    said = ", ".join(f"{won[side]:,} prefer {name}" for side, name in names.items())
    named = f"{', '.join(raters[:3])}{' and others' if len(raters) > 3 else ''}"
    told = (
        f"{source}: {counted(len(votes), 'vote')} of {named} on {counted(len(made), unit)} gave "
        f"{counted(len(made) - len(left_out), 'record')}: {said}."
    )
    if unit == "vote":
        told = (
            f"{source}: of {counted(len(votes), 'vote')} of {named} {len(made) - len(left_out):,} are records: {said}."
        )
    reasons = Counter(left_out.values())
    rest = "; ".join(f"{count:,}: {reason}" for reason, count in reasons.most_common())
    return told + (f" Left out: {rest}." if rest else "")
