"""What a finished run leaves in its folder: adapter or model, tokenizer, loss.png, a card, alpaca_lora.json."""

from __future__ import annotations

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
from ..runs.adapter_files import WEIGHTS, describe_adapter, save_adapter
from ..runs.contract import Contract, write_run_file
from ..runs.history import read_history
from ..runs.model_card import model_card
from .fsdp import save_model


def save_run(
    output_dir: Path,
    base: str,
    model: Any,
    dtype: torch.dtype,
    encoder: Encoder,
    contract: Contract,
    described: dict[str, Any],
) -> None:
    """Write all of it, alpaca_lora.json last; all ranks must call this.

    Args:
        output_dir: The run's folder, with its history.
        base: What `resolve_base` gave.
        model: Trained: a peft model, or one whose weights all trained.
        dtype: Dtype in which a whole model is saved.
        encoder: Its tokenizer is saved along, with the prompt as its chat template.
        contract: The run's contract.
        described: What alpaca_lora.json says beside contract, versions and metrics.

    Raises:
        AdapterError, TrainingError: nothing was trained, or what was trained is not finite.
    """
    full = described["config"]["method"] == "full"
    if full:
        save_model(model, output_dir, dtype)
    else:
        save_adapter(model, output_dir)
    if not processes().is_main_process:
        return
    if full:
        _check_trained(output_dir, base)
    elif described.get("parent", {}).get("sha256") == sha256_of_file(output_dir / WEIGHTS):
        raise AdapterError(
            f"{output_dir}: is still the adapter it started from: the steps were too small to change any value. Raise "
            "learning_rate or the number of steps."
        )
    written = {"weights": fingerprint(str(output_dir))} if full else {"adapter": describe_adapter(output_dir)}
    put_chat_template(encoder)
    from ..runs.plots import plot_history  # matplotlib, only where a picture is drawn

    encoder.tokenizer.save_pretrained(output_dir)
    history = read_history(output_dir)
    title = f"{described['config']['base_model']} on {described['data']['source']}"
    plot_history(history, title).savefig(output_dir / "loss.png", dpi=120)
    content = {**described, **written, "files": _result_files(output_dir), "metrics": metrics_of(history)}
    warning = contract.load_template().warning
    (output_dir / "README.md").write_text(model_card(content, warning), encoding="utf-8")
    write_run_file(output_dir, contract, finished=True, **content)


def result_flaw(output_dir: Path, content: dict[str, Any]) -> str | None:
    """Why a finished run's folder does not hold what the run gave; None where it does.

    Args:
        output_dir: The run's folder.
        content: What its alpaca_lora.json says.
    """
    weights = "model" if content["config"]["method"] == "full" else "adapter_model"
    if not any(output_dir.glob(f"{weights}*.safetensors")):
        return f"it holds no {weights}*.safetensors"
    for name, digest in content.get("files", {}).items():  # absent in runs of earlier versions
        path = output_dir / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of_file(path) != digest:
            return f"{name} is not what the run wrote"
    return None


def _result_files(output_dir: Path) -> dict[str, str]:
    """Name and SHA-256 of each file that makes the adapter or model; about 1 GB/s."""
    patterns = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "tokenizer*.json")
    paths = sorted(path for pattern in patterns for path in output_dir.glob(pattern))
    return {path.name: sha256_of_file(path) for path in paths}


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


def metrics_of(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses before and after, steps, tokens and seconds of a history."""
    steps = [line for line in history if "loss" in line]
    evaluations = [line["eval_loss"] for line in history if "eval_loss" in line]
    return {
        "steps": steps[-1]["step"],
        "loss": steps[-1]["loss"],
        "eval_loss_before": evaluations[0] if evaluations else None,
        "eval_loss_after": evaluations[-1] if evaluations else None,
        "supervised_tokens": sum(line["supervised_tokens"] for line in steps),
        "computed_tokens": sum(line["computed_tokens"] for line in steps),
        "train_seconds": round(sum(line["seconds"] for line in steps), 3),
    }
