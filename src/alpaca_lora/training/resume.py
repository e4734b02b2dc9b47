"""Where a run goes on: the newest valid checkpoint, or its first step."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..config import FinetuneConfig
from ..errors import ConfigError
from ..models.distributed import from_first_rank, processes
from ..runs.checkpoints import checkpoints_in, step_of
from ..runs.eval_records import NAME as EVAL_RECORDS
from ..runs.eval_records import EvalRecords
from ..runs.history import NAME as HISTORY
from ..runs.history import begin_history
from ..runs.result import result_flaw
from ..runs.run_file import RunFile
from .checkpoint import newest_valid, ranks_of
from .preference_loss import PreferenceLoss
from .reference import take_up_reference


def at_its_commit(base_model: str, previous: RunFile | None) -> str:
    """The base of a run that continues, at the commit it began with, unless another is named; any other as it is."""
    begun = previous.contract if previous else None
    return begun.pinned_base if begun and begun.base_model == base_model else base_model


def is_whole(output_dir: Path, previous: RunFile) -> bool:
    """Whether the run is finished and its result as it was written; says so, or what is wrong with it."""
    if not previous.finished:
        return False
    first = processes().is_main_process
    flaw = from_first_rank(result_flaw(output_dir, previous) or _flaw_of_records(output_dir) if first else None)
    if flaw is None:
        processes().print(f"{output_dir} holds this run, finished; nothing is left to do.")
    else:
        processes().print(f"{output_dir} holds this run, finished, but {flaw}. It is written again.")
    return flaw is None


def _flaw_of_records(output_dir: Path) -> str | None:
    """Which of the files that grew with a run does not begin with its last checkpoint's copy."""
    checkpoint = max(checkpoints_in(output_dir / "checkpoints"), key=step_of, default=output_dir)
    for copy in filter(Path.is_file, (checkpoint / HISTORY, checkpoint / EVAL_RECORDS)):
        own = output_dir / copy.name
        if not own.is_file() or not own.read_bytes().startswith(copy.read_bytes()):
            return f"{copy.name} is {'not what the run wrote' if own.is_file() else 'missing'}"
    return None


def starting_point(config: FinetuneConfig, run: str) -> Path | None:
    """The newest valid checkpoint of this run; rank 0 looks, all ranks take what it found."""
    folder = Path(config.output_dir) / "checkpoints"
    with_best = config.keep == "best"
    found, passed = newest_valid(folder, run, with_best) if processes().is_main_process else (None, [])
    for sentence in passed:
        warnings.warn(f"resume: {sentence}", stacklevel=2)
    path = from_first_rank(found)
    if path is None and config.resume is True:
        raise ConfigError(
            f"resume: {folder} holds no valid checkpoint of this run. resume=auto starts it from its first step."
        )
    processes().print(f"Continuing from {path}." if path else "No checkpoint yet: starting from the first step.")
    if path and (saved_by := ranks_of(path)) != processes().num_processes and processes().is_main_process:
        warnings.warn(
            f"resume: {path.name} was saved by {saved_by} processes, and {processes().num_processes} go on. The steps "
            "hold the same examples, but their losses are summed in another order: from here on the run equals the "
            "uninterrupted one within rounding, not to the last bit.",
            stacklevel=2,
        )
    return path


def begin_files(config: FinetuneConfig, checkpoint: Path | None, eval_records: EvalRecords | None) -> None:
    """Begin the files that grow with a run, or put them where a checkpoint left them; rank 0's work.

    These are its history, its losses by record, and the reference of its preferences.
    """
    output_dir, preference = Path(config.output_dir), PreferenceLoss.wanted(config)
    begin_history(output_dir, checkpoint)
    if checkpoint and preference and preference.has_reference:
        take_up_reference(output_dir, checkpoint)
    if eval_records:
        eval_records.begin(output_dir, checkpoint)
