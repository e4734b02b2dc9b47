"""Commands of making and checking records: what is printed, and what comes from the environment."""

from __future__ import annotations

import os
import sys
from typing import Any

from .. import selfinstruct
from ..data import lint as checks
from .names import command_name
from .streams import printable


def self_instruct_run(out: str, base_url: str | None, seeds: Any, **given: Any) -> None:
    """Print the outcome; exit code 1 if the run gave nothing."""
    base_url = base_url or os.environ.get("OPENAI_BASE_URL")
    summary = selfinstruct.self_instruct(
        out, base_url=base_url, key=os.environ.get("OPENAI_API_KEY"), seeds=seeds, **given
    )
    print(summary)
    own = "" if seeds == "seeds" else f" --seeds {seeds}"
    print(f"A page about it:\n  {command_name()} self-instruct report {out}{own}")
    if summary.ended == "no progress" or not summary.accepted:
        sys.exit(1)
    if summary.accepted:
        print(f"Next:\n  {command_name()} finetune --data {out}/records.jsonl --base_model BASE --output_dir TUNED")


def refilter(**given: Any) -> None:
    """Print the new outcome."""
    print(selfinstruct.refilter(**given))


def report(**given: Any) -> None:
    """Print where the page is."""
    print(selfinstruct.self_instruct_report(**given))


def lint(**given: Any) -> None:
    """Print the findings; exit code 1 if errors are left."""
    found = checks.lint(**given)
    print(printable(str(found)))
    if found.errors:
        sys.exit(1)
