"""What lint found: a table and examples to print, and JSON values to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import counted
from ..records.key_rules import UnreadKey
from ..sources.rows import name_numbers
from .findings import CHECKS, Finding

_SHOWN_NUMBERS = 8
_SHOWN_EXAMPLES = 2
KEY_CHECKS = {"error": "lost-key", "warn": "unread-key"}
"""Severity of an unread key -> the check that finds it."""


@dataclass(frozen=True)
class LintReport:
    """What lint found. `print(report)` shows a table and examples.

    Attributes:
        source: Where the records came from.
        total: Records in it.
        findings: All of them, by record number.
        fixed: The mended file, if one was written; its report is beside it.
        unusable: Rows that are no records: a sentence for each kind, with its count and first record.
        unread: Keys that are not read and would be missed.
        parts: Name and number of rows of each of several sources; findings number their records through.
        figures: Of preferences, sentences with figures: how long the better answers are, what votes gave.
    """

    source: str
    total: int
    findings: list[Finding]
    fixed: Path | None = None
    unusable: Sequence[str] = ()
    unread: Sequence[UnreadKey] = ()
    parts: Sequence[tuple[str, int]] = ()
    figures: Sequence[str] = ()

    @property
    def by_check(self) -> dict[str, list[Finding]]:
        """Check -> its findings, for checks that found any, in the order of `CHECKS`."""
        return {name: found for name in CHECKS if (found := [one for one in self.findings if one.check == name])}

    @property
    def left(self) -> list[Finding]:
        """Findings that are still to be looked at: all, or after mending those that it does not mend."""
        return [one for one in self.findings if not (self.fixed and one.fix)]

    @property
    def errors(self) -> int:
        """Findings left whose check is of severity "error"."""
        return sum(CHECKS[one.check].severity == "error" for one in self.left)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values: `checks` with counts and record numbers, and every finding."""
        return {
            "source": self.source,
            "records": self.total,
            **({"figures": [*self.figures]} if self.figures else {}),
            "checks": {
                name: {
                    "severity": CHECKS[name].severity,
                    "meaning": CHECKS[name].meaning,
                    "advice": CHECKS[name].advice,
                    "count": len(found),
                    "records": list(dict.fromkeys(one.record for one in found)),
                }
                for name, found in self.by_check.items()
            },
            "findings": [one._asdict() for one in self.findings],
        }

    def __str__(self) -> str:
        found_by, touched = self.by_check, len({one.record for one in self.findings})
        lines = [
            f"{self.source}: {counted(self.total, 'record')}, "
            f"{counted(len(self.findings), 'finding')} in {touched:,} of them",
            *self.figures,
        ]
        width = max(map(len, found_by), default=0)
        if found_by:
            lines += ["", f"{'':5}  {'check':{width}}  count  records"]
        for name, found in found_by.items():
            numbers = list(dict.fromkeys(one.record for one in found))
            shown = name_numbers(numbers, self.parts, _SHOWN_NUMBERS, ", ...")
            lines.append(f"{CHECKS[name].severity:5}  {name:{width}}  {len(found):5,}  {shown}")
        for name, found in found_by.items():
            lines += ["", f"{name}: {CHECKS[name].meaning} {CHECKS[name].advice}"]
            if name == "unusable" and self.unusable:
                lines += [f"  {kind}" for kind in self.unusable]
            elif name in KEY_CHECKS.values():
                lines += [
                    f"  {one.sentences(self.total, self.parts)}"
                    for one in self.unread
                    if KEY_CHECKS[one.severity] == name
                ]
            else:
                for one in found[:_SHOWN_EXAMPLES]:
                    place = name_numbers([one.record], self.parts)
                    lines.append(f"  record {place}, {one.field}: {one.excerpt}")
        if self.fixed:
            mended = len(self.findings) - len(self.left)
            lines += [
                "",
                f"{self.fixed}: {mended:,} of these findings mended, {len(self.left):,} left "
                f"({counted(self.errors, 'error')})",
            ]
        return "\n".join(lines)
