"""Whole models that were written here, merged or fully tuned: still the weights that were written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models.fingerprint import fingerprint, same_base
from ..models.shards import base_folder
from ..textfiles import read_json_file
from .run_file import RUN_FILE, RunFile

CERTIFICATE = "merge_certificate.json"


def checked_folder(base_model: str | Path) -> Path:
    """`base_folder`, its weights checked by `check_weights`."""
    folder = base_folder(base_model)
    check_weights(folder)
    return folder


def check_weights(folder: str | Path) -> None:
    """Raise ModelError if a merged or fully tuned folder does not hold the weights that were written there.

    What was written stands in the run file (`weights`) or in merge_certificate.json; other folders, hub ids included,
    pass. Costs what `fingerprint` costs: one pass over the files, once.
    """
    run_file = RunFile.read(folder)
    path = Path(folder) / CERTIFICATE
    certificate: Any = read_json_file(path, ModelError) if os.path.exists(path) else {}
    merged = certificate.get("merged")
    for name, key, recorded in (
        (RUN_FILE, "weights", run_file.weights if run_file else None),
        (CERTIFICATE, "merged", merged.get("fingerprint") if isinstance(merged, dict) else None),
    ):
        if recorded is not None and not (isinstance(recorded, str) and same_base(recorded, fingerprint(str(folder)))):
            raise ModelError(
                f"{folder}: its weights are not those that were written there (by {name}). Copy the folder again from "
                f"where it was made; if you changed them on purpose, remove {key!r} from {name}."
            )
