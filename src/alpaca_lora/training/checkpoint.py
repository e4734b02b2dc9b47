"""Checkpoints that are whole or not used.

The Trainer writes `checkpoints/checkpoint-200/`; once every file of it is on the disk, `manifest.json` is written into
it, last and at one stroke. A checkpoint without a true manifest is none:

    manifest.json   {"content": {"step": 200, "run": "<fingerprint>", "processes": 1, "versions": {...},
                                 "files": {"optimizer.pt": {"bytes": 9, "sha256": "<hash>"}, ...}},
                     "sha256": "<hash of the content>"}

Resuming takes the newest checkpoint whose files are what its manifest says and whose run is this one. The others are
moved to `checkpoints/set_aside/`, so that they are neither loaded nor lost.

Cost: one pass over the files (about 1 GB/s a rank; the ranks share the files), once every `save_steps`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..errors import TrainingError
from ..files import no_room, sha256_of_file, sha256_of_json, sync_folder, write_atomically
from ..models.distributed import processes
from ..runs.checkpoints import MANIFEST, checkpoints_in, newest_name, step_of
from ..runs.evaluations import best_of
from ..runs.history import read_history
from ..runs.versions import versions
from ..textfiles import read_json_file

SET_ASIDE = "set_aside"


def seal(folder: Path, step: int, run: str) -> None:
    """Make a complete checkpoint valid: hash its files, have them on the disk, and write the manifest; all ranks call.

    Args:
        folder: The checkpoint, written by all ranks already.
        step: Optimizer steps done.
        run: The run's fingerprint.
    """
    state = processes()
    state.wait_for_everyone()  # every rank has written its files
    paths = _files(folder)
    mine = paths[state.process_index :: state.num_processes]
    with ThreadPoolExecutor(4) as pool:  # hashing and syncing both let other threads run
        found = dict(zip(mine, pool.map(lambda name: _synced(folder / name), mine), strict=True))
    for part in _from_all(found):
        found |= part
    if state.is_main_process:
        content = {
            "step": step,
            "run": run,
            "processes": state.num_processes,
            "versions": versions(),
            "files": {name: found[name] for name in paths},
        }
        manifest = {"content": content, "sha256": sha256_of_json(content)}
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    state.wait_for_everyone()


def flaw(folder: Path, run: str) -> str | None:
    """Why a checkpoint cannot be used; None where it can."""
    if not (folder / MANIFEST).exists():
        return "it has no manifest.json: saving it was cut short"
    try:
        manifest = read_json_file(folder / MANIFEST, TrainingError)
        content = manifest["content"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
        step, belongs_to = content["step"], content["run"]
        if manifest["sha256"] != sha256_of_json(content):
            raise ValueError("its content is not what was written")
    except (TrainingError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest.json is damaged"
    if belongs_to != run:
        return "it belongs to another run"
    if folder.name != f"checkpoint-{step}":
        return f"its manifest.json is that of step {step}"
    there = _files(folder)
    if missing := sorted(expected.keys() - set(there)):
        return f"it lacks {missing[0]}"
    if foreign := sorted(set(there) - expected.keys()):
        return f"it holds {foreign[0]}, which is not its own"
    for name, (size, _) in expected.items():
        if (found := (folder / name).stat().st_size) != size:
            return f"{name} has {found} bytes, not {size}"
    with ThreadPoolExecutor(4) as pool:
        for name, digest in zip(there, pool.map(lambda name: sha256_of_file(folder / name), there), strict=True):
            if digest != expected[name][1]:
                return f"the content of {name} is not what was written"
    return None


def ranks_of(checkpoint: Path) -> int:
    """Processes that saved a valid checkpoint; versions that did not write it down are taken to be the same now."""
    content = read_json_file(checkpoint / MANIFEST, TrainingError)["content"]
    return int(content.get("processes", processes().num_processes))


def newest_valid(checkpoints: Path, run: str, with_best: bool = False) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint of a run, and a sentence for each newer one that was passed over and set aside.

    Only one process may call this.

    Args:
        checkpoints: Their folder.
        run: The run's fingerprint.
        with_best: One is only valid with that of its best evaluation, whose weights may become the result.
    """
    passed: list[str] = []
    for folder in sorted(checkpoints_in(checkpoints), key=step_of, reverse=True):
        reason = flaw(folder, run) or (_flaw_of_best(folder, run) if with_best else None)
        if reason is None:
            return folder, passed
        aside = checkpoints / SET_ASIDE / folder.name
        count = 1
        while aside.exists():
            count += 1
            aside = aside.with_name(f"{folder.name}-{count}")
        aside.parent.mkdir(exist_ok=True)
        folder.rename(aside)
        passed.append(f"{folder.name} was set aside ({aside}): {reason}.")
    return None, passed


