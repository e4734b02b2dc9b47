"""Commands of choosing between runs: what is printed, and how a sweep's values are typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, get_origin, get_type_hints

from .. import experiments
from ..config import FinetuneConfig
from ..errors import ConfigError
from .command_line import alternatives
from .names import command_name


def compare_runs(**given: Any) -> None:
    """Print table, verdict, and what it is about."""
    print(experiments.compare_runs.compare_runs(*given.pop("runs"), **given))


def sweep(parse: Callable[[str, str], Any], output_dir: str, **given: Any) -> None:
    """Print the trials as they go, the table, and the verdict.

    Args:
        parse: Name and text of a setting to its value, as `finetune` reads it.
        output_dir: Folder of the sweep.
        **given: Options of the sweep, and settings as texts.
    """
    own = {name: given.pop(name) for name in ("trials", "halving", "recipe")}
    values = {
        name: [parse(name, part) for part in _parts(name, text)] for name, text in given.items() if text is not None
    }
    grid = {name: found for name, found in values.items() if len(found) > 1}
    if not grid:
        raise ConfigError("sweep: give a setting several values, e.g. --learning_rate 1e-4,3e-4,1e-3.")
    settings = {name: found[0] for name, found in values.items() if name not in grid}
    found = experiments.sweep.sweep(grid, output_dir, **own, **settings)
    best = found.best
    print(
        f"\n{found}\n\nLosses: {found.output_dir / 'sweep.png'}\nNext:\n  {command_name()} merge {best} {best}-merged"
    )


def _parts(name: str, text: str) -> list[str]:
    """The values of a text, between commas; a path, a name or a list without brackets is one value."""
    kinds = alternatives(get_type_hints(FinetuneConfig)[name])
    plain = all(kind in (int, float, bool, NoneType) or get_origin(kind) is Literal for kind in kinds)
    if not plain and not text.startswith("["):
        return [text]
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
