"""One training run: settings, model and examples in; a trained model and a history out."""

from __future__ import annotations

import signal
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ..config import FinetuneConfig
from ..data.collator import PackDataset, StepDataset
from ..data.plan import Planner
from ..data.tokens import Examples
from ..errors import ConfigError, RunInterrupted
from ..models.attention import BLOCK, IMPLEMENTATION, runs_packs
from ..models.distributed import from_first_rank, processes
from ..models.load import Placement, checkpoint_activations
from ..runs.history import begin_history
from .callbacks import CheckStart, EvaluateLast, HistoryCallback, NothingLeft, ProgressBar
from .checkpoint import Checkpoints, newest_valid, ranks_of
from .fsdp import shard_settings, sum_in_float32
from .interrupt import StopOnSignal
from .trackers import tracker_names
from .trainer import AlpacaTrainer

OPTIMIZERS: dict[str, dict[str, str]] = {  # ours -> transformers'
    "adamw": {},
    "adamw_8bit": {"optim": "adamw_bnb_8bit"},
    "paged_adamw_8bit": {"optim": "paged_adamw_8bit"},
}
CPU_TOKENS = 1024  # matrix products run at their full rate from here on; 2,048 took as long and 1.2 GiB more


def train(
    config: FinetuneConfig,
    model: Any,
    placement: Placement,
    steps: StepDataset,
    validation: Examples | None,
    run: str = "",
) -> AlpacaTrainer:
    """Train `model` in place.

    Args:
        config: The run's settings.
        model: A causal language model with its trainable tensors marked.
        placement: Its device, and the dtype of its products.
        steps: What `plan_training` gave.
        validation: Validation examples, or None.
        run: The run's fingerprint; its checkpoints carry it.

    Returns:
        The trainer after its last step.

    Raises:
        RunInterrupted: SIGTERM or SIGINT came.
        TrainingError: a loss or gradient is no number, the disk is full, or memory is short for a single example.
    """
    if steps.planner.layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    output_dir = Path(config.output_dir)
    checkpoint = _starting_point(config, run) if config.resume else None
    if processes().is_main_process:
        begin_history(output_dir, checkpoint)
    trainer = AlpacaTrainer(
        model=model,
        args=_arguments(config, steps, placement.dtype, validation is not None, checkpoint is None),
        train_dataset=steps,
        eval_dataset=PackDataset(replace(steps.planner, examples=validation)) if validation is not None else None,
        callbacks=[
            CheckStart(config.fsdp),
            HistoryCallback(output_dir),
            Checkpoints(output_dir, run, config.save_total_limit),  # after the history's copy is there
            EvaluateLast(),
            stop := StopOnSignal(),
        ],
    )
    for callback in _their_displays():
        trainer.remove_callback(callback)
    trainer.add_callback(ProgressBar)
    with suppress(NothingLeft), stop:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.received and trainer.state.global_step < trainer.state.max_steps:
        raise RunInterrupted(
            f"stopped by {signal.Signals(stop.received).name} after step {trainer.state.global_step} of "
            f"{trainer.state.max_steps}, with a checkpoint; the same with --resume auto (resume='auto') goes on.",
            stop.received,
        )
    return trainer


def plan_training(
    config: FinetuneConfig,
    model_config: Any,
    examples: Examples,
    device: torch.device,
    auto_tokens: int = CPU_TOKENS,
) -> StepDataset:
    """The steps of a run; raises ConfigError where the counts cannot work.

    `auto_tokens` is what `max_tokens: auto` means on this device, the same on all ranks.

    A model that is not plain causal in every layer is trained `padded`, with a warning.
    """
    layout = config.layout
    if layout != "padded" and not runs_packs(model_config):
        warnings.warn(
            f"layout: {model_config.model_type} is not plain causal in every layer, so {layout!r} would not be exact; "
            "training 'padded'.",
            stacklevel=2,
        )
        layout = "padded"
    tokens = max(auto_tokens, config.cutoff_len) if config.max_tokens == "auto" else config.max_tokens
    multiple = BLOCK if device.type == "cuda" and layout != "padded" else 1
    planner = Planner(examples, layout, tokens, processes().num_processes, multiple)
    epochs = config.num_epochs
    if config.max_steps is not None:
        epochs = config.max_steps / max(len(examples) // config.batch_size, 1)
    return StepDataset(planner, config.batch_size, config.seed, epochs)


def _arguments(
    config: FinetuneConfig, steps: StepDataset, dtype: torch.dtype, has_validation: bool, from_start: bool
) -> TrainingArguments:
    made = TrainingArguments(
        output_dir=str(Path(config.output_dir) / "checkpoints"),
        per_device_train_batch_size=1,  # one pack
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=steps.packs_per_step // processes().num_processes,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_count(config.total_steps(steps.steps_per_epoch)),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        use_cpu=processes().device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it replaces a NaN by the mean of the losses before it
        eval_strategy="steps" if has_validation else "no",
        eval_steps=config.eval_steps,
        eval_on_start=has_validation and from_start,
        save_strategy="steps",
        save_steps=config.save_steps,
        seed=config.seed,
        report_to=tracker_names(config.report_to),
        label_names=["targets"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        **OPTIMIZERS[config.optimizer],
        **(shard_settings(config) if config.fsdp else {}),
    )
    if config.fsdp and made.bf16:
        sum_in_float32(made)
    if made.n_gpu > 1:  # several GPUs and one process: the Trainer would split each pack over them (DataParallel)
        made._n_gpu = 1
    return made


def _their_displays() -> list[Any]:
    """The Trainer's own ways of printing logs; ours shows the same in one line."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    return [PrinterCallback, ProgressCallback]


def _starting_point(config: FinetuneConfig, run: str) -> Path | None:
    """The newest valid checkpoint of this run; rank 0 looks, all ranks take what it found."""
    folder = Path(config.output_dir) / "checkpoints"
    found, passed = newest_valid(folder, run) if processes().is_main_process else (None, [])
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
