"""Self-instruct: new records written by a language model, from a few written by people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, all_of

if TYPE_CHECKING:
    from .run_summary import Summary


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
    token_budget: int | None = None,
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
        base_model: A model to run here instead, as `load` takes it; it is used for text completion and costs nothing.
        kind: "chat", or "completions" for text-completion models.
        num_records: Number of accepted records after which the run ends.
        seeds: Records to begin with, as for `finetune`; `seeds` are the packaged ones.
        domain: What tasks are about ("medical questions for patients"); anything if left out.
        language: Language of the tasks, by its English name.
        mode: The format of answers: a numbered "list", or "json".
        tasks_per_request: New tasks asked for per request.
        temperature: Higher is more varied.
        max_new_tokens: Maximum number of tokens of an answer.
        threshold: ROUGE-L from which two instructions are too similar.
        seed: Seed of the draw of seed records.
        concurrency: Maximum number of requests in flight.
        timeout_seconds: Maximum wait for an answer.
        max_cost: Maximum cost of the whole folder, in the currency of the prices; requires price_in and price_out.
        token_budget: Maximum number of tokens of the whole folder, prompts and answers together.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        key: The server's key; it is written nowhere.

    Returns:
        The outcome. `out` holds records.jsonl, journal.jsonl with every answer, and report.json.

    Raises:
        ConfigError: wrong settings, or others than those the run in `out` began with.
        DataError: seeds, or a journal, that cannot be used.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from ..data.records import load_records
    from ..llm.budget import Budget
    from ..llm.client import OPENAI
    from ..llm.journal import Journal
    from ..llm.model_ref import ModelRef, check_sampling
    from .generate import Generation
    from .prompt import Brief
    from .request import check_budget

    def check_counts() -> None:
        rules = (
            ("num_records", num_records, num_records >= 1, "at least 1"),
            ("threshold", threshold, 0 < threshold <= 1, "above 0 and at most 1"),
            ("concurrency", concurrency, 1 <= concurrency <= 1000, "from 1 to 1000"),
        )
        problems = [f"{name}: {value!r} must be {rule}." for name, value, ok, rule in rules if not ok]
        if (model is None) == (base_model is None):
            problems.append("model, base_model: give one of them: a server's model, or one to run here.")
        if problems:
            raise ConfigError(problems)

    brief, budget, *_ = all_of(
        lambda: Brief(domain=domain, language=language, count=tasks_per_request, mode=mode),
        lambda: Budget(max_cost, token_budget, price_in, price_out),
        lambda: check_sampling(temperature, max_new_tokens),
        check_counts,
    )
    url = base_url or OPENAI if model else None
    ref = ModelRef(
        model=model or str(base_model),
        base_url=url,
        key=key,
        kind=kind,
        concurrency=concurrency,
        budget=budget,
        force=None,
        timeout_seconds=timeout_seconds,
    )
    if model:
        _ = ref.writer  # which checks address and key; a model of this machine is loaded later
    records = load_records(seeds)
    made_from = {
        "model": ref.model,
        "kind": kind if model else "completions",
        "seeds": records.fingerprint,
        "seed": seed,
        **{"domain": brief.domain, "language": brief.language, "mode": brief.mode, "tasks_per_request": brief.count},
        **{"temperature": temperature, "max_new_tokens": max_new_tokens},
    }
    with Journal(out, made_from, {"threshold": threshold}) as journal:
        ref.spending.spent, ref.spending.lost = journal.state.spent, journal.state.unanswered
        if not journal.state.begun:
            chat = made_from["kind"] == "chat"
            check_budget(budget, records.instructions, brief, chat=chat, seed=seed, max_new_tokens=max_new_tokens)
        return Generation(
            journal, records.instructions, brief, ref.writer, num_records=num_records, concurrency=concurrency
        ).run()


def refilter(out: str | Path, *, seeds: Any = "seeds", threshold: float = 0.7) -> Summary:
    """Judge all answers of a self-instruct run again and rewrite its records.jsonl; nothing is sent or paid.

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
    from ..llm.journal import lock, read_journal
    from .run_summary import Summary
    from .task_pool import TaskPool, check_seeds, rejudge

    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold: {threshold!r} must be above 0 and at most 1.")
    records, settings = load_records(seeds), read_journal(out).head["settings"]
    check_seeds(records, settings, out)
    with lock(Path(out)):
        pool = TaskPool(records.instructions, settings, {"threshold": threshold})
        state = rejudge(out, {"threshold": threshold}, pool.judge)
        pool.write(Path(out))
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
    from .report_page import write_report

    return write_report(out, load_records(seeds))
