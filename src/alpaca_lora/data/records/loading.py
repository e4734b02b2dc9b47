"""Records from any source: validated instruction, input and output texts, ready for training, or one error.

52,000 records (Alpaca's size) load in under a second; all of them are held in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import DataError
from ..columns import Columns
from ..record import AnyRecord, Conversation, Preference, as_record
from ..sources import Rows, open_source
from .bad_rows import BadRows
from .preferences import EMPTY_ANSWER, OTHER_PROMPT, SAME_ANSWERS, why_unusable
from .record_set import RecordSet, shown_numbers
from .row_problem import RowProblem, check_asked
from .source_readers import SourceReaders, compares, reader_for
from .text_warnings import TextWarnings
from .turns import blank_answer

if TYPE_CHECKING:
    import datasets

MAX_DROPPED_PERCENT = 5
_EMPTY_OUTPUT = "empty output"
_NOTHING_LEARNED = "no answer to learn"
_REASONS = {
    _EMPTY_OUTPUT: (
        "have an empty output",
        "Fill them in, remove these records, or name the right column with columns={'output': ...}.",
    ),
    _NOTHING_LEARNED: ("have no answer that may be learned", "Remove these records."),
    EMPTY_ANSWER: (
        "have an empty answer",
        "Fill them in, remove these records, or name the right columns with columns={'chosen': ..., 'rejected': ...}.",
    ),
    SAME_ANSWERS: ("have the same answer twice, as chosen and as rejected", "Remove these records."),
    OTHER_PROMPT: (
        "have two answers to different prompts, as all before the last message tells",
        "Compare the last answers only, or remove these records.",
    ),
}
"""Reason -> what such records have, and what to do."""


def load_records(
    data: str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]] | datasets.Dataset,
    *,
    columns: Columns | None = None,
    objective: Literal["sft", "dpo", "orpo"] = "sft",
) -> RecordSet:
    """Reads and validates instruction data, or preferences.

    Rows hold Alpaca keys (`instruction`, `input`, `output`; also `system`, `history` and `tools`), turns
    (`conversations` or `messages`) or trees of replies; `columns` names other keys. What is more than one exchange is a
    Conversation. An absent or null input is "". Rows with an empty output, or without an answer that may be learned,
    are dropped with a warning, up to 5% of them. A key that is not read and would be missed is an error or a
    warning (key_rules.py says which).
    Texts such as "NaN", and control characters in texts, get a warning.

    Args:
        data: Path of a JSON, JSON Lines, CSV or Parquet file (also in gzip, zstd or bzip2) or of a folder written by
            `Dataset.save_to_disk`; a folder of such files, or a pattern (`data/*.json`), which are read in the order of
            their names; a Hugging Face hub id (its split "train"; `name@revision` pins it); "seeds" for the packaged
            records; `{"path": one of these, ...}` with `columns`, `split`, `config` or `revision` of its own; a list of
            these, read one after the other; a list of dicts; or a `datasets.Dataset` (of a `DatasetDict`, the split
            "train"). `weight` and `count` of a source are for training; all of its records are read.
        columns: Our field -> the source's key; a key of the source -> None leaves it out on purpose.
        objective: What the records are for. With "dpo" and "orpo" rows are preferences: two answers, `chosen` and
            `rejected`, to one prompt (preferences.py shows their forms). Pairs of the same or an empty answer are
            dropped likewise.

    Returns:
        The records in source order.

    Raises:
        DataError: A source or a record in it cannot be used; the message names file, record, line and fix.
        ConfigError: `columns` names a field that a record does not have, or there is no such objective.

    Examples:
        >>> found = load_records([{"question": "2 + 3?", "answer": "5"}],
        ...                      columns={"instruction": "question", "output": "answer"})
        >>> found.records
        [Record(instruction='2 + 3?', input='', output='5')]
    """
    compared = compares(objective)
    reader_for(compared)(columns)  # what is wrong with them is said before anything is read
    rows = open_source(data)
    if not rows.values:
        raise DataError(f"{rows.source}: the source holds no records (0 rows). Add some, or name another source.")
    records: list[AnyRecord] = []
    kept: list[int] = []
    dropped: dict[str, list[int]] = {}
    readers, bad, odd = SourceReaders(rows, columns, compared), BadRows(rows, compared), TextWarnings()
    for index, row in enumerate(rows.values):
        if index in rows.left_out and compared:
            dropped.setdefault(rows.left_out[index], []).append(index + 1)
            continue
        reader, unread, _ = readers.of(index)
        try:
            record = reader.read(row)
            texts = as_record(record)
            unread.see(index + 1, row, texts, record.answers if isinstance(record, Preference) else ())
            if reason := _why_dropped(record):
                dropped.setdefault(reason, []).append(index + 1)
                continue
            check_asked(texts)
        except RowProblem as problem:
            bad.add(index, problem)
            continue
        odd.see(index + 1, texts)
        records.append(record)
        kept.append(index + 1)
    found = readers.unread()
    lost = [one for one in found if one.severity == "error"]
    problems = [] if bad else [*readers.column_problems(rows), *readers.repeated_prompts(rows)]
    unusable = {reason: numbers for reason, numbers in dropped.items() if reason in _REASONS}
    count = sum(map(len, unusable.values()))
    if count * 100 > len(rows.values) * MAX_DROPPED_PERCENT:
        problems += [_too_many(rows, reason, numbers, count) for reason, numbers in unusable.items()]
    if bad or lost or problems:
        raise DataError(bad.message(lost, problems))
    if not records:  # a comparison whose votes decide nothing
        raise DataError(f"{' '.join(rows.notes)} Nothing is left to train on: gather more votes.")
    # Level 2: the caller of load_records.
    if rows.left_out:
        warnings.warn(" ".join(rows.notes), stacklevel=2)
    for reason, numbers in unusable.items():
        said = shown_numbers(numbers, len(rows.values), rows.parts)
        mend = "Fill them in or remove them." if reason in (_EMPTY_OUTPUT, EMPTY_ANSWER) else "Remove them."
        warnings.warn(f"{rows.source}: {said} {_REASONS[reason][0]}; they are dropped. {mend}", stacklevel=2)
    if unlearned := dict(readers.unlearned().most_common()):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in unlearned.items())
        said = f"{sum(unlearned.values()):,} answers of its trees are not learned: {reasons}"
        warnings.warn(f"{rows.source}: {said}.", stacklevel=2)
    if count := readers.unanswered():
        said = f"turns at the end that nobody answers are not read, in {count:,} of {len(rows.values):,} rows"
        warnings.warn(f"{rows.source}: {said}.", stacklevel=2)
    told = [one.sentences(len(rows.values), rows.parts) for one in found if one.severity == "warn"]
    if told := [*told, *odd.sentences(len(rows.values), rows.parts)]:
        warnings.warn(f"{rows.source}: {' '.join(told)}", stacklevel=2)
    return RecordSet(
        records,
        kept,
        rows.source,
        dropped,
        {one.key: len(one.records) for one in found},
        rows.parts,
        unlearned,
        rows.entries,
        rows.commits,
        rows.notes,
    )


def _why_dropped(record: AnyRecord) -> str:
    """The reason, a key of `_REASONS`, why nothing is learned from a record, or ""."""
    if isinstance(record, Preference):
        return why_unusable(record)
    if isinstance(record, Conversation) and not record.trained:
        return _NOTHING_LEARNED
    return _EMPTY_OUTPUT if blank_answer(record) else ""


def _too_many(rows: Rows, reason: str, numbers: list[int], count: int) -> str:
    total = len(rows.values)
    left = "none is left" if count == total else f"at most {MAX_DROPPED_PERCENT}% may be dropped"
    have, mend = _REASONS[reason]
    return f"{shown_numbers(numbers, total, rows.parts)} {have}; {left}. {mend}"
