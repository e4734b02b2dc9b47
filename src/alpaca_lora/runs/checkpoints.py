"""A run's checkpoints, as all who read a run see them: their folder, their names, the file that makes one valid."""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST = "manifest.json"


def newest_name(checkpoints: Path) -> str | None:
    """Name of the newest checkpoint that has a manifest."""
    sealed = [folder for folder in checkpoints_in(checkpoints) if (folder / MANIFEST).exists()]
    return max(sealed, key=step_of).name if sealed else None


def step_of(folder: Path) -> int:
    """Optimizer steps a checkpoint has seen, by its name."""
    return int(folder.name.rpartition("-")[2])


def checkpoints_in(folder: Path) -> list[Path]:
    """The folders `checkpoint-STEP`, valid or not, in no order."""
    if not folder.is_dir():
        return []
    return [entry for entry in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", entry.name) and entry.is_dir()]
