"""Commands around training: what is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from shlex import quote
from typing import Any

from ..config import FinetuneConfig, recipe_names, recipe_path
from .names import command_name
from .streams import printable


def tune(config: FinetuneConfig) -> None:
    """Fine-tune a base model on instruction records."""
    from ..runs.run_card import kept_weights
    from ..training import finetune

    run = finetune(config)
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process reports
        return
    metrics = run.metrics
    for sample in run.samples:
        shown = f"\n### {sample['instruction']}\n--- before\n{sample['before']}\n--- after\n{sample['after']}"
        print(printable(shown))
    print(f"\n{metrics['steps']} steps in {metrics['train_seconds']:.0f} s, last loss {metrics['loss']:.4f}", end="")
    if metrics["eval_loss_before"] is not None:
        print(f", validation loss {metrics['eval_loss_before']:.4f} -> {metrics['eval_loss_after']:.4f}", end="")
    print(".")
    kept = kept_weights(metrics)
    for said in filter(None, (metrics.get("stopped_early"), kept and f"kept: {kept}")):
        print(f"{said[0].upper()}{said[1:]}.")
    if run.regressions:
        print(f"\n{run.regressions}\n")
    here, out = command_name(), str(run.output_dir)
    full = config.method == "full"
    print(
        f"{'Model' if full else 'Adapter'}, history, loss.png and model card: {run.output_dir}\n\nNext:\n"
        f'  {here} generate {quote(out)} "Write a haiku about the sea."'
    )
    if not full:
        print(f"  {here} merge {quote(out)} {quote(out + '-merged')}")


def regressions(parse: Callable[[str], Any], data: str | None = None, **given: Any) -> None:
    """Print what training changed; `parse` reads `data` as `finetune` does."""
    from ..against_base import regressions

    print(regressions(data=None if data is None else parse(data), **given))


def plan(**given: Any) -> None:
    """Print a plan; exit code 1 if the run does not fit."""
    from ..planning import plan

    made = plan(**{name: value for name, value in given.items() if value is not None})
    print(made)
    if not made.fits:
        sys.exit(1)


def inspect_options(examples: int = 3) -> None:
    """The option of `inspect` that is of the terminal alone.

    Args:
        examples: Number of examples to show, with supervised tokens in green.
    """


def inspect(examples: int, **given: Any) -> None:
    """Print a report of the data, and some examples."""
    from rich.console import Console

    from ..planning import inspect

    report = inspect(**given)
    console = Console(highlight=False)
    console.print(printable(str(report)), markup=False, soft_wrap=True)
    for text in report.examples_shown(examples):
        text.plain = printable(text.plain)  # one for one: colours stay where they are
        console.print()
        console.print(text, soft_wrap=True)


def recipes(name: str | None = None) -> None:
    """List the packaged recipes, or print one."""
    if name is not None:
        print(recipe_path(name).read_text(encoding="utf-8"), end="")
        return
    width = max(map(len, recipe_names()))
    for known in recipe_names():
        head = recipe_path(known).read_text(encoding="utf-8").partition("\n")[0]
        print(f"{known:{width}}  {head.lstrip('# ')}")
