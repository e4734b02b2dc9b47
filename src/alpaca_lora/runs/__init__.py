"""What a run's folder holds: contract, adapter, history, checkpoints, cards; and several runs in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from .plots import Plot


def plot_runs(runs: Sequence[Any] | Mapping[str, Any], title: str = "") -> Plot:
    """Losses of several runs in one picture.

    Args:
        runs: Runs or their folders; a mapping gives the names in the legend, else they are the folders'.
        title: Above the picture.

    Returns:
        A matplotlib Figure with training losses, smoothed, and validation losses as dots.

    Raises:
        ConfigError: a folder has no history.jsonl, or two runs have the same name.
    """
    from .history import read_history
    from .plots import plot_histories

    if not runs:
        raise ConfigError("plot_runs: give one run or more.")
    folders = {name: Path(getattr(run, "output_dir", run)) for name, run in by_name(runs).items()}
    histories = {name: read_history(folder) for name, folder in folders.items()}
    if empty := [str(folders[name]) for name, lines in histories.items() if not lines]:
        raise ConfigError(f"plot_runs: no history.jsonl of a run in {', '.join(empty)}.")
    return plot_histories(histories, title)


def by_name(given: Any) -> dict[str, Any]:
    """Runs, folders or loaded models by name: those given, or else their folders'.

    Raises:
        ConfigError: two have the same name.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, str | PathLike) or not isinstance(given, Sequence):
        given = [given]
    folders = [getattr(each, "output_dir", each) for each in given]
    names = [Path(folder).name if isinstance(folder, str | PathLike) else folder.name for folder in folders]
    if len(set(names)) < len(names):
        raise ConfigError(f"two have the same name ({', '.join(names)}); give a dict of names.")
    return dict(zip(names, given, strict=True))
