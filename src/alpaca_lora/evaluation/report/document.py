"""What a report holds, and the two files it is written to.

folder/report.html   sentence, figures, statistics, and every pair side by side, with filters
folder/report.md     sentence and statistics
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ...files import write_atomically
from ...llm.output_folder import make_folder
from ...serving.html import content_security_policy, render
from ..contamination import Contamination
from ..leaderboard import Standing
from ..statistics.ranking import Ranking
from .pair_entries import most_split
from .sections import Fact, Section


@dataclass(frozen=True)
class Report:
    """What `write` writes.

    Attributes:
        title: Who was compared.
        sections: Statistics: one section for people and one for judges, or one for each pair of models.
        entries: The pairs, as pair_entries.py gives them.
        contamination: What was found out about training data.
        provenance: Files, hashes, counts, versions, date.
        notes: Facts about the sections together.
        ranking: The ranking of more than two models.
        standings: Of a leaderboard, its models.
    """

    title: str
    sections: list[Section]
    entries: list[dict[str, Any]]
    contamination: list[Contamination] = field(default_factory=list)
    provenance: list[Fact] = field(default_factory=list)
    notes: list[Fact] = field(default_factory=list)
    ranking: Ranking | None = None
    standings: list[Standing] = field(default_factory=list)

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
        """The page: a browser runs its one script, and sends no request."""
        kinds = [(section.key, section.title) for section in self.sections if section.key in ("people", "judge")]
        data = {
            "kinds": kinds or [("file", "all raters")],
            "entries": self.entries,
            "disagreed": most_split(self.entries),
        }
        style, script = _text("report.css"), _text("report.js")
        policy = content_security_policy(style, script)
        values: dict[str, Any] = {"data": data, "style": style, "script": script, "policy": policy}
        return render(_text("report.html"), report=self, **values)

    @property
    def markdown(self) -> str:
        """The same numbers; pairs are in the page only."""
        return render(_text("report.md"), escape=False, report=self, escaped=escape_markdown)


def escape_markdown(text: object) -> str:
    """Text that stays itself in a line or table cell of Markdown.

    Example:
        >>> print(escape_markdown("a|b <c>"))
        a\\|b \\<c\\>
    """
    line = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|~&" else character for character in line)


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
