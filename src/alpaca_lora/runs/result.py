"""The files that make a result: an adapter or a model with all that belongs to it; whether they are still what was
written, and which of them are published. Nothing else in the folder (checkpoints, locks, records) is part of it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import AdapterError
from ..files import sha256_of_file
from ..models.folder import what_is
from ..textfiles import read_json_file
from .adapter_files import WEIGHTS, is_adapter
from .benchmarks import BENCHMARKS
from .checkpoints import MANIFEST
from .run_file import RUN_FILE, RunFile
from .saved_adapter import SavedAdapter
from .whole_model import CERTIFICATE, check_weights

CARD = "README.md"
EXPORT = "export.json"
_MODEL = ("model*.safetensors", "model.safetensors.index.json", WEIGHTS, "adapter_config.json", "config.json")
_TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja"),
)
_BESIDE = (
    *("generation_config.json", RUN_FILE, CERTIFICATE, "extraction.json", "history.jsonl", "loss.png", CARD),
    *(BENCHMARKS, "*.gguf", "Modelfile", EXPORT),
)
PUBLISHED = (*_MODEL, *_TOKENIZER, *_BESIDE)
"""Names, or patterns of them, that a result may have."""


def result_files(output_dir: Path) -> dict[str, str]:
    """Name and SHA-256 of each file that makes the adapter or model of a run; about 1 GB/s."""
    patterns = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "tokenizer*.json")
    paths = sorted(path for pattern in patterns for path in output_dir.glob(pattern))
    return {path.name: sha256_of_file(path) for path in paths}


def result_flaw(output_dir: Path, run_file: RunFile) -> str | None:
    """Why a finished run's folder does not hold what the run gave; None where it does.

    Args:
        output_dir: The run's folder.
        run_file: What the run wrote of itself.
    """
    weights = "model" if run_file.config.get("method") == "full" else "adapter_model"
    if not any(output_dir.glob(f"{weights}*.safetensors")):
        return f"it holds no {weights}*.safetensors"
    for name, digest in run_file.files.items():  # absent in runs of earlier versions
        path = output_dir / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of_file(path) != digest:
            return f"{name} is not what the run wrote"
    return None


def published_files(folder: str | Path) -> list[Path]:
    """The files of a whole result: a finished run's, a merged, extracted or exported one's, or another tool's.

    Raises:
        AdapterError: the folder holds none, one that is unfinished or damaged, or a checkpoint.
        ModelError: a model's weights are not those that were written.
    """
    path = Path(folder)
    if os.path.exists(path / MANIFEST):
        raise AdapterError(f"{folder}: is a checkpoint of a run. Let the run end, and give its output_dir.")
    run_file = RunFile.read(path)
    if run_file is not None and run_file.finished is False:
        raise AdapterError(
            f"{folder}: holds a run that has not ended, so there is nothing to publish yet. Continue it with the same "
            "command and --resume auto."
        )
    if run_file is not None and run_file.finished and (flaw := result_flaw(path, run_file)):
        raise AdapterError(
            f"{folder}: does not hold what its run gave: {flaw}. The run's own command with --resume auto writes it "
            "again, or copy it again from where it was made."
        )
    if is_adapter(path):
        adapter = SavedAdapter.read(path)
        adapter.tensors  # noqa: B018  # raises where they are missing or damaged
        adapter.check_unchanged()
    elif (path / "config.json").exists() and any(path.glob("model*.safetensors")):
        check_weights(path)
    elif (path / EXPORT).exists() and any(path.glob("*.gguf")):
        _check_export(path)
    else:
        what, advice = what_is(path)
        raise AdapterError(f"{folder}: holds no result to publish: it is {what}. {advice}")
    return sorted({found for pattern in PUBLISHED for found in path.glob(pattern) if found.is_file()})


def _check_export(folder: Path) -> None:
    hashes = read_json_file(folder / EXPORT, AdapterError).get("sha256", {})  # absent in exports of earlier versions
    for name, digest in hashes.items():
        if not (folder / name).is_file() or sha256_of_file(folder / name) != digest:
            raise AdapterError(f"{folder}: {name} is missing or not what was exported. Export it again.")
