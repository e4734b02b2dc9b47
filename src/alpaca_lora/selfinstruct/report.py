"""report.html: what a run of self-instruct made, dropped and spent, in numbers, pictures and samples.

In: the journal of a run, finished or going on, and its seeds. Out: one file that loads nothing and runs nothing. What
models wrote stands in it as text. At 52,000 records it takes some 25 seconds of a core; similarity and verbs are then
those of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from .. import __version__
from ..data.records import FIELDS, Record, RecordSet
from ..data.similarity import SimilarityIndex, words
from ..errors import MissingDependencyError
from ..files import write_atomically
from ..llm.budget import Budget
from ..llm.journal import State, read_journal
from . import figures
from .pool import Pool, check_seeds
from .summary import ALPACA_RECORDS, Summary
from .verbs import count_openings

NAME = "report.html"
SAMPLE = 2_000  # records whose nearest neighbour and opening are looked for
SHOWN = 10  # accepted records
_LEAST = 0.05  # ROUGE-L below which there is nothing in common

T = TypeVar("T")


def write_report(folder: str | Path, seeds: RecordSet) -> Path:
    """Write a run's report.html.

    Args:
        folder: The run's folder.
        seeds: The records it began with.

    Raises:
        DataError: there is no journal, or it is damaged.
        ConfigError: the seeds are not those of the run.
        MissingDependencyError: rapidfuzz is not installed.
    """
    import jinja2

    state = read_journal(folder)
    settings, threshold = state.head["settings"], state.head["filters"]["threshold"]
    check_seeds(seeds, settings, folder)
    pool = Pool(seeds.records, settings, state.head["filters"])
    pool.restore(state)
    records = pool.records
    pictures = [_lengths(records)] if records else []
    if records:
        pictures += [_similarity(records, seeds.records, threshold), _openings(records, settings["language"])]
    if state.judged:
        pictures.insert(0, _outcomes(state))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["amount"] = _amount
    page = environment.from_string((resources.files(__package__) / "pages" / NAME).read_text(encoding="utf-8"))
    path = Path(folder) / NAME
    text = page.render(
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


def project(state: State) -> list[tuple[str, float | None, float | None, float | None]]:
    """What was spent, and what 52,000 records would take, in two ways.

    Later records repeat earlier ones more often, so fewer are accepted: both are likely too low, the first more so.

    Returns:
        (what, so far, at the rate of the whole run, so far + what is missing at the rate of the newest quarter of the
        answers); None where prices are unknown or nothing was accepted.
    """
    judged = [answer for answer in state.answers if answer["request"] in state.judged]
    newest = judged[len(judged) * 3 // 4 :]
    accepted, lately = (
        sum(len(state.judged[answer["request"]]["accepted"]) for answer in part) for part in (judged, newest)
    )

    def total(answers: Sequence[dict[str, Any]], name: str) -> float | None:
        values = [1 if name == "request" else answer[name] for answer in answers]
        return None if None in values else sum(values)

    lines: list[tuple[str, float | None, float | None, float | None]] = []
    for what, name in (
        ("requests answered", "request"),
        ("tokens of prompts", "prompt_tokens"),
        ("tokens of answers", "completion_tokens"),
        ("cost", "cost"),
    ):
        sofar, part = total(state.answers, name), total(newest, name)
        whole = late = None
        if sofar is not None and part is not None:
            whole = sofar / accepted * ALPACA_RECORDS if accepted else None
            late = sofar + part / lately * max(0, ALPACA_RECORDS - accepted) if lately else None
        lines.append((what, sofar, whole, late))
    return lines


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


def _outcomes(state: State) -> dict[str, str]:
    lines = list(state.judged.values())
    counts = [{figures.ACCEPTED: len(line["accepted"]), **line["rejected"]} for line in lines]
    note = "Candidates, and pieces that are no records, by what became of them. Where there are many answers, a bar is "
    return {
        "title": "Accepted and rejected over time",
        "note": note + "the mean of some in a row.",
        "svg": figures.outcomes(counts),
    }


def _lengths(records: Sequence[Record]) -> dict[str, str]:
    found = {field: [len(words(getattr(record, field))) for record in records] for field in FIELDS}
    counts = {field: [count for count in lengths if count] for field, lengths in found.items()}
    return {
        "title": "Lengths",
        "note": "Words of accepted records, on a logarithmic scale.",
        "svg": figures.lengths(counts, len(records)),
    }


def _similarity(records: Sequence[Record], seeds: Sequence[Record], threshold: float) -> dict[str, str]:
    scores = nearest_scores(records, seeds)
    mean = sum(scores) / len(scores)
    return {
        "title": "Similarity",
        "note": f"Instructions against the nearest seed or earlier record, {_of(scores, records)}; mean {mean:.2f}.",
        "svg": figures.similarity(scores, threshold),
    }


def _openings(records: Sequence[Record], language: str) -> dict[str, str]:
    picture = {"title": "Verbs and their objects", "svg": ""}
    if "english" not in words(language):
        return {**picture, "note": f"They are found in English instructions only; these are in {language}."}
    some = _spread(records, SAMPLE)
    try:
        found = count_openings(record.instruction for record in some)
    except MissingDependencyError as error:
        return {**picture, "note": str(error)}
    verbs = len({verb for verb, _ in found})
    note = (
        f"How instructions open: of {_of(some, records)}, {found.total():,} do so with a verb and its object. "
        f"Different verbs: {verbs:,}; pairs: {len(found):,}. Shown: the 20 most frequent verbs, and 4 objects of each."
    )
    return {**picture, "note": note, "svg": figures.sunburst(found) if found else ""}


def _of(some: Sequence[Any], records: Sequence[Any]) -> str:
    return (
        f"all {len(records):,} records" if len(some) == len(records) else f"{len(some):,} of {len(records):,} records"
    )


def _spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items, evenly over all; all where there are no more."""
    step = max(1.0, len(items) / count)
    return [items[int(number * step)] for number in range(min(count, len(items)))]


def _amount(value: float | None, money: bool = False) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.4f}" if money and value < 100 else f"{value:,.2f}" if money else f"{value:,.0f}"
