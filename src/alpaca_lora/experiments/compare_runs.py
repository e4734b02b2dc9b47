"""Is B better than A, or is it noise? Runs in; the difference of their validation losses, with intervals, out.

Runs are compared record by record: the same validation record in both, so that what is hard about it for both cancels
(paired differences: Miller 2024, arXiv 2411.00640, section 4.2). A record is a cluster of tokens. Below a few hundred
records no normal approximation is used (arXiv 2503.01747). What this claims, and what was measured of it:
docs/comparing.md; the simulations: benchmarks/compare_runs.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, counted
from .difference import Difference, difference, holm
from .groups import Group, groups_of, settings_that_differ

if TYPE_CHECKING:
    from ..runs.plots import Plot

_COMMAND = "compare_runs"


@dataclass(frozen=True)
class RunComparison:
    """Runs, or groups of runs that differ in their seed only, all compared with the first.

    Attributes:
        groups: In the order in which they were given.
        differences: Each other group less the first.
        settings: What differs between groups, and its value in each.
    """

    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    settings: dict[str, list[Any]]

    @property
    def verdict(self) -> str:
        """A sentence for each difference."""
        return "\n".join(found.verdict for found in self.differences)

    @property
    def scope(self) -> str:
        """What the verdict is about."""
        several = len(self.differences) > 1
        together = "All comparisons together are wrong in 5% of cases at most (Holm's correction). " if several else ""
        if any(len(group.runs) > 1 for group in self.groups):
            share = max(found.from_seeds for found in self.differences)
            rest = f" {share:.0%} of the variance is of seeds, the rest of records." if not several else ""
            return f"{together}This is about the settings, over seeds and records.{rest}"
        if list(self.settings) == ["seed"]:
            return f"{together}The runs differ in the seed only: this is what another seed makes of these settings."
        return (
            f"{together}This is about these {len(self.groups)} models. Whether their settings differ takes several "
            "seeds of each: train again with other seeds, and compare all of them."
        )

    def plot(self) -> Plot:
        """A matplotlib Figure: the learning curves of all runs; those of a group have one colour."""
        from ..runs.plots import plot_histories

        histories, colours = {}, {}
        for number, group in enumerate(self.groups):
            for run in group.runs:
                name = group.name if len(group.runs) == 1 else f"{group.name}, seed {run.run_file.seed}"
                histories[name], colours[name] = run.history, number
        return plot_histories(histories, "", colours)

    def __str__(self) -> str:
        parts = [_table(self), self.verdict, self.scope]
        if left_out := max(found.left_out for found in self.differences):
            parts.insert(1, f"{counted(left_out, 'record')} are in only some of the runs' validation sets: left out.")
        if self.settings:
            shown = [f"  {name}: {' | '.join(map(str, values))}" for name, values in self.settings.items()]
            parts.insert(1, "Settings that differ:\n" + "\n".join(shown))
        return "\n\n".join(parts)


def compare_runs(*runs: Any, picture: str | PathLike[str] | None = None) -> RunComparison:
    """Compare finished runs by their validation losses, record by record, with intervals.

    The evaluation compared is that of each run's result: the last, or the best where the run kept that. Runs with other
    validation sets are compared on the records that all have. Of more than two, all are compared with the first.

    Args:
        *runs: Two folders of `finetune` or more, or what it returned. Those that differ in the seed only are taken
            together: then it is about settings, and else about models. Or lists of them, each a group, or one dict of
            names and either.
        picture: Also write the learning curves to this PNG file.

    Returns:
        Groups, differences and verdict; printed, a table and a sentence each.

    Raises:
        ConfigError: a folder without a finished run, runs without validation records in common, or of other tokens.
        AdapterError, DataError: a file of a run is damaged.

    Example:
        compare_runs("runs/a", "runs/b").verdict
        "b's validation loss is lower than a's by 0.031 nats per token (95% interval 0.012 to 0.050, 400 records)."
    """
    compared = compare_groups(groups_of(runs, _COMMAND))
    if picture is not None:
        try:
            Path(picture).write_bytes(compared.plot().png(dpi=120))
        except OSError as error:
            raise ConfigError(f"picture: cannot write {picture}: {error.strerror}. Name another file.") from error
    return compared


def compare_groups(groups: list[Group], command: str = _COMMAND) -> RunComparison:
    """Compare groups of runs that are read already, all with the first."""
    first, *others = groups
    found = holm([difference(first, other, command) for other in others])
    found = list(map(partial(replace, comparisons=len(others)), found))
    return RunComparison(tuple(groups), tuple(found), settings_that_differ(groups))


def _table(compared: RunComparison) -> str:
    rows: list[tuple[str, ...]] = [
        ("", "runs", "step", "validation loss", "difference to the first", "interval", "KL from base")
    ]
    for group, found in zip(compared.groups, (None, *compared.differences), strict=True):
        steps = sorted({run.step for run in group.runs})
        told = ("", "")
        if found:
            level = f" ({100 * found.level:.3g}%)"
            told = (f"{found.mean:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}{level}")
        broke = "" if group.divergence is None else f"{group.divergence:.3f}"  # docs/regressions.md
        rows.append((group.name, str(len(group.runs)), "-".join(map(str, steps)), f"{group.loss:.4f}", *told, broke))
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]  # KL may be measured in none
    rows, widths = list(zip(*columns, strict=True)), [max(map(len, column)) for column in columns]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
