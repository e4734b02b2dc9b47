"""Runs the checks over a source, and writes the mended file if one is asked for.

52,000 records take about 80 seconds on one core, most of it for near-duplicates, and are held in memory (180 MiB).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError
from ...files import write_atomically
from ..columns import Columns
from ..record import FIELDS, Conversation, Preference, Record, as_record, exchanges, is_blank
from ..records.bad_rows import BadRows
from ..records.row_problem import RowProblem, check_asked
from ..records.source_readers import SourceReaders, compares, reader_for
from ..sources import Rows, open_source
from .findings import CHECKS, Finding, Found, excerpt
from .fix import check_out, mend, mended_row, write_rows
from .leftovers import check_leftovers
from .lint_report import KEY_CHECKS, LintReport
from .overlap import EvaluationSet, NearDuplicates
from .pairs import PairChecks
from .personal import check_personal
from .tasks import check_tasks
from .texts import check_texts, is_no_input, is_placeholder

_REMOVED = "record removed"


def lint_data(
    data: Any,
    *,
    against: Any = None,
    fix: str | Path | None = None,
    columns: Columns | None = None,
    objective: Literal["sft", "dpo", "orpo"] = "sft",
) -> LintReport:
    """Find what is wrong with records, and write them mended to `fix`; see `alpaca_lora.lint`."""
    report_path = check_out(Path(fix)) if fix is not None else None
    compared = compares(objective)
    reader_for(compared)(columns)  # what is wrong with them is said before anything is read
    near_duplicates = NearDuplicates()
    evaluation = EvaluationSet(against) if against is not None else None
    rows = open_source(data)
    if not rows.values:
        raise DataError(f"{rows.source}: the source holds no records (0 rows). Name another source.")
    findings: list[Finding] = []
    kept: list[tuple[int, Record | None]] = []
    first_seen: dict[Record | str, int] = {}
    bad, readers, pairs = BadRows(rows, compared), SourceReaders(rows, columns, compared), PairChecks(_REMOVED)
    for number, row in enumerate(rows.values, 1):
        if compared and number - 1 in rows.left_out:
            continue
        reader, keys, _ = readers.of(number - 1)
        try:
            raw = reader.read(row)
            keys.see(number, row, as_record(raw), raw.answers if isinstance(raw, Preference) else ())
            if isinstance(raw, Preference):
                record, found = pairs.check(number, row, raw)
                check_asked(as_record(raw))
            else:
                record, found = _check_record(raw, first_seen)
        except RowProblem as problem:
            bad.add(number - 1, problem)
            raw, record, found = None, None, [Found("unusable", "row", str(problem))]
        if record is not None:
            first_seen[raw.canonical if isinstance(raw, Conversation) else record] = number
            if not isinstance(raw, Preference) or pairs.is_new(record):
                found += near_duplicates.check(number, record)
            found += evaluation.check(record) if evaluation else ()
        if not any(one.fix == _REMOVED for one in found):
            kept.append((number, record if isinstance(raw, Record) else None))
        findings += [Finding(number, *one) for one in sorted(found, key=_place)]
    unread = [one for one in readers.unread() if one.severity]
    if len(bad) == len(rows.values) or bad.lost_kind(unread):
        raise DataError(bad.message(unread))
    for key in unread:
        findings += [Finding(number, KEY_CHECKS[key.severity], key.key, key.says) for number in key.records]
    findings.sort(key=lambda one: one.record)
    fixed = Path(fix) if fix is not None else None
    figures = (*rows.notes, *pairs.figures) if compared else ()
    report = LintReport(rows.source, len(rows.values), findings, fixed, bad.kinds(), unread, rows.parts, figures)
    if report.fixed and report_path:
        _write(report, report_path, rows, kept, readers)
    return report


def _check_record(raw: Record | Conversation, first_seen: dict[Record | str, int]) -> tuple[Record | None, list[Found]]:
    """The mended record and its faults; no record if it is removed. A conversation's turns are left as they are."""
    if isinstance(raw, Conversation):
        return _check_conversation(raw, first_seen)
    record = mend(raw)
    if removal := _why_removed(record, first_seen):
        return None, [removal]
    check_asked(record)
    found = list(_mended(raw, record))
    for check in (check_texts, check_leftovers, check_tasks, check_personal):
        found += check(record)
    return record, found


def _check_conversation(raw: Conversation, first_seen: dict[Record | str, int]) -> tuple[Record | None, list[Found]]:
    """All texts as one record, and the faults of its exchanges, each check's and field's first one."""
    record, turns = as_record(raw), exchanges(raw)
    removal = next(filter(None, (_why_removed(one, {}) for one in turns)), None)
    removal = removal or _why_seen(raw.canonical, record, first_seen)
    if not raw.trained or removal:
        return None, [removal or Found("empty-output", "output", "no answer may be learned", _REMOVED)]
    check_asked(record)
    found: dict[tuple[str, str], Found] = {}
    for place, one in enumerate(turns):
        # What a later task needs may stand in an earlier turn.
        for check in (check_texts, check_leftovers, check_personal, *([] if place else [check_tasks])):
            for fault in check(one):
                found.setdefault((fault.check, fault.field), fault)
    return record, [*found.values()]


def _place(found: Found) -> tuple[int, int]:
    fields = (*FIELDS, "chosen", "rejected")
    return list(CHECKS).index(found.check), fields.index(found.field) if found.field in fields else -1


def _why_removed(record: Record, first_seen: dict[Record | str, int]) -> Found | None:
    if is_blank(record.output):
        return Found("empty-output", "output", excerpt(record.instruction), _REMOVED)
    if is_placeholder(record):
        return Found("placeholder", "output", excerpt(record.output), _REMOVED)
    return _why_seen(record, record, first_seen)


def _why_seen(key: Record | str, record: Record, first_seen: dict[Record | str, int]) -> Found | None:
    """A record that was there before; a conversation is known by all of it, tools and roles, too."""
    if key not in first_seen:
        return None
    return Found("duplicate", "instruction", f"record {first_seen[key]}: {excerpt(record.instruction)}", _REMOVED)


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
    readers: SourceReaders,
) -> None:
    if report.fixed is None or not kept:
        raise DataError(
            f"{report.source}: every record would be removed, so no file is written. Lint it without fix first."
        )
    sources = {number: rows.values[number - 1] for number, _ in kept}
    write_rows(
        (
            sources[number] if record is None else mended_row(sources[number], record, readers.of(number - 1).reader)
            for number, record in kept
        ),
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
