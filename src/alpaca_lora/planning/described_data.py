"""Data as a run's file describes them: where they were, what they held, what of them was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import FinetuneConfig
from ..data.records import RecordSet
from ..data.tokens import Examples
from ..runs.identity import seal_of
from ..runs.run_file import DataSource, TrainingData


def described_data(
    config: FinetuneConfig, records: RecordSet, parts: Sequence[Examples], own: RecordSet | None
) -> TrainingData:
    """What the run file says of data.

    Args:
        config: The run's settings.
        records: What `data` gave.
        parts: Training examples, and validation examples if there are any.
        own: What `val_data` gave, if it was set.
    """
    sources = _sources(records)
    named: dict[str, Any] = {"source": records.source, "fingerprint": records.fingerprint, "columns": config.columns}
    if sources:
        named["sources"] = [source.reopen() for source in sources]
    dropped = [records.dropped, *([own.dropped] if own else [])]
    return TrainingData(
        source=records.source,
        fingerprint=records.fingerprint,
        train_records=parts[0].records,
        validation_records=sum(part.records for part in parts[1:]),
        dropped={
            **{reason: sum(len(one.get(reason, ())) for one in dropped) for one in dropped for reason in one},
            "prompt reaches cutoff_len": sum(len(part.dropped) for part in parts),
            **({"both answers have the same tokens": same} if (same := sum(len(part.same) for part in parts)) else {}),
        },
        truncated=sum(len(part.truncated) for part in parts),
        shortened=sum(len(part.shortened) for part in parts),
        seal=seal_of(named),
        sources=sources or None,
        validation=None if own is None else own.fingerprint,
        validation_sources=None if own is None else _sources(own) or [DataSource(own.source, len(own))],
    )


def _sources(records: RecordSet) -> list[DataSource]:
    """Each source, if there are several or if more than a name was said of one."""
    parts = records.parts or ((records.source, len(records)),)
    if not records.entries:
        return []
    found = [
        DataSource(
            name,
            rows,
            commit=commit,
            columns=dict(entry.columns) if entry.columns is not None else None,
            split=entry.split,
            config=entry.config,
            revision=entry.revision,
            weight=entry.weight,
            count=entry.count,
            votes=entry.votes,
            raters=entry.raters,
        )
        for (name, rows), entry, commit in zip(parts, records.entries, records.commits, strict=True)
    ]
    plain = len(found) == 1 and found[0] == DataSource(*parts[0])
    return [] if plain else found
