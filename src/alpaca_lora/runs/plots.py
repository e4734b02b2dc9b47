"""Losses as pictures: of one run, of several in one. In: histories. Out: matplotlib Figures that notebooks show."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure  # no pyplot: no global state, no display needed
from matplotlib.ticker import MaxNLocator

Lines = list[dict[str, Any]]
MARGINS, ACCURACIES = "rewards/margins", "rewards/accuracies"
COLOURS = ("tab:blue", "tab:orange")


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
    """Training and validation loss of a run; of preferences their margin and accuracy, too."""
    of_pairs = any(MARGINS in line for line in lines)
    figure, (axes, *below) = _axes(title, 2 if of_pairs else 1)
    _draw(axes, lines, "loss")
    if of_pairs:
        axes.set_ylabel("loss (nats per pair)")
        (axes_below,) = below
        axes_below.set_ylabel("margin of rewards (nats)")
        _draw(axes_below, lines, MARGINS)
        right = axes_below.twinx()
        right.set_ylabel("accuracy")
        right.set_ylim(-0.05, 1.05)
        _draw(right, lines, ACCURACIES, ("tab:green", "tab:red"), "accuracy, ")
        handles, labels = right.get_legend_handles_labels()
        right.legend(handles, labels, loc="lower right")
    return figure


def _draw(axes: Any, lines: Lines, key: str, colours: tuple[str, str] = COLOURS, what: str = "") -> None:
    steps, values = _points(lines, key)
    if steps:
        axes.plot(steps, values, color=colours[0], alpha=0.35, linewidth=1, label=f"{what}training, each step")
        axes.plot(steps, smooth(values), color=colours[0], linewidth=2, label=f"{what}training, smoothed")
    steps, values = _points(lines, f"eval_{key}")
    if steps:
        axes.plot(steps, values, "o-", color=colours[1], label=f"{what}validation")
    axes.legend()


def plot_histories(histories: Mapping[str, Lines], title: str = "", colours: Mapping[str, int] | None = None) -> Plot:
    """Training losses of several runs, smoothed, and their validation losses, in the same colour with dots.

    Args:
        histories: The lines of each history.jsonl, by the name in the legend.
        title: Above the picture.
        colours: A number for the colour of each; one each if left out.
    """
    figure, (axes,) = _axes(title)
    for number, (name, lines) in enumerate(histories.items()):
        colour = f"C{(colours[name] if colours else number) % 10}"
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


def _axes(title: str, rows: int = 1) -> tuple[Plot, list[Any]]:
    figure = Plot(figsize=(7, 4 * rows), layout="constrained")
    found = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for axes in found:
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    found[0].set_ylabel("loss (nats per token)")
    found[0].set_title(title)
    return figure, found


def _points(lines: Lines, key: str) -> tuple[list[int], list[float]]:
    points = [(line["step"], line[key]) for line in lines if key in line]
    return [step for step, _ in points], [value for _, value in points]
