"""A sweep's trials: one run of `finetune` each, in a folder and a process of its own, trained a stretch at a time.

    OUT/sweep.json                       what was asked for, so that only the same sweep goes on here
    OUT/trials/1-learning_rate=1e-05/    the run
               1-learning_rate=1e-05.json, .log, .failed     its settings, what it printed, why it broke off

A stretch ends at a step of the full run's own schedule (`stop_after`), with a checkpoint, and the next one goes on from
there: so a trial that is trained to the end is byte for byte the run that `finetune` would have made. A process of its
own gives all memory back, and a crash ends one trial and no sweep.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..config import FinetuneConfig
from ..errors import ConfigError, RunInterrupted, TrainingError
from ..files import write_atomically
from ..runs.checkpoints import newest_name, step_of
from ..runs.eval_records import read_eval_records
from ..runs.run_file import RunFile

_WAIT_SECONDS = 24 * 3600
_DIVERGED = re.compile(r"step \d+: the (\w+ )?(loss|eval_loss|gradient) is ")
"""What a trial says whose losses are no numbers any more: a result, and no mishap."""


@dataclass(frozen=True)
class Trial:
    """A point of the grid.

    Attributes:
        number: From 1.
        values: What is varied, and its value here.
        config: All settings.
        stops: Optimizer steps at which stretches end; the last is the run's own end.
    """

    number: int
    values: Mapping[str, Any]
    config: FinetuneConfig
    stops: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.stops[-1]

    @property
    def name(self) -> str:
        """The values, for tables."""
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.values.items())

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.config.output_dir)

    @property
    def failure(self) -> str | None:
        """Why it broke off; None where it did not."""
        path = self._beside("failed")
        return path.read_text(encoding="utf-8").strip() if path.exists() else None

    @property
    def finished(self) -> bool:
        """Whether all of its steps are done and its result is written."""
        found = RunFile.read(self.folder)
        return found is not None and bool(found.finished)

    def reached(self, step: int) -> bool:
        """Whether this stretch is behind it."""
        if step >= self.steps or self.finished:
            return self.finished
        newest = newest_name(self.folder / "checkpoints")
        kept = read_eval_records(self.folder)
        return newest is not None and step_of(Path(newest)) >= step and kept is not None and step in kept.losses

    def advance(self, step: int, write: Callable[..., Any]) -> None:
        """Train up to a step, in a process; does nothing where that is done, or the trial broke off.

        Raises:
            TrainingError: it ended for another reason than losses that are no numbers, or was killed.
            RunInterrupted: Ctrl-C or SIGTERM; the trial has a checkpoint.
        """
        if self.failure or self.reached(step):
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.folder.exists():
            with FileLock(self.folder / ".lock", timeout=_WAIT_SECONDS):
                pass  # a sweep that was killed may have left its trial running: that goes on to the end of its stretch
            if self.reached(step):
                return
        write(f"{self.name}: to step {step} of {self.steps}", flush=True)
        config = self.config  # samples are answered before and after a whole run, so not in a part of one
        if step < self.steps:
            config = replace(config, stop_after=step, sample_instructions=[])
        write_atomically(self._beside("json"), json.dumps(config.to_dict(), indent=2) + "\n")
        code = self._run()
        if code == 0 and self.reached(step):
            return
        said = _said(self._beside("log"))
        if code == 1 and _DIVERGED.search(said):
            write_atomically(self._beside("failed"), said + "\n")
            write(f"{self.name}: broke off: {said}", flush=True)
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise TrainingError(
            f"sweep: the trial {self.name} {how}: {said} See {self._beside('log')}. The same command goes on with it."
        )

    def _run(self) -> int:
        words = [sys.executable, "-m", "alpaca_lora", "finetune", "--config", str(self._beside("json"))]
        with self._beside("log").open("ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            with _ending(process):
                return process.wait()

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{suffix}")


def folder_name(number: int, values: Mapping[str, Any]) -> str:
    """A trial's folder: its number, and its values as far as they can stand in a name."""
    told = ",".join(f"{name}={_shown(value)}" for name, value in values.items())
    return f"{number}-{re.sub(r'[^A-Za-z0-9_.,=+-]+', '_', told)[:80]}"


def check_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write what a sweep is, or see that it is the one that began here.

    Raises:
        ConfigError: the folder holds another sweep, or something else.
    """
    path, text = out / "sweep.json", json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = sorted(name for name in plan if before.get(name) != plan[name])
        raise ConfigError(
            f"output_dir: {out} holds another sweep: {' and '.join(differ)} differ. Give what it began with (it is in "
            f"{path}), or name a new folder."
        )
    if out.exists() and any(entry.name[0] != "." for entry in out.iterdir()):
        raise ConfigError(f"output_dir: {out} is not empty and holds no sweep. Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _said(log: Path) -> str:
    """The last message of a log, which may stand in the middle of a progress bar; its last line if there is none."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    lines = text[max(text.rfind("alpaca-lora: "), 0) :].splitlines()
    return (lines[0] if "alpaca-lora: " in text else lines[-1]) if lines else "it printed nothing."


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the trial, which saves a checkpoint first, and then the sweep."""
    told: list[int] = []

    def stop(number: int, frame: Any) -> None:
        told.append(number)
        if number == signal.SIGTERM:  # a terminal's Ctrl-C reaches both, and a second signal would end it at once
            process.terminate()

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        name = signal.Signals(told[0]).name
        raise RunInterrupted(f"stopped by {name}; the same sweep goes on where it was.", told[0])
