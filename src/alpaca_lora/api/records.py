"""Records: made by a model, looked at, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import FinetuneConfig
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..data.lint.report import LintReport
    from ..data.report import DataReport
    from ..selfinstruct.summary import Summary


def self_instruct(
    out: str | Path,
    *,
    model: str | None = None,
    base_url: str | None = None,
    key: str | None = None,
    base_model: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    num_records: int = 1000,
    seeds: Any = "seeds",
    domain: str | None = None,
    language: str = "English",
    mode: Literal["list", "json"] = "list",
    tasks_per_request: int = 20,
    temperature: float = 1.0,
    max_new_tokens: int = 3072,
    threshold: float = 0.7,
    seed: int = 42,
    concurrency: int = 8,
    timeout_seconds: float = 300,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
) -> Summary:
    """Have a language model write new records, from seed records and a brief, or go on with it.

    Args:
        out: Folder of the run; one that exists is continued, with what its requests are made from unchanged.
        model: The server's name for the model; or, instead,
        base_model: a model to run here, as `load` takes it; it goes on with a text and costs nothing.
        base_url: Address of an OpenAI-compatible API; OpenAI's own if left out.
        key: Its key; it is written nowhere.
        kind: "chat", or "completions" for a server's model that only goes on with a text.
        num_records: Enough accepted records.
        seeds: Records, as for `finetune`.
        domain: What tasks are about ("medical questions for patients"); anything if left out.
        language: Of the tasks, by its English name.
        mode: The form answers have: a numbered "list", or "json".
        tasks_per_request: New tasks asked for at a time.
        temperature: Higher is more varied.
        max_new_tokens: Most tokens of an answer.
        threshold: ROUGE-L from which two instructions are too similar.
        seed: Of the draw of seed records.
        concurrency: Most requests in flight.
        timeout_seconds: Longest wait for an answer.
        max_cost: Most money for the whole folder; needs both prices.
        max_tokens: Most tokens for the whole folder.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.

    Returns:
        What it came to. `out` holds records.jsonl, journal.jsonl with every answer, and report.json.

    Raises:
        ConfigError: wrong settings, or others than those the run in `out` began with.
        DataError: seeds, or a journal, that cannot be used.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from ..llm.budget import Budget
    from ..selfinstruct.prompt import Brief
    from ..selfinstruct.run import write_records

    return write_records(
        out,
        model=model,
        base_url=base_url,
        key=key,
        base_model=base_model,
        kind=kind,
        num_records=num_records,
        seeds=seeds,
        brief=Brief(domain=domain, language=language, count=tasks_per_request, mode=mode),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        threshold=threshold,
        seed=seed,
        concurrency=concurrency,
        timeout_seconds=timeout_seconds,
        budget=Budget(max_cost, max_tokens, price_in, price_out),
    )


def refilter(out: str | Path, *, seeds: Any = "seeds", threshold: float = 0.7) -> Summary:
    """Judge all answers of a self-instruct run again and write its records.jsonl anew; nothing is sent or paid.

    Args:
        out: Folder of the run.
        seeds: The records it began with.
        threshold: ROUGE-L from which two instructions are too similar.

    Raises:
        ConfigError: other seeds, or the run is going on.
        DataError: `out` holds no journal, or a damaged one.
    """
    from ..data.records import load_records
    from ..llm.budget import Budget
    from ..selfinstruct.pool import refilter as judge_again
    from ..selfinstruct.summary import Summary

    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold: {threshold!r} must be above 0 and at most 1.")
    state = judge_again(out, load_records(seeds), {"threshold": threshold})
    summary = Summary.of(Path(out), state, Budget(), "refilter", f"Judged again, with threshold {threshold:g}.")
    summary.write(state.samples)
    return summary


def self_instruct_report(out: str | Path, *, seeds: Any = "seeds") -> Path:
    """Write a page about a self-instruct run, finished or going on: counts, pictures, cost, samples.

    Args:
        out: Folder of the run.
        seeds: The records it began with.

    Returns:
        The page, report.html in `out`.

    Raises:
        ConfigError: other seeds.
        DataError: `out` holds no journal, or a damaged one.
    """
    from ..data.records import load_records
    from ..selfinstruct.report import write_report

    return write_report(out, load_records(seeds))


def inspect(data: Any, base_model: str, **settings: Any) -> DataReport:
    """What training would see, before any training: counts, lengths, truncation, supervised tokens, examples.

    Args:
        data: Records, as for `finetune`.
        base_model: Its tokenizer and config are used; no weights are loaded.
        **settings: Other fields of `FinetuneConfig`: prompt_template, cutoff_len, columns, batch_size, ...

    Raises:
        ConfigError, DataError, ModelError: as `finetune` would.
    """
    from ..data.report import DataReport
    from ..models.load import resolve_base
    from ..planning.prepare import prepare

    config = FinetuneConfig.make(data=data, base_model=base_model, output_dir=".", **{"val_set_size": 0, **settings})
    prepared = prepare(config, resolve_base(base_model))
    return DataReport(prepared.records, prepared.train, prepared.encoder)


def lint(
    data: Any,
    *,
    against: Any = None,
    fix: str | Path | None = None,
    columns: dict[str, str | None] | None = None,
) -> LintReport:
    """Find what is wrong with instruction data, and mend what needs no judgement.

    Args:
        data: Records, as for `finetune`; blank outputs and rows that are no records are findings here.
        against: An evaluation set, with any keys; records that share text with it are findings.
        fix: A new .json or .jsonl file for the mended records. NAME.lint.json beside it says what was done.
        columns: Our field -> the data's own column; a column of theirs -> None is left out on purpose.

    Returns:
        The findings, of the data as they were; `print` shows a table and examples.

    Raises:
        DataError: data that cannot be read, or without a single record.
        ConfigError: `fix` names a file that is there already, or none for data.
        MissingDependencyError: rapidfuzz is not installed.
    """
    from ..data.lint.report import lint_data

    return lint_data(data, against=against, fix=fix, columns=columns)
