"""Where a run goes on: the newest valid checkpoint, or its first step."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..config import FinetuneConfig
from ..errors import ConfigError
from ..models.distributed import from_first_rank, processes
from .checkpoint import newest_valid, ranks_of


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
