"""Runs the checks over a source: findings with record numbers, a table, and the mended file where one is asked for.

52,000 records take about 80 seconds on one core, most of it for near-duplicates, and are held in memory (180 MiB).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, counted
from ...files import write_atomically
from ..columns import Columns
from ..rows import BLANK, FIELDS, Record, RowProblem, RowReader, Rows, is_blank, name_numbers
from ..sources import open_source
from ..unread import UnreadKey, UnreadKeys
from ..unusable import Unusable
from .arithmetic import check_arithmetic
from .findings import CHECKS, Finding, Found, excerpt
from .fix import check_out, mend, mended_row, write_rows
from .leftovers import check_leftovers
from .overlap import EvaluationSet, NearDuplicates
from .personal import check_personal
from .tasks import check_tasks
from .texts import check_texts, is_no_input, is_placeholder

_SHOWN_NUMBERS = 8
_SHOWN_EXAMPLES = 2
_REMOVED = "record removed"
_KEY_CHECKS = {"error": "lost-key", "warn": "unread-key"}


@dataclass(frozen=True)
class LintReport:
    """What lint found. `print(report)` shows a table and examples.

    Attributes:
        source: Where the records came from.
        total: Records in it.
        findings: All of them, by record number.
        fixed: The mended file, where one was written; its report is beside it.
        unusable: Rows that are no records: a sentence for each kind, with its count and first record.
        unread: Keys that are not read and would be missed.
        parts: Name and number of rows of each of several sources; findings number their records through.
    """

    source: str
    total: int
    findings: list[Finding]
    fixed: Path | None = None
    unusable: Sequence[str] = ()
    unread: Sequence[UnreadKey] = ()
    parts: Sequence[tuple[str, int]] = ()

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
            f"{counted(len(self.findings), 'finding')} in {touched:,} of them"
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
            elif name in _KEY_CHECKS.values():
                lines += [
                    f"  {one.sentences(self.total, self.parts)}"
                    for one in self.unread
                    if _KEY_CHECKS[one.severity] == name
                ]
            else:
                for one in found[:_SHOWN_EXAMPLES]:
                    place = name_numbers([one.record], self.parts, 1, "")
                    lines.append(f"  record {place}, {one.field}: {one.excerpt}")
        if self.fixed:
            mended = len(self.findings) - len(self.left)
            lines += [
                "",
                f"{self.fixed}: {mended:,} of these findings mended, {len(self.left):,} left "
                f"({counted(self.errors, 'error')})",
            ]
        return "\n".join(lines)


def lint_data(
    data: Any, *, against: Any = None, fix: str | Path | None = None, columns: Columns | None = None
) -> LintReport:
    """Find what is wrong with records, and write them mended to `fix`; see `alpaca_lora.lint`."""
    report_path = check_out(Path(fix)) if fix is not None else None
    reader, near_duplicates = RowReader(columns), NearDuplicates()
    evaluation = EvaluationSet(against) if against is not None else None
    rows = open_source(data)
    if not rows.values:
        raise DataError(f"{rows.source}: the source holds no records (0 rows). Name another source.")
    findings: list[Finding] = []
    kept: list[tuple[int, Record | None]] = []
    first_seen: dict[Record, int] = {}
    unusable, keys = Unusable(rows), UnreadKeys(reader, rows.source)
    for number, row in enumerate(rows.values, 1):
        try:
            raw = reader.read(row)
            keys.see(number, row, raw)
            record, found = _check_record(raw, first_seen)
        except RowProblem as problem:
            unusable.add(number - 1, problem)
            record, found = None, [Found("unusable", "row", str(problem))]
        if record is not None:
            first_seen[record] = number
            found += near_duplicates.check(number, record)
            found += evaluation.check(record) if evaluation else ()
        if not any(one.fix == _REMOVED for one in found):
            kept.append((number, record))
        findings += [Finding(number, *one) for one in sorted(found, key=_place)]
    unread = [one for one in keys.found() if one.severity]
    if len(unusable) == len(rows.values) or unusable.shape(unread):
        raise DataError(unusable.message(unread))
    for key in unread:
        findings += [Finding(number, _KEY_CHECKS[key.severity], key.key, key.says) for number in key.records]
    findings.sort(key=lambda one: one.record)
    fixed = Path(fix) if fix is not None else None
    report = LintReport(rows.source, len(rows.values), findings, fixed, unusable.kinds(), unread, rows.parts)
    if report.fixed and report_path:
        _write(report, report_path, rows, kept, reader)
    return report


def _check_record(raw: Record, first_seen: dict[Record, int]) -> tuple[Record | None, list[Found]]:
    """The mended record and its faults; no record where it is removed."""
    record = mend(raw)
    if removal := _why_removed(record, first_seen):
        return None, [removal]
    if is_blank(record.instruction) and is_blank(record.input):
        raise RowProblem(BLANK, "instruction and input are both blank")
    found = list(_mended(raw, record))
    for check in (check_texts, check_leftovers, check_tasks, check_arithmetic, check_personal):
        found += check(record)
    return record, found


def _place(found: Found) -> tuple[int, int]:
    return list(CHECKS).index(found.check), FIELDS.index(found.field) if found.field in FIELDS else -1


def _why_removed(record: Record, first_seen: dict[Record, int]) -> Found | None:
    if is_blank(record.output):
        return Found("empty-output", "output", excerpt(record.instruction), _REMOVED)
    if is_placeholder(record):
        return Found("placeholder", "output", excerpt(record.output), _REMOVED)
    if record in first_seen:
        return Found(
            "duplicate", "instruction", f"record {first_seen[record]}: {excerpt(record.instruction)}", _REMOVED
        )
    return None


def _mended(raw: Record, record: Record) -> Iterator[Found]:
    no_input = is_no_input(raw.input)
    if no_input:
        yield Found("noinput", "input", excerpt(raw.input), "input emptied")
    trimmed = [
        name
        for name, before, after in zip(FIELDS, raw, record, strict=True)
        if before != after and not (name == "input" and no_input)
    ]
    if trimmed:
        text = raw[FIELDS.index(trimmed[0])]
        shown = repr(text) if len(text) < 60 else f"{text[:25]!r} … {text[-25:]!r}"
        yield Found("whitespace", trimmed[0], shown, f"trimmed: {', '.join(trimmed)}")


def _write(
    report: LintReport,
    report_path: Path,
    rows: Rows,
    kept: list[tuple[int, Record | None]],
    reader: RowReader,
) -> None:
    if report.fixed is None or not kept:
        raise DataError(
            f"{report.source}: every record would be removed, so no file is written. Lint it without fix first."
        )
    sources = {number: rows.values[number - 1] for number, _ in kept}
    write_rows(
        (sources[number] if record is None else mended_row(sources[number], record, reader) for number, record in kept),
        report.fixed,
    )
    place = {number: new for new, (number, _) in enumerate(kept, 1)}
    content = report.to_dict()
    content["written"] = {"file": report.fixed.name, "records": len(kept)}
    content["mended"] = [one._asdict() for one in report.findings if one.fix]
    # Where to look in the new file: its own record numbers.
    content["left"] = [{**one._asdict(), "record": place[one.record], "was": one.record} for one in report.left]
    del content["findings"]
    try:
        write_atomically(report_path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", "backslashreplace")
    except BaseException:  # the two belong together
        report.fixed.unlink()
        raise
