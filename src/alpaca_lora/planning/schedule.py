"""Warnings about settings that do not go with the number of steps, in numbers, before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError, counted

_USUAL: dict[str, Any] = {entry.name: entry.default for entry in fields(FinetuneConfig)}


def check_schedule(config: FinetuneConfig, steps_per_epoch: int, validated: bool) -> list[str]:
    """`remarks` of a run.

    Raises:
        ConfigError: its learning rate would be 0 in every step, or evaluations are to decide and there is nothing to
            evaluate.
    """
    needing = [name for name in ("early_stopping_patience", "keep") if getattr(config, name) != _USUAL[name]]
    if needing and not validated:
        raise ConfigError(
            [f"{name}: needs validation records, and there are none. Set val_set_size or val_data." for name in needing]
        )
    if config.warmup_count(1) >= config.total_steps(steps_per_epoch) == 1:
        raise ConfigError(
            f"warmup_steps: {config.warmup_count(1):,} of {_counted(config, steps_per_epoch)}: a warm-up begins at "
            "learning rate 0, so nothing would be trained. Set warmup_steps=0, or give more steps."
        )
    return list(remarks(config, steps_per_epoch, validated))


def remarks(config: FinetuneConfig, steps_per_epoch: int, validated: bool) -> Iterator[str]:
    """Yield a sentence for each setting that the run is too short for, or that its schedule ignores.

    Args:
        config: The run's settings.
        steps_per_epoch: Optimizer steps of an epoch.
        validated: Whether there are validation records.
    """
    total = config.total_steps(steps_per_epoch)
    warmup = config.warmup_count(total)
    counted, peak = _counted(config, steps_per_epoch), config.learning_rate
    if config.objective != "sft" and peak == _USUAL["learning_rate"]:
        yield (
            f"learning_rate: {peak:g} is the default, which is for fine-tuning. Preferences are learned at far lower "
            "rates: the recipe alpaca-dpo-7b has 5e-06."
        )
    if warmup >= total:
        reached = (total - 1) / warmup
        yield (
            f"warmup_steps: {warmup:,} of {counted}: the learning rate ends at {total - 1:,}/{warmup:,} of {peak:g}, "
            f"which is {reached:.1%}, {peak * reached:.3g}. A fraction fits any run: warmup_steps=0.03 would be "
            f"{_fraction(config, total)} here."
        )
    elif warmup * 2 > total and config.warmup_steps >= 1:
        yield (
            f"warmup_steps: {warmup:,} of {counted}: {warmup / total:.0%} of the run is below its learning rate of "
            f"{peak:g}. A fraction fits any run: warmup_steps=0.03 would be {_fraction(config, total)} here."
        )
    if config.lr_scheduler == "constant" and config.warmup_steps not in (0, _USUAL["warmup_steps"]):
        yield (
            f"warmup_steps: {config.warmup_steps:g} is ignored, for lr_scheduler=constant has no warm-up. Use "
            "constant_with_warmup."
        )
    if config.max_steps is None and config.num_epochs * steps_per_epoch < 1:
        yield (
            f"num_epochs: {config.num_epochs:g} of {steps_per_epoch:,} steps per epoch is "
            f"{config.num_epochs * steps_per_epoch:.3g} of a step; 1 is done."
        )
    if validated and config.eval_steps > total and config.eval_steps != _USUAL["eval_steps"]:
        yield f"eval_steps: {config.eval_steps:,} of {counted}: evaluated before the first and after the last one only."
    evaluations, patience = math.ceil(total / config.eval_steps), config.early_stopping_patience
    after = f"of {counted} with eval_steps={config.eval_steps:,} there are {evaluations:,} once training has begun"
    if validated and patience is not None and patience >= evaluations:
        yield (
            f"early_stopping_patience: {patience:,} evaluations without a gain, and {after}, the last of them at the "
            f"end: it never ends the run early. Lower it{_fitting(total, patience)}."
        )
    if validated and config.keep == "best" and evaluations == 1 < total:
        yield f"keep: best of the evaluations, and {after}: it is the last. Lower eval_steps, e.g. to {-(-total // 5)}."
    if config.save_steps > total and config.save_steps != _USUAL["save_steps"]:
        yield f"save_steps: {config.save_steps:,} of {counted}: the only checkpoint is that of the last step."


def _counted(config: FinetuneConfig, steps_per_epoch: int) -> str:
    total = config.total_steps(steps_per_epoch)
    steps = counted(total, "step")
    if config.max_steps is not None:
        return f"{steps} (max_steps)"
    return f"{steps} ({steps_per_epoch:,} an epoch x {config.num_epochs:g} epoch{'s' * (config.num_epochs != 1)})"


def _fitting(total: int, patience: int) -> str:
    """Advice on `eval_steps`, where the run has room for more evaluations than `patience`."""
    return f", or eval_steps to {total // (patience + 1):,} or less" if total > patience else ""


def _fraction(config: FinetuneConfig, total: int) -> str:
    return f"{replace(config, warmup_steps=_USUAL['warmup_steps']).warmup_count(total):,}"
