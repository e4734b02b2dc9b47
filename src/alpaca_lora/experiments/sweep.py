"""Which settings are best: trials over a grid, the worse half given up early, and the best two compared.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all trials are trained for a part of their steps,
the better half goes on for as long again, and so on until two are left, which are trained to the end. Choosing makes
the winner look better than it is; so validation records are split in two halves, by their hashes: trials are chosen on
one, and the winner is compared with the runner-up on the other, which no choice has seen.

Optuna (5.0; 6 MB with SQLAlchemy and Alembic) was looked at and left: it prunes inside one call in one process, so that
stretches that go on from a checkpoint, processes, resuming and the verdict would be written here all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError
from ..files import locked
from ..runs.eval_records import read_eval_records
from ..runs.history import read_history
from ..runs.paired_interval import FEWEST
from ..runs.run_file import RunFile
from .compare_runs import RunComparison, compare_groups
from .grid import points_of, trial_of
from .groups import Group
from .run_losses import check_objectives, read_run, result_step
from .trials import Trial, check_plan

_COMMAND = "sweep"


@dataclass(frozen=True)
class TrialResult:
    """How far a trial came.

    Attributes:
        name: Its values.
        folder: Of its run.
        step: The step of its last evaluation.
        loss: Validation loss there, on the records that trials are chosen on; None if it broke off before.
        state: `finished`, `given up` or `broke off`.
    """

    name: str
    folder: Path
    step: int
    loss: float | None
    state: str


@dataclass(frozen=True)
class Sweep:
    """Trials, best first, and the winner against the runner-up.

    Attributes:
        output_dir: The sweep's folder; sweep.png in it shows the losses.
        trials: The furthest trained first, and of those the best first.
        comparison: Of the two best, on records that they were not chosen by; None if only one was trained to the end.
    """

    output_dir: Path
    trials: tuple[TrialResult, ...]
    comparison: RunComparison | None

    @property
    def best(self) -> Path:
        """Folder of the winner's run."""
        return self.trials[0].folder

    @property
    def verdict(self) -> str:
        """What can be said of the winner, in a sentence or two."""
        if self.comparison is None:
            return f"Only {self.trials[0].name} was trained to its end, so there is nothing to compare it with."
        return f"Of {len(self.trials)} trials the best is {self.trials[0].name}. {self.comparison.verdict}"

    def __str__(self) -> str:
        rows = [("trial", "steps", "loss", "")]
        for trial in self.trials:
            loss = "" if trial.loss is None else f"{trial.loss:.4f}"
            rows.append((trial.name, str(trial.step), loss, trial.state))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        note = "loss: validation, on the half of the records that trials are chosen on; the two best are compared on "
        parts = [table, f"{note}the other half.", self.verdict]
        return "\n\n".join(parts + ([self.comparison.scope] if self.comparison else []))


def sweep(
    grid: Mapping[str, Sequence[Any]],
    output_dir: str,
    *,
    trials: int | None = None,
    halving: bool = True,
    recipe: str | None = None,
    write: Callable[..., Any] = print,
    **settings: Any,
) -> Sweep:
    """Train over settings of several values (`1e-4,3e-4`), give up the worse half early, and compare the best two.

    One trial is trained at a time, in a process of its own. After a kill at any moment, the same call goes on where it
    was. A trial trained to the end equals the run that `finetune` makes of its settings.

    Args:
        grid: Settings to vary, and the values of each: `{"learning_rate": [1e-5, 1e-4, 1e-3]}`. Learning rate first:
            with a tuned one plain LoRA matches most of its variants (arXiv 2601.22708).
        output_dir: Folder of the sweep; it must be new, or hold this very sweep.
        trials: Random search: that many points of the grid, drawn by `seed`; the whole grid if left out.
        halving: Give up the worse half early. Off, all trials are trained to the end, which is right where losses cross
            late, as between learning rates they can.
        recipe: A packaged recipe's name, or a YAML file.
        write: Prints, as `print` does.
        **settings: All other settings of `finetune`.

    Returns:
        Trials, winner and verdict; printed, a table and a sentence.

    Raises:
        ConfigError: settings of any trial that are wrong; a folder that holds something else.
        TrainingError: a trial ended for another reason than losses that are no numbers, or was killed.
        RunInterrupted: Ctrl-C or SIGTERM.
    """
    out = Path(output_dir).expanduser()
    points = points_of(grid, trials, settings.get("seed", 42))
    rounds = max(math.ceil(math.log2(len(points) / 2)), 0) if halving else 0
    made = [trial_of(number, point, out, recipe, settings, rounds) for number, point in enumerate(points, 1)]
    if out.is_file():
        raise ConfigError(f"output_dir: {out} is a file; name a folder.")
    check_objectives([(trial.name, _objective(trial.config)) for trial in made], "grid")
    plan = {"trials": [trial.config.to_dict() for trial in made], "halving": halving}
    check_plan(out, plan)
    try:
        lock = locked(out / ".lock")
    except BlockingIOError as error:
        raise ConfigError(f"output_dir: another process sweeps in {out}. Wait until it ends, or stop it.") from error
    with lock:
        results = _halve(made, write)
        found = Sweep(out, tuple(results), _best_two(results))
        from ..runs.plots import plot_histories  # matplotlib, only where a picture is drawn

        shown = {trial.name: read_history(trial.folder) for trial in made}
        (out / "sweep.png").write_bytes(
            plot_histories({name: lines for name, lines in shown.items() if lines}).png(120)
        )
    return found


