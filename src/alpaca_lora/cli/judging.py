"""Commands of judging: what is printed, and what comes from the environment."""

from __future__ import annotations

import os
import sys
from inspect import signature
from pathlib import Path
from shlex import quote
from typing import Any

from .. import evaluation
from ..errors import ConfigError
from .names import command_name


def answer(base_url: str | None, out: str, **given: Any) -> None:
    """Print what was answered; exit code 1 where the budget ended it."""
    answered = evaluation.answer(out=out, base_url=base_url, key=_key(base_url), **given)
    print(answered)
    if answered.ended == "budget":
        sys.exit(1)
    print(f"Next, with another model's answers:\n  {command_name()} compare {quote(out)} OTHER.json --rate")


def compare_options(
    a: str | None = None,
    b: str | None = None,
    out: str | None = None,
    rate: bool = False,
    preferences: str | None = None,
) -> None:
    """Compare two models' answers, by people or by a judge; or `report FOLDER`: the report anew.

    Args:
        a: A file of answers, or the word `report`.
        b: Another model's answers; after `report`, the folder of a comparison.
        out: Folder of the comparison; if left out, named after the files.
        rate: Serve a page on which people rate the pairs, blind, until Ctrl-C.
        preferences: Report on this file instead: AlpacaEval's annotations.json, or a table of preferences.
    """


def compare(a: str | None, b: str | None, out: str | None, rate: bool, preferences: str | None, **given: Any) -> None:
    """Print the verdict."""
    if preferences is not None:
        if a is not None or rate or given["judge"] is not None:
            raise ConfigError("preferences: has the votes already; leave the files of answers, --rate and --judge out.")
        print(evaluation.compare_preferences(preferences, out or f"{Path(preferences).stem}-report"))
        return
    if a is None or b is None:
        raise ConfigError("compare: give two files of answers, or --preferences FILE, or report FOLDER.")
    if a == "report":
        print(evaluation.compare_report(b))
        return
    if rate and given["judge"] is not None:
        raise ConfigError("rate, judge: give one at a time; the report has both, if --out is the same.")
    out = out or f"{Path(a).stem}-vs-{Path(b).stem}"
    if rate:

        def ready(url: str) -> None:
            print(f"Raters open {url}\nCtrl-C ends it; the same command goes on.", flush=True)

        print(evaluation.rate(a, b, out, ready=ready, **_of(evaluation.rate, given)))
        return
    compared = evaluation.compare(a, b, out, key=_key(given["base_url"]), **_of(evaluation.compare, given))
    print(compared)
    if compared.report is None:
        print(f"Next:\n  {command_name()} compare {quote(a)} {quote(b)} --out {quote(out)} --rate")


def _of(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What of the options is the function's."""
    return {name: value for name, value in given.items() if name in signature(function).parameters}


def _key(base_url: str | None) -> str | None:
    return os.environ.get("OPENAI_API_KEY") if base_url else None
