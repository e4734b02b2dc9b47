"""One training run: settings, model and examples in; a trained model and a history out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..config import FinetuneConfig
from ..data.collator import PackDataset, StepDataset
from ..data.plan import Planner
from ..data.tokens import Examples
from ..errors import ConfigError
from .callbacks import EvaluateLast, HistoryCallback, ProgressBar
from .trainer import AlpacaTrainer


def train(config: FinetuneConfig, model: Any, examples: Examples, validation: Examples | None) -> AlpacaTrainer:
    """Train `model` in place.

    Args:
        config: The run's settings.
        model: A causal language model with its trainable tensors marked.
        examples: Training examples.
        validation: Validation examples, or None.

    Returns:
        The trainer after its last step.
    """
    steps = plan_training(config, examples)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trainer = AlpacaTrainer(
        model=model,
        args=_arguments(config, steps.packs_per_step, model.dtype, validation is not None),
        train_dataset=steps,
        eval_dataset=PackDataset(_planner(config, validation)) if validation is not None else None,
        callbacks=[HistoryCallback(Path(config.output_dir)), EvaluateLast()],
    )
    for callback in _their_displays():
        trainer.remove_callback(callback)
    trainer.add_callback(ProgressBar)
    trainer.train(resume_from_checkpoint=_checkpoint(config) if config.resume else None)
    return trainer


def plan_training(config: FinetuneConfig, examples: Examples) -> StepDataset:
    """The steps of a run; raises ConfigError where the counts cannot work."""
    epochs = config.num_epochs
    if config.max_steps is not None:
        epochs = config.max_steps / max(len(examples) // config.batch_size, 1)
    return StepDataset(_planner(config, examples), config.batch_size, config.seed, epochs)


def _planner(config: FinetuneConfig, examples: Examples) -> Planner:
    return Planner(examples, "padded", config.max_tokens, PartialState().num_processes)


def _arguments(
    config: FinetuneConfig, packs_per_step: int, dtype: torch.dtype, has_validation: bool
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(config.output_dir) / "checkpoints"),
        per_device_train_batch_size=1,  # one pack
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=packs_per_step // PartialState().num_processes,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it replaces a NaN by the mean of the losses before it
        eval_strategy="steps" if has_validation else "no",
        eval_steps=config.eval_steps,
        eval_on_start=has_validation,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=config.save_total_limit,
        seed=config.seed,
        report_to=config.report_to,
        label_names=["targets"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
    )


def _their_displays() -> list[Any]:
    """The Trainer's own ways of printing logs; ours shows the same in one line."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    return [PrinterCallback, ProgressCallback]


def _checkpoint(config: FinetuneConfig) -> str:
    folder = Path(config.output_dir) / "checkpoints"
    newest = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if newest is None:
        raise ConfigError(f"resume: {folder} holds no checkpoint. Start the run without resume, in a new output_dir.")
    return newest