def _objective(config: FinetuneConfig) -> dict[str, Any]:
    """What a trial's loss is; the reference of DPO is what it starts from."""
    found: dict[str, Any] = {"objective": config.objective}
    if config.objective != "sft":
        found |= {"beta": config.beta, "label_smoothing": config.label_smoothing}
        found |= {"adapter": config.adapter} if config.adapter else {"base_model": config.base_model}
    return found


def _halve(trials: list[Trial], write: Callable[..., Any]) -> list[TrialResult]:
    """Train all of them as far as they deserve; the results, best first."""
    left, given_up = trials, []
    last = len(trials[0].stops) - 1
    for done in range(last + 1):
        for trial in left:
            trial.advance(trial.stops[done], write)
            if done == 0 and trial is left[0] and (few := _too_few(trial)):
                write(few, flush=True)
        results = {trial.number: _result(trial, trial.stops[done]) for trial in left}
        left = sorted(left, key=lambda trial: _rank(results[trial.number]))
        keep = len(left) if done == last else max(math.ceil(len(left) / 2), 2)
        for trial in reversed(left[keep:]):
            given_up.append(results[trial.number])
            write(f"{trial.name}: given up at step {trial.stops[done]}", flush=True)
        left = left[:keep]
    found = [results[trial.number] for trial in left] + given_up[::-1]
    return sorted(found, key=lambda result: result.loss is None)  # those that broke off last


def _too_few(trial: Trial) -> str:
    """What is to be said after the first evaluation if there will be a winner, but no interval; "" else.

    Raises:
        ConfigError: there can be no winner.
    """
    kept = read_eval_records(trial.folder)
    names = {*kept.hashes} if kept else set()
    compared = len([name for name in names if not chooses(name)])
    if not names or compared >= FEWEST:
        return ""
    _check_halves(len(names) - compared, len(names))
    return (
        f"Too few validation records: {len(names)}, of which the best two trials are compared on {compared}; an "
        f"interval takes {FEWEST}. The sweep will name a best, without a verdict. To have one, stop it and give more."
    )


def _check_halves(chosen: int, records: int) -> None:
    if not 0 < chosen < records:
        raise ConfigError(
            f"val_set_size: {records} validation records cannot be split into one half to choose by and one to compare "
            "on. Give more."
        )


def _result(trial: Trial, upto: int) -> TrialResult:
    """A trial's loss at a stop, or where it ended before."""
    kept = read_eval_records(trial.folder)
    steps = [step for step in kept.losses if step <= upto] if kept else []
    if trial.failure or kept is None or not steps:
        return TrialResult(trial.name, trial.folder, max(steps, default=0), None, "broke off")
    chosen = [place for place, name in enumerate(kept.hashes) if chooses(name)]
    _check_halves(len(chosen), len(kept.hashes))
    ended = RunFile.read(trial.folder) if upto == trial.steps else None
    step = result_step(ended, steps) if ended else max(steps)
    loss = float(kept.losses[step][chosen].sum() / kept.tokens[chosen].sum())
    return TrialResult(trial.name, trial.folder, step, loss, "finished" if trial.finished else "given up")


def _rank(result: TrialResult) -> tuple[bool, float]:
    return (result.loss is None, result.loss or 0.0)


def chooses(name: str) -> bool:
    """Whether a record, by its hash, is of the half that trials are chosen on."""
    return int(name[-1], 16) % 2 == 0


def _best_two(results: list[TrialResult]) -> RunComparison | None:
    finished = [result for result in results if result.state == "finished"][:2]
    if len(finished) < 2:
        return None
    winner, second = (
        Group(result.name, (read_run(result.folder, _COMMAND, of=lambda name: not chooses(name)),))
        for result in finished
    )
    return compare_groups([second, winner], _COMMAND)
