"""The folder of a comparison as preferences: `alpaca-lora compare` made it, and people or judges voted in it.

    folder/comparison.json   the pairs of answers
    folder/votes.jsonl       every vote, as the report counted it; evaluation/vote_file.py writes it with each report:

    {"version": 1, "comparison": "<hash of the pairs>", "read": {"ratings.sqlite": [120, 131], "judge-m/...": 8123}}
    {"pair": "0a1b2c3d4e5f", "by": "people", "rater": "zoe", "vote": "a"}
    {"pair": "0a1b2c3d4e5f", "by": "judges", "rater": "m", "vote": "order"}

A vote is `a` or `b`, whose answer is the better one, `tie`, `order` (a judge's two verdicts differ: it went by the
order of the answers, at least in part) or `half` (a judge was heard in one order only). Only `a` and `b` say which is
better.

By majority a pair is one record, numbered as in the comparison, if more votes prefer one answer than the other. With
`votes: every` each vote is a record. What has no winner is left out, and counted by reason.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError, counted
from ...files import sha256_of_json
from ...textfiles import parse_json, read_json_file, read_text_file
from ..record import is_blank
from .entry import SourceEntry
from .rows import Rows

COMPARISON, RATINGS, VOTES = "comparison.json", "ratings.sqlite", "votes.jsonl"
VERSION = 1
A, B, TIE, ORDER, HALF = "a", "b", "tie", "order", "half"
"""What a vote says."""
PEOPLE, JUDGES = "people", "judges"

_WHY = {
    TIE: "ties",
    ORDER: "the judge's verdict followed the order of the answers",
    HALF: "a judge was heard in one order only",
}
_SPLIT = "as many votes for either answer"
_UNSEEN = "no vote"
_SAME = "both models gave the same answer"
_EMPTY = "one of the answers is empty"


class Vote(NamedTuple):
    """A line of the file."""

    pair: str
    by: str
    rater: str
    vote: str


def is_comparison(folder: Path) -> bool:
    """Whether a folder is a comparison's."""
    return (folder / COMPARISON).is_file()


def state_of(folder: Path) -> dict[str, Any]:
    """How far the files that hold votes have come: they only grow, and a file of votes is of one such state.

    Raises:
        DataError: one of them cannot be read.
    """
    found: dict[str, Any] = {}
    try:
        for journal in sorted(folder.glob("judge-*/journal.jsonl")):
            found[journal.relative_to(folder).as_posix()] = journal.stat().st_size
        if (folder / RATINGS).exists():
            address = (folder / RATINGS).absolute().as_uri() + "?mode=ro"
            if not (folder / f"{RATINGS}-wal").exists():  # nobody has it open; the folder may be read-only
                address += "&immutable=1"
            with closing(sqlite3.connect(address, timeout=30, uri=True)) as file:
                count = "SELECT count(*), coalesce(max(number), 0) FROM ratings"
                if begun(file):
                    found[RATINGS] = list(file.execute(count).fetchone())
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"{folder}: its votes cannot be read ({error}). Restore the folder from a copy.") from error
    return found


def begun(file: sqlite3.Connection) -> bool:
    """Whether anything was stored in a file of ratings; the process that makes one may be killed before."""
    return bool(file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


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
    votes = _of_raters(_read_votes(folder, source, pairs, fingerprint), source, entry.raters)
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


def _read_votes(folder: Path, source: str, pairs: Mapping[str, Any], fingerprint: str) -> list[Vote]:
    """The votes of the file, which have to be on these pairs, and the newest ones."""
    again = f"Write it again: alpaca-lora compare-report {folder}"
    path = folder / VOTES
    if not path.exists():
        raise DataError(f"{source}: there is no {VOTES} in it, which each report writes. {again}")
    try:
        lines = read_text_file(path, DataError, again).splitlines()
        head, *rest = (parse_json(line, str(path), DataError) for line in lines)
        votes = [Vote(line["pair"], line["by"], line["rater"], line["vote"]) for line in rest]
        if head["version"] != VERSION:
            raise ValueError(f"they are of version {head['version']!r}")
        known = all(vote.vote in (A, B, *_WHY) and vote.by in (PEOPLE, JUDGES) for vote in votes)
        if not known or not all(isinstance(one, str) for vote in votes for one in vote):
            raise ValueError("one is none")
        if head.get("votes", len(votes)) != len(votes):  # absent in files of earlier versions
            raise ValueError(f"{head['votes']!r} were written, and {len(votes):,} are there")
        if len({vote[:3] for vote in votes}) < len(votes):
            raise ValueError("a rater has two on one pair")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as votes ({error}). {again}") from error
    if head.get("comparison") != fingerprint or {vote.pair for vote in votes} - pairs.keys():
        raise DataError(f"{source}: {VOTES} is of other pairs than {COMPARISON}. {again}")
    before = head.get("read")
    if not isinstance(before, dict) or any(before.get(name) != now for name, now in state_of(folder).items()):
        raise DataError(f"{source}: there are newer votes than its report has. {again}")
    return votes


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
        return _WHY.get(winner, winner)
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


def check_sources(folder: Path, read: Mapping[str, Any]) -> None:
    """Raise DataError if what the votes of a folder's file came from is not there: a new file would lose them.

    Args:
        folder: A comparison's folder.
        read: `state_of` it now.
    """
    path, before = folder / VOTES, None
    with suppress(DataError, ValueError):  # a damaged file is written again
        before = parse_json(read_text_file(path, DataError).partition("\n")[0], str(path), DataError).get("read")
    if isinstance(before, dict) and (gone := [name for name in before if name not in read]):
        raise DataError(
            f"{folder}: {' and '.join(gone)}, from which the votes in {VOTES} were counted, "
            f"{'is' if len(gone) == 1 else 'are'} not there. Restore what is missing, or remove {VOTES} to begin anew."
        )


def votes_text(comparison: str, read: Mapping[str, Any], votes: Sequence[Vote]) -> str:
    """The file's text.

    Args:
        comparison: The comparison's fingerprint.
        read: `state_of` its folder before the votes were read.
        votes: All votes.
    """
    head = {"version": VERSION, "comparison": comparison, "read": read, "votes": len(votes)}
    return "".join(f"{json.dumps(line)}\n" for line in (head, *(vote._asdict() for vote in votes)))
