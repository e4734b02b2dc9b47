"""Commands of making and checking records."""

from __future__ import annotations

import os
import sys
from typing import Literal

from .names import command_name
from .terminal import printable


def self_instruct_run(
    out: str,
    model: str | None = None,
    base_url: str | None = None,
    base_model: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    num_records: int = 1000,
    seeds: str = "seeds",
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
) -> None:
    """Have a language model write new records from seed records; the same command goes on where it ended.

    The server's key comes from the variable OPENAI_API_KEY.

    Args:
        out: Folder of the run.
        model: The server's name for the model.
        base_url: Address of an OpenAI-compatible API; if left out the variable OPENAI_BASE_URL, or OpenAI's.
        base_model: A model to run here instead: a folder, a hub id, or `demo`.
        kind: completions is for a server's model that only goes on with a text.
        num_records: Enough accepted records.
        seeds: Records to begin with: a file, a hub id, or `seeds`, the packaged ones.
        domain: What tasks are about ("medical questions for patients"); anything if left out.
        language: Of the tasks, by its English name.
        mode: The form answers have: a numbered list, or JSON.
        tasks_per_request: New tasks asked for at a time.
        temperature: Higher is more varied.
        max_new_tokens: Most tokens of an answer.
        threshold: ROUGE-L from which two instructions are too similar.
        seed: Of the draw of seed records.
        concurrency: Most requests in flight.
        timeout_seconds: Longest wait for an answer.
        max_cost: Most money for the whole folder, in the currency of the prices; needs both.
        max_tokens: Most tokens for the whole folder.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
    """
    from .. import api

    summary = api.self_instruct(
        out,
        model=model,
        base_url=base_url or os.environ.get("OPENAI_BASE_URL"),
        key=os.environ.get("OPENAI_API_KEY"),
        base_model=base_model,
        kind=kind,
        num_records=num_records,
        seeds=seeds,
        domain=domain,
        language=language,
        mode=mode,
        tasks_per_request=tasks_per_request,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        threshold=threshold,
        seed=seed,
        concurrency=concurrency,
        timeout_seconds=timeout_seconds,
        max_cost=max_cost,
        max_tokens=max_tokens,
        price_in=price_in,
        price_out=price_out,
    )
    print(summary)
    own = "" if seeds == "seeds" else f" --seeds {seeds}"
    print(f"A page about it:\n  {command_name()} self-instruct report {out}{own}")
    if summary.ended == "no progress" or not summary.accepted:
        sys.exit(1)
    if summary.accepted:
        print(f"Next:\n  {command_name()} finetune --data {out}/records.jsonl --base_model BASE --output_dir TUNED")


def self_instruct_refilter(out: str, seeds: str = "seeds", threshold: float = 0.7) -> None:
    """Judge a run's answers again with another threshold; nothing is sent or paid.

    Args:
        out: Folder of the run.
        seeds: The records it began with.
        threshold: ROUGE-L from which two instructions are too similar.
    """
    from .. import api

    print(api.refilter(out, seeds=seeds, threshold=threshold))


def self_instruct_report(out: str, seeds: str = "seeds") -> None:
    """Write a page about a run, finished or going on: counts, pictures, cost, samples.

    Args:
        out: Folder of the run.
        seeds: The records it began with.
    """
    from .. import api

    print(api.self_instruct_report(out, seeds=seeds))


def lint(
    data: str, against: str | None = None, fix: str | None = None, columns: dict[str, str | None] | None = None
) -> None:
    """Find what is wrong with instruction data; exit code 1 where errors are left, 0 for warnings.

    Args:
        data: Records: a file, a hub id, or `seeds`.
        against: An evaluation set, a file with any keys; records that share text with it are errors.
        fix: A new .json or .jsonl file for the records with white space, <noinput>, empty outputs and duplicates mended
            or removed; NAME.lint.json beside it says what was done, and what is left with all record numbers.
        columns: Names of the data's own columns; one of theirs that is null is left out on purpose.
    """
    from .. import api

    report = api.lint(data, against=against, fix=fix, columns=columns)
    print(printable(str(report)))
    if report.errors:
        sys.exit(1)
