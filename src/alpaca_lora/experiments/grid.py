"""The points of a sweep's grid, and a trial's settings and stops at each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError
from .trials import Trial, folder_name

_OWN = ("output_dir", "resume", "stop_after", "eval_steps")
"""Settings that the sweep chooses itself."""


def points_of(grid: Mapping[str, Sequence[Any]], trials: int | None, seed: int) -> list[dict[str, Any]]:
    """Every combination of a grid's values, or some of them, drawn by `seed`; in the grid's order.

    Raises:
        ConfigError: values that are no list, or fewer than two points.
    """
    problems = [f"{name} is set by the sweep; leave it out of the grid." for name in grid if name in _OWN]
    problems += [
        f"grid: {name} needs a list of values, each once; it is {values!r}."
        for name, values in grid.items()
        if isinstance(values, str)
        or not isinstance(values, Sequence)
        or len({*map(repr, values)}) < max(len(values), 1)
    ]
    if trials is not None and (not isinstance(trials, int) or trials < 2):
        problems.append(f"trials: {trials!r} must be a whole number of at least 2, or left out.")
    if problems:
        raise ConfigError(problems)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if len(points) < 2:
        raise ConfigError("grid: give a setting two values or more, e.g. learning_rate 1e-4,3e-4.")
    if trials is not None and trials < len(points):
        generator = random.Random(seed)
        keys = [generator.random() for _ in points]  # only `random()` repeats across versions of Python
        points = [points[place] for place in sorted(sorted(range(len(points)), key=keys.__getitem__)[:trials])]
    return points


def trial_of(
    number: int, values: dict[str, Any], out: Path, recipe: str | None, settings: dict[str, Any], rounds: int
) -> Trial:
    """A trial that may be given up after 1 / 2^rounds of its steps, after twice as many, and so on."""
    if given := [name for name in settings if name in _OWN]:
        raise ConfigError([f"{name} is set by the sweep; leave it out." for name in given])
    folder = str(out / "trials" / folder_name(number, values))
    config = FinetuneConfig.make(recipe, **{**settings, **values, "output_dir": folder, "resume": "auto"})
    if config.data_name.startswith("<"):
        raise ConfigError("data: a sweep trains in other processes, which read files. Write the records to a file.")
    if config.val_set_size == 0 and config.val_data is None:
        raise ConfigError("val_set_size: a sweep needs validation records to choose by. Give some.")
    steps = _steps_of(config)
    first = steps // 2**rounds
    if not first:
        raise ConfigError(
            f"max_steps: {steps} steps cannot be trained in {2**rounds} parts. Give more steps, fewer trials, or "
            "halving=false."
        )
    config = replace(config, eval_steps=first)  # an evaluation at every stop
    return Trial(number, values, config, (*(first * 2**done for done in range(rounds)), steps))


def _steps_of(config: FinetuneConfig) -> int:
    if config.max_steps is not None:
        return config.max_steps
    if config.adapter is not None:
        raise ConfigError("max_steps: give it, for a sweep that starts from an adapter.")
    from ..models.load import resolve_base
    from ..planning.preparation import prepare

    records = prepare(config, resolve_base(config.base_model)).train.records
    return config.total_steps(max(records // config.batch_size, 1))
