"""votes.jsonl: what people and judges said of a comparison's pairs, in its folder; each report writes it.

    {"version": 1, "comparison": "<hash of the pairs>", "read": {"ratings.sqlite": [120, 131], "judge-m/...": 8123},
     "votes": 240}
    {"pair": "0a1b2c3d4e5f", "by": "people", "rater": "zoe", "vote": "a"}
    {"pair": "0a1b2c3d4e5f", "by": "judges", "rater": "m", "vote": "order"}

A vote is `a` or `b`, whose answer is the better one, `tie`, `order` (a judge's two verdicts differ: it went by the
order of the answers, at least in part) or `half` (a judge was heard in one order only). Only `a` and `b` say which is
better. `read` tells how far the files that it was counted from had come.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError
from ...textfiles import parse_json, read_text_file

COMPARISON, RATINGS, VOTES = "comparison.json", "ratings.sqlite", "votes.jsonl"
VERSION = 1
A, B, TIE, ORDER, HALF = "a", "b", "tie", "order", "half"
"""What a vote says."""
PEOPLE, JUDGES = "people", "judges"

WHY = {
    TIE: "ties",
    ORDER: "the judge's verdict followed the order of the answers",
    HALF: "a judge was heard in one order only",
}
"""Of a vote that prefers neither answer: why it does not."""


class Vote(NamedTuple):
    """A line of the file."""

    pair: str
    by: str
    rater: str
    vote: str


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


def read_votes(folder: Path, source: str, pairs: Mapping[str, Any], fingerprint: str) -> list[Vote]:
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
        known = all(vote.vote in (A, B, *WHY) and vote.by in (PEOPLE, JUDGES) for vote in votes)
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
