"""history.jsonl: a line an optimizer step, and a line an evaluation (step 0, before the first step, included).

{"step": 1, "epoch": 0.07, "loss": 2.31, "learning_rate": 3e-05, "grad_norm": 0.9, "supervised_tokens": 1204,
 "computed_tokens": 2310, "seconds": 4.1}
{"step": 0, "epoch": 0, "eval_loss": 2.18}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.files import write_atomically

NAME = "history.jsonl"


def read_history(output_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's history, oldest first; an unfinished last line (a killed run) is left out."""
    path = Path(output_dir) / NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a whole line ends in a newline
    return [json.loads(line) for line in lines]


def write_history(output_dir: str | Path, lines: list[dict[str, Any]]) -> None:
    """Replace a run's history."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(Path(output_dir) / NAME, text)


def plot_history(lines: list[dict[str, Any]], title: str = "") -> Any:
    """A matplotlib Figure of training loss (each step, and smoothed) and validation loss."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display needed

    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    validation = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="training, each step")
        axes.plot(steps, _smooth(losses), color="tab:blue", linewidth=2, label="training, smoothed")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, "o-", color="tab:orange", label="validation")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _smooth(values: tuple[float, ...], weight: float = 0.8) -> list[float]:
    """Exponential moving average, corrected for its start."""
    smoothed, mean, norm = [], 0.0, 0.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(mean / norm)
    return smoothed
