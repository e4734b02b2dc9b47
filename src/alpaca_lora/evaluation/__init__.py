"""Evaluation: which of two models people, or a judge, prefer, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .answers import Answered
    from .outcome import Compared


def answer(
    model: str | Path,
    instructions: str | Path,
    out: str | Path,
    *,
    base_url: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    base_model: str | None = None,
    prompt_template: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
    key: str | None = None,
) -> Answered:
    """Have a model answer a file of instructions, in AlpacaEval's format; the same call resumes it.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`; with base_url, the server's name for a
            model.
        instructions: A file of records, of Self-Instruct's tasks, or in AlpacaEval's format; or `probe`, packaged
            questions on known limits.
        out: A .json file to write, once all are answered. The folder of its name in .journal keeps each answer.
        base_url: Address of an OpenAI-compatible API.
        kind: "chat", or "completions" for text-completion models.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Maximum number of tokens of an answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        concurrency: Maximum number of requests in flight at a server.
        max_cost: Maximum cost of the whole file, in the currency of the prices; requires price_in and price_out.
        max_tokens: Maximum number of tokens of the whole file.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Continue even if tokenizer, template or base differ from those trained with.
        key: The server's key; it is written nowhere.

    Raises:
        ConfigError: wrong settings, or others than those `out` was begun with.
        DataError: instructions that cannot be read.
        AdapterError, ModelError: as `load`.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from ..llm.budget import Budget
    from ..llm.model_ref import ModelRef
    from .answers import answer as answer_all

    budget = Budget(max_cost, max_tokens, price_in, price_out)
    respondent = ModelRef(str(model), base_url, key, kind, prompt_template, concurrency, budget, force, base_model)
    return answer_all(respondent, instructions, out, max_new_tokens=max_new_tokens, temperature=temperature)


def compare(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    judge: str | Path | None = None,
    base_url: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    base_model: str | None = None,
    prompt_template: str | None = None,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
    key: str | None = None,
) -> Compared:
    """Compare two models by their answers: pair them, have a model judge them, and report what the votes support.

    Args:
        a: A file of answers: AlpacaEval's `model_outputs`, as `answer` writes them, or Self-Instruct's predictions.
        b: Another model's answers.
        out: Folder of the comparison; an existing one is resumed.
        judge: Have a model judge the pairs, each in both orders: what `answer` takes as `model`. Without a judge, the
            pairs are made and votes that are there reported.
        base_url: Address of an OpenAI-compatible API; the judge is then its name for a model.
        kind: "chat", or "completions" for text-completion models.
        base_model: Path or hub id of the base of a judge that is an adapter, if it is not where the adapter says.
        prompt_template: For judges without a contract; `alpaca` if left out.
        temperature: The judge's sampling temperature; 0 is greedy.
        concurrency: Maximum number of requests in flight at a server.
        max_cost: Maximum cost of this judge, in the currency of the prices; requires price_in and price_out.
        max_tokens: Maximum number of tokens of this judge.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Continue even if the judge's tokenizer, template or base differ from those it was trained with.
        key: The server's key; it is written nowhere.

    Returns:
        What it came to; `print` shows it, and `out` holds report.html and report.md.

    Raises:
        DataError: files that cannot be used, or that have no instruction in common.
        ConfigError: wrong settings, or `out` holds another comparison, other files, or this judge with other settings.
        AdapterError, ModelError, EndpointError, RunInterrupted: as `answer`.
    """
    from ..llm.budget import Budget
    from ..llm.model_ref import ModelRef
    from .judge import judge as judge_all
    from .outcome import report_on
    from .pairs import Comparison

    budget = Budget(max_cost, max_tokens, price_in, price_out)
    comparison = Comparison.open(out, a, b)
    if judge is not None:
        respondent = ModelRef(str(judge), base_url, key, kind, prompt_template, concurrency, budget, force, base_model)
        judge_all(comparison, respondent, temperature=temperature)
    return report_on(out)


def rate(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_host: str | Sequence[str] = (),
    share: float | None = None,
    raters: int | None = None,
    token: str | None = None,
    ready: Callable[[str], object] = print,
) -> Compared:
    """Let people rate two models' answers in their browsers, blind, until Ctrl-C or SIGTERM; then report.

    Args:
        a: A file of answers, as for `compare`.
        b: Another model's answers.
        out: Folder of the comparison; an existing one is resumed.
        host: Address to bind.
        port: 0 takes one that is free.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.
        share: The part of the pairs that each rater gets; all if left out.
        raters: Number of raters expected; given with `share`, and only then.
        token: What browsers must present; a new one if left out. It is in the address.
        ready: Called with the address once it can be opened.

    Raises:
        DataError, ConfigError: as `compare`.
        MissingDependencyError: the extra `judge` is not installed.
    """
    import secrets

    from .outcome import report_on
    from .pairs import Comparison
    from .rating import rate as serve_page

    comparison = Comparison.open(out, a, b)
    token = token or secrets.token_urlsafe(16)
    serve_page(
        comparison,
        host=host,
        port=port,
        token=token,
        share=share,
        raters=raters,
        ready=ready,
        allow_host=[allow_host] if isinstance(allow_host, str) else allow_host,
    )
    return report_on(out)


def compare_report(folder: str | Path) -> Compared:
    """Write the report of a comparison's folder anew, from all votes in it, of people and of judges.

    Raises:
        DataError: the folder holds no comparison, or something in it is damaged.
    """
    from .outcome import report_on

    return report_on(folder)


def compare_preferences(path: str | Path, out: str | Path) -> Compared:
    """Report on judgements made elsewhere.

    Args:
        path: AlpacaEval's annotations.json, or a table (CSV, JSON, Parquet) of item, model_a, model_b and preference.
        out: Folder for report.html and report.md.

    Raises:
        DataError: the file cannot be read, or a row cannot be used.
        ConfigError: `out` holds a comparison, or other files.
    """
    from .outcome import report_on_preferences

    return report_on_preferences(path, out)
