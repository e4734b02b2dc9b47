"""Self-instruct: new records written by a language model, from a few written by people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError

if TYPE_CHECKING:
    from .summary import Summary


def self_instruct(
    out: str | Path,
    *,
    model: str | None = None,
    base_url: str | None = None,
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
    key: str | None = None,
) -> Summary:
    """Have a language model write new records, from seed records and a brief; the same call resumes it.

    Nothing is written before all settings are known to be good, and a model of this machine is loaded only once the
    journal belongs to this process.

    Args:
        out: Folder of the run; one that exists is continued, with what its requests are made from unchanged.
        model: The server's name for the model.
        base_url: Address of an OpenAI-compatible API; OpenAI's own if left out.
        base_model: A model to run here instead, as `load` takes it; it goes on with a text and costs nothing.
        kind: "chat", or "completions" for text-completion models.
        num_records: Number of accepted records after which the run ends.
        seeds: Records to begin with, as for `finetune`; `seeds` are the packaged ones.
        domain: What tasks are about ("medical questions for patients"); anything if left out.
        language: Language of the tasks, by its English name.
        mode: The form answers have: a numbered "list", or "json".
        tasks_per_request: New tasks asked for per request.
        temperature: Higher is more varied.
        max_new_tokens: Maximum number of tokens of an answer.
        threshold: ROUGE-L from which two instructions are too similar.
        seed: Seed of the draw of seed records.
        concurrency: Maximum number of requests in flight.
        timeout_seconds: Maximum wait for an answer.
        max_cost: Maximum cost of the whole folder, in the currency of the prices; requires price_in and price_out.
        max_tokens: Maximum number of tokens of the whole folder.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        key: The server's key; it is written nowhere.

    Returns:
        What it came to. `out` holds records.jsonl, journal.jsonl with every answer, and report.json.

    Raises:
        ConfigError: wrong settings, or others than those the run in `out` began with.
        DataError: seeds, or a journal, that cannot be used.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from ..data.records import load_records
    from ..llm.budget import Budget, Spending
    from ..llm.client import OPENAI, Endpoint
    from ..llm.journal import Journal
    from ..llm.local_client import LocalEndpoint
    from .generate import Generation, check_budget
    from .prompt import Brief

    brief = Brief(domain=domain, language=language, count=tasks_per_request, mode=mode)
    budget = Budget(max_cost, max_tokens, price_in, price_out)
    problems = [
        f"{name}: {value!r} must be {rule}."
        for name, value, ok, rule in (
            ("num_records", num_records, num_records >= 1, "at least 1"),
            ("temperature", temperature, 0 <= temperature <= 1e3, "from 0 to 1000"),
            ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
            ("threshold", threshold, 0 < threshold <= 1, "above 0 and at most 1"),
            ("concurrency", concurrency, 1 <= concurrency <= 1000, "from 1 to 1000"),
        )
        if not ok
    ]
    if (model is None) == (base_model is None):
        problems.append("model, base_model: give one of them: a server's model, or one to run here.")
    if problems:
        raise ConfigError(problems)
    spending = Spending(budget)
    writer: Endpoint | LocalEndpoint | None = None
    if model is not None:
        writer = Endpoint(
            base_url or OPENAI,
            model,
            key=key,
            kind=kind,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            spending=spending,
        )
    records = load_records(seeds)
    made_from = {
        "model": model or str(base_model),
        "kind": kind if model else LocalEndpoint.kind,
        "seeds": records.fingerprint,
        "seed": seed,
        **{"domain": brief.domain, "language": brief.language, "mode": brief.mode, "tasks_per_request": brief.count},
        **{"temperature": temperature, "max_new_tokens": max_new_tokens},
    }
    with Journal(out, made_from, {"threshold": threshold}) as journal:
        spending.spent, spending.lost = journal.state.spent, journal.state.unanswered
        if not journal.state.begun:
            chat = made_from["kind"] == "chat"
            check_budget(budget, records.records, brief, chat=chat, seed=seed, max_new_tokens=max_new_tokens)
        if writer is None:
            from ..generation.model import LocalModel  # loads torch

            writer = LocalEndpoint(
                LocalModel.load(str(base_model), force=None), concurrency=concurrency, spending=spending
            )
        generation = Generation(
            journal, records.records, brief, writer, num_records=num_records, concurrency=concurrency
        )
        return generation.run()


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
    from .pool import refilter as judge_again
    from .summary import Summary

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
    from .report import write_report

    return write_report(out, load_records(seeds))
