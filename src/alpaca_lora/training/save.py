"""What a finished run leaves in its folder: adapter or model, tokenizer, loss.png, a card, the run file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..adapters.chat_template import put_chat_template
from ..data.tokens import Encoder
from ..errors import AdapterError, TrainingError
from ..files import sha256_of_file
from ..models.distributed import processes
from ..models.fingerprint import fingerprint
from ..models.shards import Shards, base_folder
from ..runs.adapter_files import WEIGHTS, read_adapter, save_adapter
from ..runs.evaluations import best_of, evaluations_of, why_stopped
from ..runs.history import read_history
from ..runs.model_card import model_card
from ..runs.peft_config import read_config
from ..runs.result import result_files
from ..runs.run_file import Metrics, RunFile
from ..runs.saved_adapter import describe_adapter
from .fsdp import save_model


def save_run(
    output_dir: Path,
    base: str,
    model: Any,
    dtype: torch.dtype,
    encoder: Encoder,
    run_file: RunFile,
    planned_steps: int,
) -> None:
    """Write all of it, the run file last; all ranks must call this.

    Args:
        output_dir: The run's folder, with its history.
        base: What `resolve_base` gave.
        model: Trained: a peft model, or one whose weights all trained.
        dtype: Dtype in which a whole model is saved.
        encoder: Its tokenizer is saved along, with the prompt as its chat template.
        run_file: What there is to say of the run beside its result.
        planned_steps: Steps it was to take.

    Raises:
        AdapterError, TrainingError: nothing was trained, or what was trained is not finite.
    """
    full = run_file.config["method"] == "full"
    if full:
        save_model(model, output_dir, dtype)
    else:
        save_adapter(model, output_dir)
    if not processes().is_main_process:
        return
    if full:
        _check_trained(output_dir, base)
    elif run_file.parent and run_file.parent.sha256 == sha256_of_file(output_dir / WEIGHTS):
        raise AdapterError(
            f"{output_dir}: is still the adapter it started from: the steps were too small to change any value. Raise "
            "learning_rate or the number of steps."
        )
    if full:
        run_file = replace(run_file, weights=fingerprint(str(output_dir)))
    else:
        run_file = replace(run_file, adapter=describe_adapter(read_config(output_dir), read_adapter(output_dir)))
    put_chat_template(encoder)
    from ..runs.plots import plot_history  # matplotlib, only where a picture is drawn

    encoder.tokenizer.save_pretrained(output_dir)
    history = read_history(output_dir)
    assert run_file.data is not None
    title = f"{run_file.config['base_model']} on {run_file.data.source}"
    plot_history(history, title).savefig(output_dir / "loss.png", dpi=120)
    metrics = metrics_of(history, run_file.config, planned_steps)
    run_file = replace(run_file, finished=True, files=result_files(output_dir), metrics=metrics)
    (output_dir / "README.md").write_text(model_card(run_file), encoding="utf-8")
    run_file.write(output_dir)


def _check_trained(output_dir: Path, base: str) -> None:
    """Raise TrainingError where no weight of a fully fine-tuned model differs from its base's; ends at the first."""
    before, after = Shards(base_folder(base)), Shards(output_dir)
    for name in after.entries:
        new = after.read(name)
        if name not in before.entries or not torch.equal(before.read(name).to(new.dtype), new):
            return
    raise TrainingError(
        f"{output_dir}: every weight is still the base's, as saved in {str(new.dtype).removeprefix('torch.')}: the "
        "steps were too small to change any. Raise learning_rate or the number of steps, or train with dtype=float32."
    )


def metrics_of(history: list[dict[str, Any]], config: Mapping[str, Any], planned_steps: int) -> Metrics:
    """Losses before and after, steps, tokens and seconds of a run, and whose weights were kept.

    Args:
        history: The lines of a run that has ended.
        config: Its settings.
        planned_steps: Steps it was to take.
    """
    steps = [line for line in history if "loss" in line]
    evaluations, best = evaluations_of(history), best_of(history)
    kept = best if best and config["keep"] == "best" else evaluations[-1] if evaluations else None
    patience, threshold = config["early_stopping_patience"], config["early_stopping_threshold"]
    metrics: Metrics = {
        "steps": steps[-1]["step"],
        "loss": steps[-1]["loss"],
        "eval_loss_before": evaluations[0].loss if evaluations else None,
        "eval_loss_after": kept.loss if kept else None,
        "supervised_tokens": sum(line["supervised_tokens"] for line in steps),
        "computed_tokens": sum(line["computed_tokens"] for line in steps),
        "train_seconds": round(sum(line["seconds"] for line in steps), 3),
        "best_step": best.step if best else None,
        "eval_loss_best": best.loss if best else None,
        "kept": config["keep"],
        "kept_step": kept.step if kept else steps[-1]["step"],
        "stopped_early": why_stopped(history, patience, threshold, planned_steps) or None,
    }
    last = (
        steps[-1]
        if kept is None
        else next(line for line in history if "eval_loss" in line and line["step"] == kept.step)
    )
    if rewards := _rewards(last):
        metrics["rewards"] = rewards
    return metrics


def _rewards(line: Mapping[str, Any]) -> dict[str, float]:
    """Margin and accuracy, if a line of a history has them."""
    names = {"margin": "rewards/margins", "accuracy": "rewards/accuracies"}
    prefix = "eval_" if "eval_loss" in line else ""
    return {name: line[prefix + key] for name, key in names.items() if prefix + key in line}
