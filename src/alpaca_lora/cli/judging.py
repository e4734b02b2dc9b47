"""Commands of judging."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from typing import Literal

from ..errors import ConfigError
from .names import command_name, paths


def answer(
    model: str,
    instructions: str,
    out: str,
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
) -> None:
    """Answer a file of instructions, in AlpacaEval's format; the same command goes on where it ended.

    A server's key comes from the variable OPENAI_API_KEY.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        instructions: Records, Self-Instruct's tasks, AlpacaEval's format, or `probe`.
        out: A .json file to write.
        base_url: Address of an OpenAI-compatible API; MODEL is then its name for a model.
        kind: completions is for a server's model that only goes on with a text.
        base_model: For an adapter: where its base is now, if not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        concurrency: Most requests in flight at a server.
        max_cost: Most money for the whole file, in the currency of the prices; needs both.
        max_tokens: Most tokens for the whole file.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from .. import api

    answered = api.answer(
        model,
        instructions,
        out,
        base_url=base_url,
        key=os.environ.get("OPENAI_API_KEY") if base_url else None,
        kind=kind,
        base_model=base_model,
        prompt_template=prompt_template,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        concurrency=concurrency,
        max_cost=max_cost,
        max_tokens=max_tokens,
        price_in=price_in,
        price_out=price_out,
        force=force,
    )
    print(answered)
    if answered.ended == "budget":
        sys.exit(1)
    print(f"Next, with another model's answers:\n  {command_name()} compare {quote(out)} OTHER.json --rate")


def compare(
    a: str | None = None,
    b: str | None = None,
    out: str | None = None,
    rate: bool = False,
    judge: str | None = None,
    preferences: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_host: list[str] | str | None = None,
    share: float | None = None,
    raters: int | None = None,
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
) -> None:
    """Compare two models' answers, by people or by a judge; or `report FOLDER`: the report anew.

    A server's key comes from the variable OPENAI_API_KEY.

    Args:
        a: A file of answers, or the word `report`.
        b: Another model's answers; after `report`, the folder of a comparison.
        out: Folder of the comparison; if left out, named after the files.
        rate: Serve a page on which people rate the pairs, blind, until Ctrl-C.
        judge: Have a model judge the pairs in both orders: an adapter, merged or base folder, hub id, or `demo`.
        preferences: Report on this file instead: AlpacaEval's annotations.json, or a table of preferences.
        host: What --rate binds.
        port: Of --rate; 0 takes one that is free.
        allow_host: Of --rate; names beside this machine's own under which a tunnel or proxy passes requests on.
        share: The part of the pairs that each rater gets; all if left out.
        raters: How many raters are expected; with --share only.
        base_url: Address of an OpenAI-compatible API; the judge is then its name for a model.
        kind: completions is for a server's model that only goes on with a text.
        base_model: For a judge that is an adapter: where its base is now, if not where the adapter says.
        prompt_template: For judges without a contract; `alpaca` if left out.
        temperature: Of the judge; 0 takes the likeliest token each time.
        concurrency: Most requests in flight at a server.
        max_cost: Most money for this judge, in the currency of the prices; needs both.
        max_tokens: Most tokens for this judge.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Go on where the judge's tokenizer, template or base are not those it was trained with.
    """
    from .. import api

    if preferences is not None:
        if a is not None or rate or judge is not None:
            raise ConfigError("preferences: has the votes already; leave the files of answers, --rate and --judge out.")
        print(api.compare_preferences(preferences, out or f"{Path(preferences).stem}-report"))
        return
    if a is None or b is None:
        raise ConfigError("compare: give two files of answers, or --preferences FILE, or report FOLDER.")
    if a == "report":
        print(api.compare_report(b))
        return
    if rate and judge is not None:
        raise ConfigError("rate, judge: give one at a time; the report has both, if --out is the same.")
    out = out or f"{Path(a).stem}-vs-{Path(b).stem}"
    if rate:

        def ready(url: str) -> None:
            print(f"Raters open {url}\nCtrl-C ends it; the same command goes on.", flush=True)

        names = paths(allow_host)
        print(api.rate(a, b, out, host=host, port=port, share=share, raters=raters, ready=ready, allow_host=names))
        return
    compared = api.compare(
        a,
        b,
        out,
        judge=judge,
        base_url=base_url,
        key=os.environ.get("OPENAI_API_KEY") if base_url else None,
        kind=kind,
        base_model=base_model,
        prompt_template=prompt_template,
        temperature=temperature,
        concurrency=concurrency,
        max_cost=max_cost,
        max_tokens=max_tokens,
        price_in=price_in,
        price_out=price_out,
        force=force,
    )
    print(compared)
    if compared.report is None:
        print(f"Next:\n  {command_name()} compare {quote(a)} {quote(b)} --out {quote(out)} --rate")
