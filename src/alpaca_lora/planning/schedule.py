"""Warnings about settings that do not go with the number of steps, in numbers, before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError, counted

_USUAL: dict[str, Any] = {entry.name: entry.default for entry in fields(FinetuneConfig)}


def check_schedule(config: FinetuneConfig, steps_per_epoch: int, validated: bool) -> list[str]:
    """`remarks` of a run; ConfigError where its learning rate would be 0 in every step."""
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
    if config.save_steps > total and config.save_steps != _USUAL["save_steps"]:
        yield f"save_steps: {config.save_steps:,} of {counted}: the only checkpoint is that of the last step."


def _counted(config: FinetuneConfig, steps_per_epoch: int) -> str:
    total = config.total_steps(steps_per_epoch)
    steps = counted(total, "step")
    if config.max_steps is not None:
        return f"{steps} (max_steps)"
    return f"{steps} ({steps_per_epoch:,} an epoch x {config.num_epochs:g} epoch{'s' * (config.num_epochs != 1)})"


def _fraction(config: FinetuneConfig, total: int) -> str:
    return f"{replace(config, warmup_steps=_USUAL['warmup_steps']).warmup_count(total):,}"
