"""Benchmarks that others publish figures of: lm-eval's tasks on a model of ours, or on tasks of your own.

tasks.py    names and YAML files to lm-eval's tasks     scores.py   lm-eval's results to scores with intervals
harness.py  the model as lm-eval asks it
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError, MissingDependencyError
from ...files import write_atomically
from ...runs.run_file import RUN_FILE

if TYPE_CHECKING:
    from ...generation.model import LocalModel
    from ...runs.benchmarks import Benchmarks


def benchmark(
    model: str | PathLike[str] | LocalModel,
    tasks: str | Sequence[str],
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    template: bool = False,
    prompt_template: str | None = None,
    base_model: str | None = None,
    out: str | PathLike[str] | None = None,
) -> Benchmarks:
    """Measure a model on lm-eval's tasks, or on tasks of your own: the figures of `lm_eval --model hf`, with intervals.

    Into the folder of a run or a merged model they are written, too: benchmarks.json, and a table in the model card.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`; or what `load` returned.
        tasks: Names as lm-eval has them (`arc_easy`, `mmlu`), YAML files of tasks, or folders of such files.
        num_fewshot: Examples before each question; each task's own number if left out.
        limit: Take the first so many documents of each task, for a try.
        template: Put questions in the prompt that the model was trained with. Leaderboards ask in bare text.
        prompt_template: With `template`, for models without a contract: a template's name, or `chat`; `alpaca` if left
            out.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        out: JSON file for lm-eval's own results, with every question and answer.

    Returns:
        The scores; `print` shows a table.

    Raises:
        ConfigError: an unknown task, or a setting that cannot be.
        DataError: a task that cannot be used, or whose questions the model cannot read.
        HubError: a task's data are on the hub, and the hub cannot be reached.
        AdapterError, ModelError: as `load`.
        MissingDependencyError: the extra `benchmark` is not installed.
    """
    _check(num_fewshot, limit, template, prompt_template, out)
    if find_spec("lm_eval") is None:
        raise MissingDependencyError("benchmark: needs lm-eval. Install it: pip install 'alpaca-lora[benchmark]'")
    from ...generation import loaded_model
    from ...runs.benchmarks import Benchmarks
    from .harness import Harness
    from .scores import scores_of
    from .tasks import load_tasks

    asked = load_tasks([tasks] if isinstance(tasks, str) else list(tasks))
    loaded = loaded_model(model, base_model=base_model, prompt_template=prompt_template, force=None)
    harness = Harness(loaded, template)
    results = harness.measure(asked, num_fewshot, limit)
    if harness.cut:
        warnings.warn(
            f"{harness.cut:,} requests are longer than the {harness.positions:,} tokens that the model reads; their "
            "beginning was left out, as lm-eval does.",
            stacklevel=2,
        )
    if out is not None:
        write_atomically(Path(out), json.dumps(results, indent=1, default=str, ensure_ascii=False) + "\n")
    found = Benchmarks(loaded.name, scores_of(results, harness.template, harness.dtype))
    folder = Path(fspath(model)).expanduser() if isinstance(model, str | PathLike) else None
    if folder and (folder / RUN_FILE).exists():
        found.keep(folder)
    return found


def _check(
    num_fewshot: int | None,
    limit: int | None,
    template: bool,
    prompt_template: str | None,
    out: str | PathLike[str] | None,
) -> None:
    """Refuse what cannot be, before anything is loaded."""
    problems = []
    if num_fewshot is not None and num_fewshot < 0:
        problems.append(f"num_fewshot: {num_fewshot!r} must be 0 or more.")
    if limit is not None and limit < 1:
        problems.append(f"limit: {limit!r} must be at least 1; leave it out for all documents.")
    if prompt_template is not None and not template:
        problems.append("prompt_template: is of use with template only. Set template, or leave it out.")
    if out is not None and not Path(out).parent.is_dir():
        problems.append(f"out: there is no folder {Path(out).parent}. Make it, or name another file.")
    if problems:
        raise ConfigError(problems)
