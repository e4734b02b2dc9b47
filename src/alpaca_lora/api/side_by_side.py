"""Several runs in one picture, several models in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..training.run import Run
from .models import load

if TYPE_CHECKING:
    from ..generation.answer_table import AnswerTable
    from ..generation.model import LocalModel
    from ..runs.plots import Plot


def plot_runs(runs: Sequence[Run | str | Path] | Mapping[str, Run | str | Path], title: str = "") -> Plot:
    """Losses of several runs in one picture.

    Args:
        runs: Runs or their folders; a mapping gives the names in the legend, else they are the folders'.
        title: Above the picture.

    Returns:
        A matplotlib Figure with training losses, smoothed, and validation losses as dots.

    Raises:
        ConfigError: a folder has no history.jsonl, or two runs have the same name.
    """
    from ..runs.history import read_history
    from ..runs.plots import plot_histories

    if not runs:
        raise ConfigError("plot_runs: give one run or more.")
    folders = {name: run.output_dir if isinstance(run, Run) else Path(run) for name, run in _named(runs).items()}
    histories = {name: read_history(folder) for name, folder in folders.items()}
    if empty := [str(folders[name]) for name, lines in histories.items() if not lines]:
        raise ConfigError(f"plot_runs: no history.jsonl of a run in {', '.join(empty)}.")
    return plot_histories(histories, title)


def compare_answers(
    models: Sequence[Run | LocalModel | str | Path] | Mapping[str, Run | LocalModel | str | Path],
    instructions: Sequence[str | Mapping[str, str]],
    **sampling: Any,
) -> AnswerTable:
    """The answers of several models to the same instructions, side by side.

    Args:
        models: Runs, loaded models, or anything `load` takes; a mapping gives their names, else they are the folders'.
        instructions: Texts, or records of which `instruction` and `input` are read.
        **sampling: Fields of `Sampling`, as for `generate`.

    Returns:
        A table that shows itself in a notebook; `print` and `to_pandas()` give it elsewhere.

    Raises:
        ConfigError: nothing to ask or nobody, or two models have the same name.
        AdapterError, ModelError: as `load`.
    """
    from ..generation.answer_table import answer_table
    from ..generation.sampling import sampling_of

    def loading(model: Any) -> Callable[[], LocalModel]:
        if isinstance(model, Run):
            return lambda: model._model
        return lambda: load(model) if isinstance(model, str | Path) else model

    given = {name: loading(model) for name, model in _named(models).items()}
    return answer_table(given, instructions, sampling_of(sampling))


def _named(given: Any) -> dict[str, Any]:
    """Runs or models by name: those given, or else their folders'."""
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, Run | str | Path) or not isinstance(given, Iterable):
        given = [given]
    pairs = [(_name(each), each) for each in given]
    if len(dict(pairs)) < len(pairs):
        raise ConfigError(f"two have the same name ({', '.join(name for name, _ in pairs)}); give a dict of names.")
    return dict(pairs)


def _name(each: Any) -> str:
    if isinstance(each, Run):
        return each.output_dir.name
    return Path(each).name if isinstance(each, str | Path) else each.name
