"""One training run: settings, model and examples in; a trained model and a history out."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..config import FinetuneConfig
from ..data.collator import PackDataset, StepDataset
from ..data.plan import Planner
from ..data.tokens import Examples
from ..errors import ConfigError
from ..models.attention import BLOCK, IMPLEMENTATION, runs_packs
from ..models.load import checkpoint_activations, processes
from .callbacks import EvaluateLast, HistoryCallback, ProgressBar
from .trainer import AlpacaTrainer

CPU_TOKENS = 2048


def train(config: FinetuneConfig, model: Any, steps: StepDataset, validation: Examples | None) -> AlpacaTrainer:
    """Train `model` in place.

    Args:
        config: The run's settings.
        model: A causal language model with its trainable tensors marked.
        steps: What `plan_training` gave.
        validation: Validation examples, or None.

    Returns:
        The trainer after its last step.
    """
    if steps.planner.layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    trainer = AlpacaTrainer(
        model=model,
        args=_arguments(config, steps, model.dtype, validation is not None),
        train_dataset=steps,
        eval_dataset=PackDataset(replace(steps.planner, examples=validation)) if validation is not None else None,
        callbacks=[HistoryCallback(Path(config.output_dir)), EvaluateLast()],
    )
    for callback in _their_displays():
        trainer.remove_callback(callback)
    trainer.add_callback(ProgressBar)
    checkpoint = _checkpoint(config) if config.resume else None
    if checkpoint is not None and _total_steps(config, steps) <= int(checkpoint.rpartition("-")[2]):
        # Nothing is left to train; the Trainer would take one more step.
        set_peft_model_state_dict(model, load_file(Path(checkpoint) / "adapter_model.safetensors"))
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def plan_training(config: FinetuneConfig, model_config: Any, examples: Examples, device: torch.device) -> StepDataset:
    """The steps of a run; raises ConfigError where the counts cannot work.

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
    if config.max_tokens == "auto":
        tokens = max(auto_max_tokens(model_config, device, config.gradient_checkpointing), config.cutoff_len)
    else:
        tokens = config.max_tokens
    multiple = BLOCK if device.type == "cuda" and layout != "padded" else 1
    planner = Planner(examples, layout, tokens, processes().num_processes, multiple)
    epochs = config.num_epochs
    if config.max_steps is not None:
        epochs = config.max_steps / max(len(examples) // config.batch_size, 1)
    return StepDataset(planner, config.batch_size, config.seed, epochs)


def auto_max_tokens(model_config: Any, device: torch.device, gradient_checkpointing: bool) -> int:
    """A micro-batch that uses a device well.

    On a CPU a fixed size, large enough for matrix products to run at their rate. On a GPU (not tried on one yet) what
    should fit in half of the memory the weights leave free: about 34 bytes of bfloat16 activations a token, layer and
    hidden unit (arXiv 2205.05198, without attention scores), or 2 with gradient checkpointing, at most 16,384 tokens.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    hidden, layers = model_config.hidden_size, model_config.num_hidden_layers
    weight_bytes = 2 * layers * (4 * hidden**2 + 3 * hidden * model_config.intermediate_size)
    token_bytes = hidden * (layers * 2 + 34 if gradient_checkpointing else layers * 34)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    fit = max(free_bytes - weight_bytes, 0) // 2 // token_bytes
    return int(min(max(fit // BLOCK * BLOCK, 1024), 16_384))


def _total_steps(config: FinetuneConfig, steps: StepDataset) -> int:
    return config.max_steps or math.ceil(config.num_epochs * steps.steps_per_epoch)


def _arguments(
    config: FinetuneConfig, steps: StepDataset, dtype: torch.dtype, has_validation: bool
) -> TrainingArguments:
    warmup_steps = int(config.warmup_steps)
    if config.warmup_steps < 1:  # a fraction: rounded up, as transformers does, but a step is left at the full rate
        total = _total_steps(config, steps)
        warmup_steps = min(math.ceil(config.warmup_steps * total), total - 1)
    return TrainingArguments(
        output_dir=str(Path(config.output_dir) / "checkpoints"),
        per_device_train_batch_size=1,  # one pack
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=steps.packs_per_step // processes().num_processes,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        use_cpu=processes().device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it replaces a NaN by the mean of the losses before it
        eval_strategy="steps" if has_validation else "no",
        eval_steps=config.eval_steps,
        eval_on_start=has_validation and not config.resume,
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
