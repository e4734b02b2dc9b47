"""The report of a comparison: one self-contained page, and the same numbers in Markdown.

    folder/report.html   sentence, figures, statistics, and every pair side by side, with filters
    folder/report.md     sentence and statistics

    panels.py          statistics in words             browse.py   pairs and votes, for the page
    contamination.py   training data against pairs     page.py     templates to text; what the page may load

Every number is of `statistics.summarize`. The page is about the size of the answers; 1,000 pairs take a second, after
the imports.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import DataError
from ..files import sha256_of_file, write_atomically
from ..llm.folder import make_folder
from .browse import entries_of, entries_of_votes, most_split
from .contamination import Contamination
from .page import render_html, render_markdown
from .pairs import Comparison
from .panels import Fact, Panel, between_kinds, make_panel
from .preferences import Preferences
from .ranking import Ranking, bradley_terry
from .votes import Vote, between, models_of

if TYPE_CHECKING:
    from .judge import Verdicts

_PACKAGES = ("scipy", "statsmodels", "krippendorff", "numpy")


@dataclass(frozen=True)
class Report:
    """What `write` writes.

    Attributes:
        title: Who was compared.
        panels: Statistics; people and judges apart, or a pair of models each.
        entries: The pairs, as browse.py gives them.
        contamination: What was found out about training data.
        provenance: Files, hashes, counts, versions, date.
        notes: Facts about the panels together.
        ranking: The ranking of more than two models.
    """

    title: str
    panels: list[Panel]
    entries: list[dict[str, Any]]
    contamination: list[Contamination] = field(default_factory=list)
    provenance: list[Fact] = field(default_factory=list)
    notes: list[Fact] = field(default_factory=list)
    ranking: Ranking | None = None

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Writes report.html and report.md, in place of earlier ones; returns their paths.

        Raises:
            ConfigError: the folder cannot be made or written in.
        """
        folder = Path(folder)
        make_folder(folder)
        paths = folder / "report.html", folder / "report.md"
        for path, text in zip(paths, (self.html, self.markdown), strict=True):
            write_atomically(path, text, errors="replace")
        return paths

    @property
    def html(self) -> str:
        """The page."""
        kinds = [(panel.key, panel.title) for panel in self.panels if panel.key in ("people", "judge")]
        data = {
            "kinds": kinds or [("file", "all raters")],
            "entries": self.entries,
            "disagreed": most_split(self.entries),
        }
        return render_html("report", report=self, data=data)

    @property
    def markdown(self) -> str:
        """The same numbers; pairs are in the page only."""
        return render_markdown("report", report=self)


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

    Args:
        comparison: Names and texts.
        votes_people: People's votes; may be empty if there are verdicts.
        verdicts: A judge's verdicts.
        reasons: (item, rater) -> why, where a rater said so.
        skipped: Pairs that people were shown and did not vote on.
        contamination: From `contamination_of`.

    Raises:
        DataError: There are no votes, or votes on other models.
    """
    people = _of(comparison, votes_people)
    judged = _of(comparison, verdicts.votes if verdicts else [])
    single = _of(comparison, verdicts.single if verdicts else [])
    if not people and not judged:
        raise DataError(f"{comparison.folder}: there are no votes, so there is nothing to report. Rate or judge first.")
    panels = []
    if people:
        more = [Fact("skipped", "Skipped", f"{skipped:,}", "Shown, and left without a vote.")] if skipped else []
        panels.append(make_panel("people", "People", people, more=more))
    if judged and verdicts:
        title = f"Judge ({', '.join(verdicts.judges)})"
        panels.append(make_panel("judge", title, judged, single=single, more=_judge_facts(verdicts)))
    sources = [
        Fact(side, name, f"{Path(source['path']).name}, SHA-256 {source['sha256']}")
        for side, name in (("a", comparison.a), ("b", comparison.b))
        for source in [comparison.sources[side]]
    ]
    why: dict[Any, str] = dict(reasons or {})
    why.update(verdicts.reasons if verdicts else {})
    counted, shown = {"people": people, "judge": judged}, {"people": people, "judge": single or judged}
    return Report(
        title=f"{comparison.a} against {comparison.b}",
        panels=panels,
        entries=entries_of(comparison, counted, shown, why),
        contamination=list(contamination),
        provenance=[*sources, Fact("pairs", "Instructions compared", f"{len(comparison.pairs):,}"), *_made()],
        notes=[between_kinds(people, judged)] if people and judged else [],
    )


def report_of_preferences(preferences: Preferences) -> Report:
    """The report of existing annotations; of more than two models, a ranking and a panel for each pair compared."""
    votes = preferences.votes
    models = models_of(votes)
    compared = [(a, b, found) for a, b in combinations(models, 2) if (found := between(votes, a, b))]
    path = Path(preferences.source)
    hashed = f", SHA-256 {sha256_of_file(path)}" if path.is_file() else ""
    alone = len(compared) == 1
    ranking, notes = None, []
    if not alone:
        try:
            ranking = bradley_terry(votes)
        except DataError as problem:
            notes.append(Fact("ranking", "Ranking", f"none: {problem}"))
    return Report(
        title=f"{models[0]} against {models[1]}" if alone else f"{len(models)} models compared",
        panels=[
            make_panel(f"pair{k}", "Votes" if alone else f"{a} against {b}", found)
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


def _of(comparison: Comparison, votes: Sequence[Vote]) -> list[Vote]:
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
    counts = (
        ("failed", "Questions refused by the judge's server", verdicts.failed, ""),
        ("unparsed", "Questions without a verdict", verdicts.unparsed, "No reply to them could be read."),
        (
            "malformed",
            "Replies that could not be read",
            verdicts.malformed,
            f"Asked for again included. One of them: {''.join(verdicts.samples[:1])}",
        ),
        ("thoughts", "Replies with thoughts", verdicts.thoughts, "What the judge thought aloud is no verdict."),
        ("unasked", "Questions not settled yet", verdicts.unasked, "The judge has not finished."),
    )
    cost = "" if verdicts.cost is None else f", cost {verdicts.cost:.4f}"
    return [
        Fact(
            "disagreed",
            "Orders that disagreed",
            f"{verdicts.disagreed:,} of {len(verdicts.votes):,} pairs",
            "The verdict changed with the order of the answers. Such a pair counts as a tie.",
        ),
        *(Fact(key, name, f"{count:,}", reading) for key, name, count, reading in counts if count),
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
