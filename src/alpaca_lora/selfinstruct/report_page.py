"""report.html: what a run of self-instruct made, dropped and spent, in numbers, pictures and samples.

In: the journal of a run, finished or going on, and its seeds. Out: one file that loads nothing and runs nothing; what
models wrote is shown as text. 52,000 records take some 25 seconds on one core; similarity and verbs are then those of a
sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .. import __version__
from ..data.records import FIELDS, Record, RecordSet
from ..data.similarity import SimilarityIndex, words
from ..errors import MissingDependencyError
from ..files import write_atomically
from ..llm.budget import Budget
from ..llm.journal import read_journal
from ..llm.journal_state import State
from ..serving.html import content_security_policy, render
from . import figures
from .run_summary import ALPACA_RECORDS, Summary
from .task_pool import TaskPool, check_seeds
from .verbs import count_openings

NAME = "report.html"
SAMPLE = 2_000  # records whose nearest neighbour and opening are looked for
SHOWN = 10  # accepted records
_LEAST = 0.05  # ROUGE-L below which there is nothing in common

T = TypeVar("T")


class Picture(NamedTuple):
    """A figure of the page; without an SVG, the note says why there is none."""

    title: str
    note: str
    svg: str = ""


def write_report(folder: str | Path, seeds: RecordSet) -> Path:
    """Write a run's report.html."""
    state = read_journal(folder)
    settings, threshold = state.head["settings"], state.head["filters"]["threshold"]
    check_seeds(seeds, settings, folder)
    pool = TaskPool(seeds.instructions, settings, state.head["filters"])
    pool.restore(state)
    records = pool.records
    pictures = [_lengths(records)] if records else []
    if records:
        pictures += [_similarity(records, seeds.instructions, threshold), _openings(records, settings["language"])]
    if state.judged:
        pictures.insert(0, _outcomes(state))
    path = Path(folder) / NAME
    text = render(
        (resources.files(__package__) / NAME).read_text(encoding="utf-8"),
        policy=content_security_policy(),
        amount=_amount,
        name=Path(folder).resolve().name,
        summary=Summary.of(Path(folder), state, Budget()),
        settings={**settings, "threshold": threshold},
        costs=project(state),
        target=ALPACA_RECORDS,
        pictures=pictures,
        accepted=_spread(list(enumerate(records, start=1)), SHOWN),
        rejected=sorted(state.samples.items(), key=lambda item: -state.rejected[item[0]]),
        version=__version__,
    )
    write_atomically(path, text, errors="replace")  # half a surrogate pair, which a model's tokens may decode to
    return path


def project(state: State) -> list[tuple[str, float | None, float | None]]:
    """What was spent, and what 52,000 records would take at the rate of the whole run.

    Later records repeat earlier ones more often, so fewer are accepted: the projection is likely too low.

    Returns:
        (what, so far, for 52,000 records); None if prices are unknown or nothing was accepted.
    """
    columns = {"tokens of prompts": "prompt_tokens", "tokens of answers": "completion_tokens", "cost": "cost"}
    spent: dict[str, float | None] = {"requests answered": len(state.answers)}
    for what, name in columns.items():
        values = [answer[name] for answer in state.answers]
        spent[what] = None if None in values else sum(values)
    return [
        (what, value, value / state.accepted * ALPACA_RECORDS if value is not None and state.accepted else None)
        for what, value in spent.items()
    ]


def nearest_scores(records: Sequence[Record], seeds: Sequence[Record]) -> list[float]:
    """The highest ROUGE-L of records to the seeds and the records before them: of all, or of SAMPLE of them."""
    index = SimilarityIndex(_LEAST)
    for seed in seeds:
        index.add(seed.instruction)
    asked = set(_spread(range(len(records)), SAMPLE))
    scores = []
    for number, record in enumerate(records):
        if number in asked:
            found = index.nearest(record.instruction)
            scores.append(found[1] if found else 0.0)
        index.add(record.instruction)
    return scores


def _outcomes(state: State) -> Picture:
    counts = [{figures.ACCEPTED: len(line["accepted"]), **line["rejected"]} for line in state.judged.values()]
    note = "Candidates, and pieces that are no records, by outcome. With many answers, a bar is the mean of several."
    return Picture("Accepted and rejected over time", note, figures.outcomes(counts))


def _lengths(records: Sequence[Record]) -> Picture:
    found = {field: [len(words(getattr(record, field))) for record in records] for field in FIELDS}
    counts = {field: [count for count in lengths if count] for field, lengths in found.items()}
    note = "Words of accepted records, on a logarithmic scale."
    return Picture("Lengths", note, figures.lengths(counts, len(records)))


def _similarity(records: Sequence[Record], seeds: Sequence[Record], threshold: float) -> Picture:
    scores = nearest_scores(records, seeds)
    mean = sum(scores) / len(scores)
    note = f"Instructions against the nearest seed or earlier record, {_share(scores, records)}; mean {mean:.2f}."
    return Picture("Similarity", note, figures.similarity(scores, threshold))


def _openings(records: Sequence[Record], language: str) -> Picture:
    title = "Verbs and their objects"
    if "english" not in words(language):
        return Picture(title, f"They are found in English instructions only; these are in {language}.")
    some = _spread(records, SAMPLE)
    try:
        found = count_openings(record.instruction for record in some)
    except MissingDependencyError as error:
        return Picture(title, str(error))
    verbs = len({verb for verb, _ in found})
    note = (
        f"How instructions open: of {_share(some, records)}, {found.total():,} do so with a verb and its object. "
        f"Different verbs: {verbs:,}; pairs: {len(found):,}. Shown: the 20 most frequent verbs, and 4 objects of each."
    )
    return Picture(title, note, figures.sunburst(found) if found else "")


def _share(some: Sequence[Any], records: Sequence[Any]) -> str:
    return (
        f"all {len(records):,} records" if len(some) == len(records) else f"{len(some):,} of {len(records):,} records"
    )


def _spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items, evenly over all; all of them if there are no more."""
    step = max(1.0, len(items) / count)
    return [items[int(number * step)] for number in range(min(count, len(items)))]


def _amount(value: float | None, money: bool = False) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.4f}" if money and value < 100 else f"{value:,.2f}" if money else f"{value:,.0f}"
