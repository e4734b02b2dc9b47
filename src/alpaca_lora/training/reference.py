"""reference.safetensors: log-probabilities of every answer before a preference run's first step.

    train        float32 (n,)   of the training examples' answers; NaN for those that the run never sees
    validation   float32 (n,)

A resumed run has other weights when it starts, so it reads the file; each checkpoint holds a copy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import TrainingError
from ..files import write_atomically

REFERENCE = "reference.safetensors"


def write_reference(output_dir: Path, log_probs: dict[str, np.ndarray]) -> None:
    """Write a run's."""
    write_atomically(output_dir / REFERENCE, save(log_probs))


def take_up_reference(output_dir: Path, checkpoint: Path) -> None:
    """Put a checkpoint's copy in the place of the run's.

    Raises:
        TrainingError: the checkpoint has none.
    """
    if not (checkpoint / REFERENCE).exists():
        raise TrainingError(
            f"{checkpoint}: lacks {REFERENCE}, without which training cannot go on. Begin a new run in another folder."
        )
    shutil.copyfile(checkpoint / REFERENCE, output_dir / REFERENCE)


def read_reference(output_dir: Path, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Read a run's.

    Args:
        output_dir: The run's folder.
        sizes: Number of examples of each part.

    Raises:
        TrainingError: the file is missing, damaged, or of other examples.
    """
    path = output_dir / REFERENCE
    try:
        found = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}). The run's checkpoints hold copies of it.") from error
    if {name: array.shape for name, array in found.items()} != {name: (size,) for name, size in sizes.items()}:
        raise TrainingError(f"{path}: is of other examples. The run's checkpoints hold copies of the right one.")
    return found
