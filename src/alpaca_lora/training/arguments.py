"""Our settings in transformers' words."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..config import FinetuneConfig
from ..data.step_dataset import StepDataset
from ..models.distributed import processes
from .fsdp import set_mixed_precision, shard_settings
from .tracker_runs import reported_as

OPTIMIZERS: dict[str, dict[str, str]] = {  # ours -> transformers'
    "adamw": {},
    "adamw_8bit": {"optim": "adamw_bnb_8bit"},
    "paged_adamw_8bit": {"optim": "paged_adamw_8bit"},
}


def training_arguments(
    config: FinetuneConfig,
    steps: StepDataset,
    dtype: torch.dtype,
    has_validation: bool,
    from_start: bool,
    tracker_id: str = "",
) -> TrainingArguments:
    """What the Trainer is told.

    Args:
        config: The run's settings.
        steps: Its steps.
        dtype: Dtype of matrix multiplications.
        has_validation: Whether there are validation examples.
        from_start: Whether the run starts at its first step, and so is evaluated before it.
        tracker_id: What trackers tell the run by.
    """
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
        fp16=dtype == torch.float16,
        use_cpu=processes().device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it replaces a NaN by the mean of the losses before it
        eval_strategy="steps" if has_validation else "no",
        eval_steps=config.eval_steps,
        eval_on_start=has_validation and from_start,
        save_strategy="steps",
        save_steps=config.save_steps,
        seed=config.seed,
        label_names=["targets"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        **reported_as(config, tracker_id),
        **OPTIMIZERS[config.optimizer],
        **(shard_settings(config) if config.fsdp else {}),
    )
    if config.fsdp and made.bf16:
        set_mixed_precision(made)
    if made.n_gpu > 1:  # several GPUs and one process: the Trainer would split each pack over them (DataParallel)
        made._n_gpu = 1
    return made


def show_only(display: type[TrainerCallback], trainer: Trainer) -> None:
    """Replace the Trainer's own ways of printing logs."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(display)
