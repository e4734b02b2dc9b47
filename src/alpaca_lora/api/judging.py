"""Answers to be judged, and judging them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..evaluation.answer import Answered
    from ..evaluation.compare import Compared


def answer(
    model: str | Path,
    instructions: str | Path,
    out: str | Path,
    *,
    base_url: str | None = None,
    key: str | None = None,
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
) -> Answered:
    """Have a model answer a file of instructions, or go on with it; the answers are in AlpacaEval's format.

    Args:
        model: What `load` takes; with `base_url`, the server's name for a model.
        instructions: A file of records, of Self-Instruct's tasks, or in AlpacaEval's format; or "probe", the
            packaged probe of known limits.
        out: A .json file to write, once all are answered. The folder of its name in .journal keeps each answer.
        base_url: Address of an OpenAI-compatible API.
        key: Its key; it is written nowhere.
        kind: "chat", or "completions" for a server's model that only goes on with a text.
        base_model: As for `load`.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time.
        concurrency: Most requests in flight at a server.
        max_cost: Most money for the whole file; needs both prices.
        max_tokens: Most tokens for the whole file.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: As for `load`.

    Raises:
        ConfigError: wrong settings, or others than those `out` was begun with.
        DataError: instructions that cannot be read.
        AdapterError, ModelError: as `load`.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from ..evaluation.answer import answer as answer_all
    from ..llm.budget import Budget
    from ..llm.model_ref import ModelRef

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
    key: str | None = None,
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
) -> Compared:
    """Compare two models by their answers: pair them, have a model judge them, and report what the votes support.

    Args:
        a: A file of answers: AlpacaEval's `model_outputs`, as `answer` writes them, or Self-Instruct's predictions.
        b: Another's.
        out: Folder of the comparison; one that exists is gone on with.
        judge: The judge, as `model` for `answer`; the settings after it are the judge's. It sees each pair in both
            orders. Without a judge, the pairs are made and votes that are there reported.

    Returns:
        What it came to; `print` shows it, and `out` holds report.html and report.md.

    Raises:
        DataError: files that cannot be used, or that have no instruction in common.
        ConfigError: wrong settings, or `out` holds another comparison, or this judge with other settings.
        AdapterError, ModelError, EndpointError, RunInterrupted: as `answer`.
    """
    from ..evaluation.compare import report_on
    from ..evaluation.judge import judge as judge_all
    from ..evaluation.pairs import Comparison
    from ..llm.budget import Budget
    from ..llm.model_ref import ModelRef

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
    token: str | None = None,
    share: float | None = None,
    raters: int | None = None,
    ready: Callable[[str], object] = print,
    allow_host: Sequence[str] = (),
) -> Compared:
    """Let people rate two models' answers in their browsers, blind, until Ctrl-C or SIGTERM; then report.

    Args:
        a: A file of answers, as for `compare`.
        b: Another's.
        out: Folder of the comparison; one that exists is gone on with.
        host: What is bound.
        port: 0 takes one that is free.
        token: What browsers must present; a new one if left out. It is in the address.
        share: The part of the pairs that each rater gets; all if left out.
        raters: How many are expected; given with `share`, and only then.
        ready: Called with the address once it can be opened.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.

    Raises:
        DataError, ConfigError: as `compare`.
        MissingDependencyError: the extra `judge` is not installed.
    """
    import secrets

    from ..evaluation.compare import report_on
    from ..evaluation.pairs import Comparison
    from ..evaluation.rate import rate as serve_page

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
        allow_host=allow_host,
    )
    return report_on(out)


def compare_report(folder: str | Path) -> Compared:
    """Write the report of a comparison's folder anew, from all votes in it, of people and of judges.

    Raises:
        DataError: the folder holds no comparison, or something in it is damaged.
    """
    from ..evaluation.compare import report_on

    return report_on(folder)


def compare_preferences(path: str | Path, out: str | Path) -> Compared:
    """Report on judgements made elsewhere.

    Args:
        path: AlpacaEval's annotations.json, or a table (CSV, JSON, Parquet) of item, model_a, model_b and preference.
        out: Folder for report.html and report.md.

    Raises:
        DataError: the file cannot be read, or a row cannot be used.
    """
    from ..evaluation.compare import report_on_preferences

    return report_on_preferences(path, out)
