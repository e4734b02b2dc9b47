"""Losses as pictures: of one run, of several in one. In: histories. Out: matplotlib Figures that notebooks show."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure  # no pyplot: no global state, no display needed
from matplotlib.ticker import MaxNLocator

Lines = list[dict[str, Any]]


class Plot(Figure):
    """A Figure that shows itself in a notebook; one made without pyplot would show its name."""

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self, dpi: int = 80) -> bytes:
        """The picture as a PNG file."""
        file = BytesIO()
        self.savefig(file, format="png", dpi=dpi)
        return file.getvalue()


def plot_history(lines: Lines, title: str = "") -> Plot:
    """Training loss (each step, and smoothed) and validation loss of a run."""
    figure, axes = _axes(title)
    steps, losses = _points(lines, "loss")
    if steps:
        axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="training, each step")
        axes.plot(steps, smooth(losses), color="tab:blue", linewidth=2, label="training, smoothed")
    steps, losses = _points(lines, "eval_loss")
    if steps:
        axes.plot(steps, losses, "o-", color="tab:orange", label="validation")
    axes.legend()
    return figure


def plot_histories(histories: Mapping[str, Lines], title: str = "") -> Plot:
    """Training losses of several runs, smoothed, and their validation losses, in the same colour with dots.

    Args:
        histories: The lines of each history.jsonl, by the name in the legend.
        title: Above the picture.
    """
    figure, axes = _axes(title)
    for number, (name, lines) in enumerate(histories.items()):
        colour = f"C{number % 10}"
        steps, losses = _points(lines, "loss")
        axes.plot(steps, smooth(losses), color=colour, label=name)
        steps, losses = _points(lines, "eval_loss")
        axes.plot(steps, losses, "o--", color=colour, alpha=0.6, linewidth=1)
    axes.set_ylabel("loss (nats per token); dots: validation")
    axes.legend()
    return figure


def smooth(values: list[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average, corrected for its start."""
    smoothed, mean, norm = [], 0.0, 0.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(mean / norm)
    return smoothed


def _axes(title: str) -> tuple[Plot, Any]:
    figure = Plot(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return figure, axes


def _points(lines: Lines, key: str) -> tuple[list[int], list[float]]:
    points = [(line["step"], line[key]) for line in lines if key in line]
    return [step for step, _ in points], [value for _, value in points]