def _flaw_of_best(folder: Path, run: str) -> str | None:
    best = best_of(read_history(folder))
    if best is None or best.step == step_of(folder):
        return None
    other = folder.with_name(f"checkpoint-{best.step}")
    reason = flaw(other, run)
    return reason and f"its best evaluation's, {other.name}, cannot be used: {reason}"


class Checkpoints(TrainerCallback):
    """Seals what the Trainer saved, and keeps the newest `keep` checkpoints and the one with the best validation loss.

    Args:
        output_dir: The run's folder.
        run: The run's fingerprint.
        keep: Checkpoints kept beside the best.
    """

    def __init__(self, output_dir: Path, run: str, keep: int) -> None:
        self.output_dir, self.run, self.keep = output_dir, run, keep
        self.bytes = 0  # of a checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.bytes = checkpoint_bytes(model, args.optim)
        if state.is_world_process_zero:
            kept = len(checkpoints_in(Path(args.output_dir)))
            more = max(self.keep + 1 - kept, 1) * self.bytes  # the one being written comes before the oldest goes
            check_space(self.output_dir, more, "the run's checkpoints")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check_space(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check_space(args, state, control)  # an evaluation may have asked for a checkpoint

    def _check_space(self, args: Any, state: Any, control: Any) -> None:
        if control.should_save and state.is_world_process_zero:
            what = f"the checkpoint of step {state.global_step}"
            check_space(self.output_dir, self.bytes, what, newest_name(Path(args.output_dir)))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seal(folder, state.global_step, self.run)
        if state.is_world_process_zero:
            self._prune(Path(args.output_dir))

    def _prune(self, checkpoints: Path) -> None:
        found = sorted(checkpoints_in(checkpoints), key=step_of)
        steps = {step_of(folder) for folder in found}
        history = [line for line in read_history(self.output_dir) if "loss" in line or line["step"] in steps]
        best = best_of(history)
        for folder in found[: -self.keep]:
            if best is None or step_of(folder) != best.step:
                shutil.rmtree(folder)


def checkpoint_bytes(model: Any, optimizer: str) -> int:
    """About what a checkpoint takes: float32 weights of what trains, two moments, a megabyte of the rest."""
    moments = 2 if "8bit" in optimizer else 8
    return sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad) * (4 + moments) + 10**6


def check_space(folder: Path, needed: int, what: str, kept: str | None = None) -> None:
    """Raise TrainingError where the disk of `folder` has less than `needed` bytes left for `what`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        rest = f" {kept} is intact; make room and continue with resume=auto." if kept else " Make room."
        raise TrainingError(
            f"output_dir: {what} needs {needed / 1e9:.3f} GB, and {folder} has {free / 1e9:.3f} GB free.{rest}"
        )


@contextmanager
def full_disk_explained(output_dir: Path) -> Iterator[None]:
    """Names what is kept where the disk fills up while something is written."""
    try:
        yield
    except Exception as error:  # torch, safetensors and Python each have their own for a full disk
        if not no_room(error) and "PytorchStreamWriter failed" not in str(error):
            raise
        kept = newest_name(output_dir / "checkpoints")
        rest = f"{kept} is intact; make room and continue with resume=auto." if kept else "Make room and start again."
        raise TrainingError(f"output_dir: the disk of {output_dir} is full ({error}). {rest}") from error


def _files(folder: Path) -> list[str]:
    """Every file of a checkpoint but the manifest, by its path inside."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [name for name in names if name not in (MANIFEST, f".{MANIFEST}.part")]


def _synced(path: Path) -> dict[str, Any]:
    entry = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return entry


def _from_all(value: Any) -> list[Any]:
    if processes().num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    return list(gather_object([value]))
