"""Commands of judging: what is printed, and what comes from the environment."""

from __future__ import annotations

import os
import sys
from inspect import signature
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import ConfigError
from ..evaluation import answers, benchmarks, compare_models
from ..evaluation.people import rating_page
from .names import command_name


def answer(base_url: str | None, out: str, **given: Any) -> None:
    """Print what was answered; exit code 1 if the budget ended it."""
    answered = answers.answer(out=out, base_url=base_url, key=_key(base_url), **given)
    print(answered)
    if answered.ended == "budget":
        sys.exit(1)
    if Path(out).suffix == ".jsonl":
        print("Next: FastChat reads it as data/mt_bench/model_answer/NAME.jsonl, NAME being the model. Its judgements:")
        print(f"  {command_name()} compare --preferences data/mt_bench/model_judgment/JUDGE_pair.jsonl")
    else:
        print(f"Next, with another model's answers:\n  {command_name()} compare {quote(out)} OTHER.json --rate")


def compare_options(
    a: str | None = None,
    b: str | None = None,
    out: str | None = None,
    rate: bool = False,
    preferences: str | None = None,
) -> None:
    """Compare two models' answers, by people or by a judge.

    Args:
        a: A file of answers.
        b: Another model's answers.
        out: Folder of the comparison; if left out, named after the files.
        rate: Serve a page on which people rate the pairs, blind, until Ctrl-C.
        preferences: Report on this file instead: AlpacaEval's annotations.json or leaderboard.csv, FastChat's
            model_judgment, or a table of preferences.
    """


def compare(a: str | None, b: str | None, out: str | None, rate: bool, preferences: str | None, **given: Any) -> None:
    """Print the verdict."""
    if preferences is not None:
        if a is not None or rate or given["judge"] is not None:
            raise ConfigError("preferences: has the votes already; leave the files of answers, --rate and --judge out.")
        print(compare_models.compare_preferences(preferences, out or f"{Path(preferences).stem}-report"))
        return
    if a is None or b is None:
        raise ConfigError("compare: give two files of answers, or --preferences FILE.")
    if rate and given["judge"] is not None:
        raise ConfigError("rate, judge: give one at a time; the report has both, if --out is the same.")
    if rate:
        _check_options(given, rating_page.rate, compare_models.compare, "with")
    else:
        _check_options(given, compare_models.compare, rating_page.rate, "without")
    out = out or f"{Path(a).stem}-vs-{Path(b).stem}"
    if rate:

        def ready(url: str) -> None:
            print(f"Raters open {url}\nCtrl-C ends it; the same command goes on.", flush=True)

        print(rating_page.rate(a, b, out, ready=ready, **_taken_by(rating_page.rate, given)))
        return
    found = compare_models.compare(a, b, out, key=_key(given["base_url"]), **_taken_by(compare_models.compare, given))
    print(found)
    if found.report is None:
        print(f"Next:\n  {command_name()} compare {quote(a)} {quote(b)} --out {quote(out)} --rate")


def report(folder: str) -> None:
    """Print the verdict again."""
    print(compare_models.compare_report(folder))


def benchmark(**given: Any) -> None:
    """Print the scores."""
    print(benchmarks.benchmark(**given))


def _check_options(given: dict[str, Any], taking: Any, other: Any, how: str) -> None:
    """Raise ConfigError if an option was given that only the other way of comparing takes."""
    taken, defaults = signature(taking).parameters, signature(other).parameters
    idle = [name for name in given if name not in taken and given[name] not in (defaults[name].default, None, [])]
    if idle:
        raise ConfigError([f"{name}: does nothing {how} --rate. Leave it out." for name in idle])


def _taken_by(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The options that the function takes."""
    return {name: value for name, value in given.items() if name in signature(function).parameters}


def _key(base_url: str | None) -> str | None:
    return os.environ.get("OPENAI_API_KEY") if base_url else None
