"""What a comparison needs of a run: its settings, and each validation record's loss at the evaluation of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..runs.eval_records import NAME, read_eval_records
from ..runs.history import read_history
from ..runs.run_file import RUN_FILE, RunFile


@dataclass(frozen=True)
class RunLosses:
    """Losses of a finished run.

    Attributes:
        folder: Of the run.
        run_file: What it says of itself.
        step: Optimizer steps before the evaluation of its result.
        losses: By record, named by its hash: sum of the losses of its tokens, nats.
        tokens: By record: their number.
        history: The lines of history.jsonl.
    """

    folder: Path
    run_file: RunFile
    step: int
    losses: dict[str, float]
    tokens: dict[str, int]
    history: list[dict[str, Any]]

    @property
    def objective(self) -> dict[str, Any]:
        """What its loss is: losses of another objective, or with other settings of it, are other quantities."""
        config = self.run_file.config
        found = {"objective": config.get("objective", "sft")}
        if found["objective"] != "sft":
            found |= {"beta": config["beta"]}
        if found["objective"] == "dpo":
            parent = self.run_file.parent
            reference = parent.sha256 if parent else self.run_file.contract.base_fingerprint
            found |= {"label_smoothing": config.get("label_smoothing", 0.0), "reference": reference[:8]}
        return found

    @property
    def unit(self) -> str:
        """Of its loss."""
        return "nats per pair" if self.objective["objective"] == "dpo" else "nats per token"

    @property
    def loss(self) -> float:
        """Validation loss of the result, in its `unit`."""
        return sum(self.losses.values()) / sum(self.tokens.values())


def read_run(folder: Path, command: str, of: Callable[[str], bool] | None = None) -> RunLosses:
    """A finished run's losses.

    A record that stands in the validation set twice counts once, with its first loss; so runs can be paired in which
    it stands there another number of times.

    Args:
        folder: Of the run.
        command: Who asks, for messages.
        of: Which records to take, by hash; all if left out.

    Raises:
        ConfigError: it holds no run, one that is not finished, or one without losses by record.
        AdapterError, DataError: a file of it is damaged.
    """
    run_file = RunFile.read(folder)
    if run_file is None or run_file.data is None:
        raise ConfigError(f"{command}: {folder} holds no run (no {RUN_FILE} of one). Give folders of `finetune`.")
    history = read_history(folder)
    if not run_file.finished or run_file.metrics is None:
        done = max((line["step"] for line in history), default=0)
        raise ConfigError(
            f"{command}: the run in {folder} is not finished ({done} steps so far). Go on with it by the same settings "
            "and --resume auto (resume='auto'), then compare."
        )
    kept = read_eval_records(folder)
    if kept is None or not kept.losses:
        if run_file.config.get("val_set_size") == 0 or not any("eval_loss" in line for line in history):
            why = "had no validation records. Train it with val_set_size"
        else:
            why = (
                f"has no losses by record ({NAME}). Its own command with --resume auto puts back what was deleted; a "
                "run of an earlier version has to be trained again. Do that"
            )
        raise ConfigError(f"{command}: the run in {folder} {why}, and compare then.")
    step = result_step(run_file, kept.losses)
    if step not in kept.losses:
        raise ConfigError(f"{command}: {folder / NAME} holds no evaluation at step {step}, where its result is from.")
    losses: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for name, count, loss in zip(kept.hashes, kept.tokens.tolist(), kept.losses[step].tolist(), strict=True):
        if name not in losses and (of is None or of(name)):
            losses[name], tokens[name] = loss, count
    return RunLosses(folder, run_file, step, losses, tokens, history)


def result_step(run_file: RunFile, evaluated: Any) -> int:
    """The step of the evaluation that a run's result was given by: the best if the run kept that, else the last."""
    metrics: dict[str, Any] = {**run_file.metrics} if run_file.metrics else {}
    return int(metrics.get("kept_step", max(evaluated)))


def common_records(runs: Sequence[RunLosses], command: str) -> list[str]:
    """The records that all runs were validated on, by hash, in the first one's order.

    Raises:
        ConfigError: there are none, one has other tokens in another run, or the runs minimise different losses.
    """
    first, *others = runs
    check_objectives([(str(run.folder), run.objective) for run in runs], command)
    names = [name for name in first.losses if all(name in run.losses for run in others)]
    if not names:
        raise ConfigError(
            f"{command}: {first.folder} and {others[0].folder} have no validation record in common, so that their "
            "losses cannot be compared. The split follows from data, val_set_size and seed: train with the same, or "
            "give all runs the same validation records."
        )
    for run in others:
        changed = [name for name in names if run.tokens[name] != first.tokens[name]]
        if changed:
            raise ConfigError(
                f"{command}: the same records have other tokens in {first.folder} and {run.folder} ({len(changed)} of "
                f"{len(names)}; the first has {first.tokens[changed[0]]} and {run.tokens[changed[0]]} with a loss): "
                "another tokenizer, cutoff_len, template or train_on_inputs. Losses per token cannot be compared then."
            )
    return names


def check_objectives(runs: Sequence[tuple[str, Mapping[str, Any]]], command: str) -> None:
    """Raise ConfigError where runs, by name, minimise different losses (`RunLosses.objective`)."""
    (first, told), *others = runs
    for other, differs in others:
        if differs != told:
            both = [", ".join(f"{name}={value}" for name, value in one.items()) for one in (told, differs)]
            raise ConfigError(
                f"{command}: {first} and {other} minimise different losses ({both[0]}; {both[1]}), which say nothing "
                "of each other. Have both answer the same questions, and compare the answers (alpaca-lora compare)."
            )


def arrays_of(runs: Sequence[RunLosses], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Losses and tokens, both (runs x records), 0 where a run has not that record."""
    losses = np.array([[run.losses.get(name, 0.0) for name in names] for run in runs])
    tokens = np.array([[run.tokens.get(name, 0) for name in names] for run in runs], float)
    return losses, tokens


def names_of(runs: Sequence[RunLosses]) -> list[str]:
    """Short names, one a run: their folders', with as many of the folders above as it takes to tell them apart."""
    parts = [run.folder.absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if max(Counter(names).values()) == 1:
            break
    return names
