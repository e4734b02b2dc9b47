"""What happens beside the training step: history.jsonl, the progress bar, the last evaluation."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..config import FinetuneConfig
from ..errors import TrainingError
from ..runs import eval_records
from ..runs.history import NAME, read_history
from .best_model import ends_early, is_over
from .fsdp import check_sharded
from .reference import REFERENCE

_STEP_KEYS = ("loss", "learning_rate", "grad_norm", "skipped", "supervised_tokens", "computed_tokens")
_REWARDS = tuple(f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies"))


class HistoryCallback(TrainerCallback):
    """Appends to history.jsonl, and stops a run whose loss is no longer a number.

    Each checkpoint gets a copy of it, of eval_records.jsonl and of reference.safetensors.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        self.config, self.output_dir = config, Path(config.output_dir)
        self.step_started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step_started = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:  # before the checkpoint is sealed, so that its manifest covers the copies
            for path in (self.output_dir / name for name in (NAME, eval_records.NAME, REFERENCE)):
                if path.exists():
                    shutil.copyfile(path, Path(args.output_dir) / f"checkpoint-{state.global_step}" / path.name)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        line: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch or 0}
        for name in ("loss", "eval_loss"):  # the trainer looks at gradients, before they are applied
            if not math.isfinite(logs.get(name, 0)):
                raise TrainingError(
                    f"step {state.global_step}: the {name} is {logs[name]}; the run was stopped and no adapter was "
                    "written. Lower learning_rate, or look at the data of that step and at the base model's weights."
                )
        if "loss" in logs:
            line |= {key: logs[key] for key in (*_STEP_KEYS, *_REWARDS) if key in logs}
            line["seconds"] = time.perf_counter() - self.step_started
        elif "eval_loss" in logs:
            line |= {key: logs[key] for key in ("eval_loss", *(f"eval_{name}" for name in _REWARDS)) if key in logs}
        else:
            return
        if state.is_world_process_zero:
            steps_left = "eval_loss" in line and state.global_step < state.max_steps
            if steps_left and ends_early(self.config, [*read_history(self.output_dir), line]):
                line["stopped_early"] = 1
            with (self.output_dir / NAME).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


class NothingLeft(Exception):
    """A resumed run has done all of its steps."""


class CheckStart(TrainerCallback):
    """Once everything is prepared and loaded: is the model sharded, if that was asked for, and are steps left?"""

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.config.fsdp:
            check_sharded(model)
        if state.global_step >= state.max_steps or is_over(self.config):
            raise NothingLeft  # the Trainer would take one more step


class EvaluateLast(TrainerCallback):
    """Evaluates after the last step, whatever `eval_steps` is."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True


class ProgressBar(TrainerCallback):
    """One bar over all optimizer steps, with loss and tokens/s; evaluations print a line above it."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from tqdm import tqdm  # text: it works in terminals and notebooks alike, and a saved notebook keeps it

        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step_started = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.bar is None or not logs:
            return
        if "eval_loss" in logs:
            self.bar.write(f"step {state.global_step}: validation loss {logs['eval_loss']:.4f}")
        elif "loss" in logs:
            rate = logs.get("computed_tokens", 0) / max(time.perf_counter() - self.step_started, 1e-9)
            self.bar.update(state.global_step - self.bar.n)
            self.bar.set_postfix_str(f"loss {logs['loss']:.4f}, {rate:,.0f} tokens/s")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()
