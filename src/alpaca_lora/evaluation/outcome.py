"""A comparison from its folder to its report: the votes that are there, of people and of judges, and what they support.

folder/comparison.json, ratings.sqlite, judge-NAME/  ->  folder/report.html, report.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, counted
from .contamination import contamination_of
from .judge import Verdicts, read_verdicts
from .pairs import NAME as COMPARISON
from .pairs import Comparison, check_holds_only
from .preferences import read_preferences
from .ratings import read_ratings

if TYPE_CHECKING:
    from .report import Report


@dataclass(frozen=True)
class Compared:
    """What a comparison has come to; `print` shows it.

    Attributes:
        folder: Where it is kept.
        pairs: Instructions that both models answered; 0 where only votes are known.
        report: The statistics; None while there are no votes. Its page is report.html in `folder`.
        verdicts: The judges' verdicts; None without any.
    """

    folder: Path
    pairs: int
    report: Report | None
    verdicts: Verdicts | None = None

    @property
    def verdict(self) -> str:
        """What the votes support: a sentence for people, and one for judges, or for each pair of models."""
        panels = self.report.panels if self.report else []
        return "\n".join(f"{panel.title}: {panel.verdict}" for panel in panels)

    def __str__(self) -> str:
        lines = [str(self.verdicts)] if self.verdicts and self.verdicts.judges else []
        if self.report is None:
            none = f"{self.folder}: {counted(self.pairs, 'pair')} of answers, and no votes yet. Rate or judge them."
            return "\n".join([*lines, none])
        return "\n".join([*lines, self.verdict, f"Report: {self.folder / 'report.html'}"])


def report_on(folder: str | Path) -> Compared:
    """Write the report of a comparison's folder anew, from all votes in it.

    Raises:
        DataError: the folder holds no comparison, or something in it is damaged.
    """
    comparison = Comparison.read(folder)
    ratings, verdicts = read_ratings(folder), read_verdicts(folder)
    report = None
    if ratings.votes or (verdicts and verdicts.votes):
        from .report import build_report

        report = build_report(
            comparison,
            ratings.votes,
            verdicts,
            reasons=ratings.reasons,
            skipped=ratings.skipped,
            contamination=contamination_of(comparison),
        )
        report.write(folder)
    return Compared(Path(folder), len(comparison.pairs), report, verdicts)


def report_on_preferences(path: str | Path, folder: str | Path) -> Compared:
    """Write the report of judgements made elsewhere; see `read_preferences`."""
    from .report import report_of_preferences

    if (Path(folder) / COMPARISON).exists():
        raise ConfigError(f"{folder}: holds a comparison, whose report this would replace. Name another folder.")
    check_holds_only(Path(folder), "report.html", "report.md")
    report = report_of_preferences(read_preferences(path))
    report.write(folder)
    return Compared(Path(folder), 0, report)
