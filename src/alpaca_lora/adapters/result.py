"""What a finished run leaves in its folder: adapter or model, tokenizer, loss.png, a card, alpaca_lora.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..data.tokens import Encoder
from ..models.load import processes
from ..training.history import read_history
from ..training.sharding import save_model
from .card import model_card
from .chat_template import put_chat_template
from .contract import Contract, write_run_file
from .store import describe_adapter, save_adapter


def save_run(
    output_dir: Path, model: Any, dtype: torch.dtype, encoder: Encoder, contract: Contract, described: dict[str, Any]
) -> None:
    """Write all of it, alpaca_lora.json last; all ranks must call this.

    Args:
        output_dir: The run's folder, with its history.
        model: Trained: a peft model, or one whose weights all trained.
        dtype: A whole model is saved in.
        encoder: Its tokenizer is saved along, with the prompt as its chat template.
        contract: Of the run.
        described: What alpaca_lora.json says beside contract, versions and metrics.
    """
    full = described["config"]["method"] == "full"
    if full:
        save_model(model, output_dir, dtype)
    else:
        save_adapter(model, output_dir)
    if not processes().is_main_process:
        return
    adapter = {} if full else {"adapter": describe_adapter(output_dir)}
    put_chat_template(encoder)
    from ..training.plots import plot_history  # matplotlib, only where a picture is drawn

    encoder.tokenizer.save_pretrained(output_dir)
    history = read_history(output_dir)
    title = f"{described['config']['base_model']} on {described['data']['source']}"
    plot_history(history, title).savefig(output_dir / "loss.png", dpi=120)
    content = {**described, **adapter, "metrics": metrics_of(history)}
    warning = contract.load_template().warning
    (output_dir / "README.md").write_text(model_card(content, warning), encoding="utf-8")
    write_run_file(output_dir, contract, finished=True, **content)


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
