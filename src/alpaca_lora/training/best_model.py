"""What an evaluation decides: whether its weights are to be kept, and whether training goes on.

Decided by rank 0 from history.jsonl (runs/evaluations.py). The best evaluation's checkpoint is never pruned, and with
`keep: best` its weights become the result.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..config import FinetuneConfig
from ..errors import TrainingError
from ..models.distributed import from_first_rank, processes
from ..runs.evaluations import best_of, evaluations_of, last_gain
from ..runs.history import read_history
from .checkpoint import flaw


def ends_early(config: FinetuneConfig, history: list[dict[str, Any]]) -> bool:
    """Whether a run's evaluations end it before its last step."""
    return last_gain(history, config.early_stopping_patience, config.early_stopping_threshold) is not None


def is_over(config: FinetuneConfig) -> bool:
    """The same of the history in its folder; all ranks must call this."""
    if config.early_stopping_patience is None:
        return False
    over = processes().is_main_process and ends_early(config, read_history(config.output_dir))
    return bool(from_first_rank(over))


class ActOnEvaluation(TrainerCallback):
    """Saves a checkpoint after an evaluation that is the best so far, and after one that ends the run early."""

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            return
        if is_over(self.config):
            control.should_save = control.should_training_stop = True
        if self.config.keep == "best" and state.global_step == _best_step(self.config):
            control.should_save = True


def load_best(trainer: Any, config: FinetuneConfig, run: str) -> None:
    """Give a trained model the weights of its best evaluation; all ranks must call this.

    Args:
        trainer: The trainer after its last step.
        config: The run's settings.
        run: The run's fingerprint.

    Raises:
        TrainingError: the checkpoint is damaged.
    """
    if processes().is_main_process:
        _warn_of_no_gain(config)
    step = _best_step(config)
    if step in (None, trainer.state.global_step):  # None: no step changed anything
        return
    folder = Path(config.output_dir) / "checkpoints" / f"checkpoint-{step}"
    if problem := from_first_rank(flaw(folder, run) if processes().is_main_process else None):
        raise TrainingError(
            f"keep: the best evaluation's {folder.name} cannot be used: {problem}. The same with resume=auto takes the "
            "steps again that it lacks."
        )
    trainer._load_from_checkpoint(str(folder), trainer.model_wrapped if trainer.is_fsdp_enabled else None)


def _best_step(config: FinetuneConfig) -> int | None:
    best = best_of(read_history(config.output_dir)) if processes().is_main_process else None
    step: int | None = from_first_rank(best.step if best else None)
    return step


def _warn_of_no_gain(config: FinetuneConfig) -> None:
    history = read_history(config.output_dir)
    first, best = evaluations_of(history)[0], best_of(history)
    if best is not None and first.step == 0 and best.loss >= first.loss:
        warnings.warn(
            f"keep: no evaluation was better than the one before training ({first.loss:.4f}): the best after it, step "
            f"{best.step:,} with {best.loss:.4f}, is kept all the same, but the base does better on these records. "
            f"Lower learning_rate (it was {config.learning_rate:g}), lower eval_steps to find an earlier best, or look "
            "at whether the validation records are of the training data's kind.",
            stacklevel=3,
        )
