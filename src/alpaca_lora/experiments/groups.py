"""Runs in groups: the same settings with other seeds; and what settings differ between groups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import sha256_of_json
from .run_losses import RunLosses, names_of, read_run

_CONTENT = {  # parts of a run's identity that are known by their content, and the settings that name them
    "records": "data",
    "base_fingerprint": "base_model",
    "tokenizer_fingerprint": "tokenizer",
    "template": "prompt_template",
    "parent": "adapter",
}


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only, or a single run."""

    name: str
    runs: tuple[RunLosses, ...]

    @property
    def seeds(self) -> list[int | None]:
        """Of its runs."""
        return [run.run_file.seed for run in self.runs]

    @property
    def loss(self) -> float:
        """Mean validation loss of its runs."""
        return sum(run.loss for run in self.runs) / len(self.runs)

    @property
    def divergence(self) -> float | None:
        """Mean KL divergence from the base on general texts, nats per token; None where it was not measured."""
        found = [run.run_file.regressions for run in self.runs]
        return sum(one.general.kl.mean for one in found if one) / len(found) if all(found) else None


def groups_of(given: Sequence[Any], command: str) -> list[Group]:
    """The groups that are to be compared.

    Args:
        given: Runs or folders, of which those that differ in the seed only become a group, unless there are no others;
            or lists of them, each a group; or one mapping of names to either.
        command: Who asks, for messages.

    Raises:
        ConfigError: fewer than two groups, or a run twice; and as `read_run`.
    """
    names: list[str] | None = None
    if len(given) == 1 and isinstance(given[0], Mapping):
        names, given = [str(name) for name in given[0]], list(given[0].values())
    if any(_is_list(one) for one in given) or names:
        sides = [[read_run(_folder(run), command) for run in (one if _is_list(one) else [one])] for one in given]
    else:
        sides = _by_settings([read_run(_folder(run), command) for run in given])
    if len(sides) < 2 or not all(sides):
        raise ConfigError(f"{command}: give two runs or more, of `finetune`'s folders.")
    folders = [run.folder.resolve() for runs in sides for run in runs]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise ConfigError(f"{command}: {twice} is named twice. Name each run once.")
    for runs in sides:
        seeds = [run.run_file.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(
                f"{command}: {' and '.join(str(run.folder) for run in runs)} are of one group, and some of the same "
                f"seed ({', '.join(map(str, seeds))}). Give each seed once; trained again, it gives the same run."
            )
    return [Group(*pair) for pair in zip(names or _named(sides), map(tuple, sides), strict=True)]


def settings_that_differ(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """What changes numbers and is not the same in all groups: the setting, and its value in each."""
    seen = [_settings(group.runs[0]) for group in groups]
    if all(len(group.runs) > 1 for group in groups):
        for settings in seen:
            settings.pop("seed", None)
    names = dict.fromkeys(name for settings in seen for name in settings)
    values = {name: [settings.get(name) for settings in seen] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def _settings(run: RunLosses) -> dict[str, Any]:
    """Settings and content of a run; what is told by its content is named by its setting and, if need be, a hash."""
    identity = run.run_file.identity
    found = dict(identity["settings"])
    for part, name in _CONTENT.items():
        if part in identity:
            found[name] = f"{run.run_file.config.get(name) or part} ({sha256_of_json(identity[part])[:8]})"
    return found


def _by_settings(runs: Sequence[RunLosses]) -> list[list[RunLosses]]:
    found: dict[str, list[RunLosses]] = {}
    for run in runs:
        identity = run.run_file.identity
        settings = {name: value for name, value in identity["settings"].items() if name != "seed"}
        found.setdefault(json.dumps({**identity, "settings": settings}, sort_keys=True), []).append(run)
    return list(found.values()) if len(found) > 1 else [[run] for run in runs]


def _named(sides: Sequence[Sequence[RunLosses]]) -> list[str]:
    """A group's name: its folder's if it is one run, else that of what differs, else its folders'."""
    names = iter(names_of([run for runs in sides for run in runs]))
    folders = [[next(names) for _ in runs] for runs in sides]
    differ = settings_that_differ([Group("", tuple(runs)) for runs in sides])
    told = [", ".join(f"{name}={values[place]}" for name, values in differ.items()) for place in range(len(sides))]
    short = differ and len(differ) <= 2 and all(len(text) <= 60 for text in told)
    return [
        own[0] if len(own) == 1 else text if short else "+".join(own) for own, text in zip(folders, told, strict=True)
    ]


def _is_list(one: Any) -> bool:
    return isinstance(one, Sequence) and not isinstance(one, str)


def _folder(run: Any) -> Path:
    folder = getattr(run, "output_dir", run)
    if not isinstance(folder, str | PathLike):
        raise ConfigError(f"compare_runs: {run!r} is no run and no folder. Give what finetune returned, or its folder.")
    return Path(folder)
