"""A whole run of self-instruct: settings checked together, seeds read, a writer made, the journal opened or continued.

Nothing is written before all settings are known to be good, and a model of this machine is loaded only once the
journal belongs to this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..data.records import load_records
from ..errors import ConfigError
from ..llm.budget import Budget, Spending
from ..llm.client import OPENAI, Endpoint
from ..llm.journal import Journal
from ..llm.local_client import LocalEndpoint
from .generate import Generation, check_budget
from .prompt import Brief
from .summary import Summary


def write_records(
    out: str | Path,
    *,
    model: str | None,
    base_url: str | None,
    key: str | None,
    base_model: str | None,
    kind: Literal["chat", "completions"],
    num_records: int,
    seeds: Any,
    brief: Brief,
    temperature: float,
    max_new_tokens: int,
    threshold: float,
    seed: int,
    concurrency: int,
    timeout_seconds: float,
    budget: Budget,
) -> Summary:
    """Begin a run, or go on with it; arguments, result and errors as of `alpaca_lora.self_instruct`."""
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
        bootstrap = Generation(
            journal, records.records, brief, writer, num_records=num_records, concurrency=concurrency
        )
        return bootstrap.run()
