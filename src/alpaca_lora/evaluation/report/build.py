"""Votes to a report: of a comparison, or of judgements made elsewhere."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import chain, combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from ... import __version__
from ...errors import DataError
from ...files import sha256_of_file
from ..comparison import Comparison
from ..contamination import Contamination
from ..leaderboard import Standing
from ..preferences import Preferences
from ..statistics.ranking import bradley_terry
from ..statistics.votes import Vote, between, models_of
from ..verdicts import Verdicts
from .document import Report
from .pair_entries import entries_of, entries_of_votes
from .sections import Fact, make_section, people_against_judge

_LM_EVAL = "By lm-eval, before its answers were made, with 95% intervals."
_PACKAGES = ("scipy", "statsmodels", "krippendorff", "numpy")


def build_report(
    comparison: Comparison,
    votes_people: Sequence[Vote],
    verdicts: Verdicts | None = None,
    *,
    reasons: Mapping[tuple[str, str], str] | None = None,
    skipped: int = 0,
    contamination: Sequence[Contamination] = (),
) -> Report:
    """The report of a comparison rated by people, by a judge, or by both.

    `reasons` maps (item, rater) to why; `skipped` counts pairs that people were shown and did not vote on.

    Raises:
        DataError: There are no votes, or votes on other models.
    """
    people = _told_from_a(comparison, votes_people)
    judged = _told_from_a(comparison, verdicts.votes if verdicts else [])
    single = _told_from_a(comparison, verdicts.single if verdicts else [])
    if not people and not judged:
        raise DataError(f"{comparison.folder}: there are no votes, so there is nothing to report. Rate or judge first.")
    sections = []
    if people:
        more = [Fact("skipped", "Skipped", f"{skipped:,}", "Shown, and left without a vote.")] if skipped else []
        sections.append(make_section("people", "People", people, more=more))
    if judged and verdicts:
        title = f"Judge ({', '.join(verdicts.judges)})"
        sections.append(make_section("judge", title, judged, single=single, more=_judge_facts(verdicts)))
    sources = [
        Fact(side, name, f"{Path(source['path']).name}, SHA-256 {source['sha256']}")
        for side, name in (("a", comparison.a), ("b", comparison.b))
        for source in [comparison.sources[side]]
    ]
    measured = [
        Fact(f"benchmarks_{side}", f"Benchmarks of {name}", "; ".join(map(str, found)), _LM_EVAL)
        for side, name in (("a", comparison.a), ("b", comparison.b))
        if isinstance(found := comparison.sources[side].get("settings", {}).get("benchmarks"), list)
    ]
    why: dict[Any, str] = dict(reasons or {})
    why.update(verdicts.reasons if verdicts else {})
    counted, shown = {"people": people, "judge": judged}, {"people": people, "judge": single or judged}
    return Report(
        title=f"{comparison.a} against {comparison.b}",
        sections=sections,
        entries=entries_of(comparison, counted, shown, why),
        contamination=list(contamination),
        provenance=[*sources, Fact("pairs", "Instructions compared", f"{len(comparison.pairs):,}"), *_made()],
        notes=[*([people_against_judge(people, judged)] if people and judged else []), *measured],
    )


def report_of_preferences(preferences: Preferences) -> Report:
    """The report of existing annotations; of more than two models, a ranking and a section for each pair compared."""
    votes = preferences.votes
    models = models_of(votes)
    compared = [(a, b, found) for a, b in combinations(models, 2) if (found := between(votes, a, b))]
    path = Path(preferences.source)
    hashed = f", SHA-256 {sha256_of_file(path)}" if path.is_file() else ""
    alone = len(compared) == 1
    ranking, notes = None, _mean_scores(preferences)
    if not alone:
        try:
            ranking = bradley_terry(votes)
        except DataError as problem:
            notes.append(Fact("ranking", "Ranking", f"none: {problem}"))
    return Report(
        title=f"{models[0]} against {models[1]}" if alone else f"{len(models)} models compared",
        sections=[
            make_section(
                f"pair{k}",
                "Votes" if alone else f"{a} against {b}",
                found,
                single=between(preferences.single, a, b),
            )
            for k, (a, b, found) in enumerate(compared, 1)
        ],
        entries=entries_of_votes(votes),
        provenance=[
            Fact("source", "Annotations", f"{path.name}{hashed}"),
            Fact("left_out", "Rows without a preference, left out", f"{preferences.left_out:,}"),
            *_made(),
        ],
        notes=notes,
        ranking=ranking,
    )


def report_of_leaderboard(standings: Sequence[Standing], source: str | Path) -> Report:
    """The report of a leaderboard as `read_leaderboard` gives it: who stands where, and how sure that is."""
    path = Path(source)
    first, last = standings[0], standings[-1]
    return Report(
        title=f"{path.stem}: {len(standings)} models against one baseline",
        sections=[],
        entries=[],
        provenance=[Fact("source", "Leaderboard", f"{path.name}, SHA-256 {sha256_of_file(path)}"), *_made()],
        notes=[Fact("ends", "From", f"{first.model}, {first.cells[0]}, to {last.model}, {last.cells[0]}")],
        standings=list(standings),
    )


def _mean_scores(preferences: Preferences) -> list[Fact]:
    """The mean score of each model, best first, over all turns and by turn, as FastChat's show_result prints it."""
    means = {
        model: (fmean(chain(*turns.values())), {turn: fmean(scores) for turn, scores in sorted(turns.items())})
        for model, turns in preferences.scores.items()
    }
    told = [
        f"{model} {mean:.2f} ({', '.join(f'turn {turn}: {of:.2f}' for turn, of in turns.items())})"
        for model, (mean, turns) in sorted(means.items(), key=lambda entry: -entry[1][0])
    ]
    return [Fact("scores", "Mean scores", "; ".join(told))] if told else []


def _told_from_a(comparison: Comparison, votes: Sequence[Vote]) -> list[Vote]:
    """The votes, all told from the side of the comparison's `a`."""
    found = between(votes, comparison.a, comparison.b)
    if len(found) < len(votes):
        others = [name for name in models_of(votes) if name not in (comparison.a, comparison.b)]
        raise DataError(
            f"{comparison.folder}: compares {comparison.a!r} with {comparison.b!r}, but there are votes on "
            f"{others[0]!r}. Report them from the folder they were made in."
        )
    return found


def _judge_facts(verdicts: Verdicts) -> list[Fact]:
    cost = "" if verdicts.cost is None else f", cost {verdicts.cost:.4f}"
    return [
        Fact(
            "disagreed",
            "Orders that disagreed",
            f"{verdicts.disagreed:,} of {len(verdicts.votes):,} pairs",
            "The verdict changed with the order of the answers. Such a pair counts as a tie.",
        ),
        *(Fact(key, what.capitalize(), f"{count:,}", reading) for key, count, what, reading in verdicts.exceptions),
        *(
            Fact("left_out", "Asked without", name, "The judge refuses this setting; its own default applies.")
            for name in dict.fromkeys(verdicts.left_out)
        ),
        Fact("spent", "Spent", f"{verdicts.spent.tokens:,} tokens{cost}"),
    ]


def _made() -> list[Fact]:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return [
        Fact("versions", "Versions", f"alpaca_lora {__version__}, Python {platform.python_version()}, {packages}"),
        Fact("date", "Date", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"),
    ]
