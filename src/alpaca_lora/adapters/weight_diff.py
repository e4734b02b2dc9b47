"""Weight diffs: a tuned model released as its difference to a base, of use only to those who have the base.

Stanford Alpaca was released so. The difference here is exact: bits XOR bits.

    make     tuned  0100 1011     apply   diff   0001 1110     A row the base does not have (Alpaca added one token)
             base   0101 0101             base   0101 0101     counts as zeros there, so it is stored whole.
             diff   0001 1110             tuned  0100 1011

Subtracting floats would not be: the difference is rounded, and what was rounded away does not come back.

    >>> base, tuned = torch.tensor([1.0]), torch.tensor([1e-8])
    >>> (base + (tuned - base)).item()
    0.0

    folder/diff.json                  format, base, and for each tensor its file, dtype, shape and three hashes
           diff.model-00001-of-...    the differences, as integers, in the tuned model's layout
           files/                     config, tokenizer and whatever else the tuned model had

Memory: a few times the largest tensor. Time: that of reading, hashing (about 1 GB/s) and writing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import AdapterError, ModelError, counted
from ..files import sha256_of_file, sha256_of_json
from ..models.shards import (
    DTYPES,
    INDEX,
    NAMES,
    Entry,
    Shards,
    check_new,
    new_folder,
    sha256_of,
    write_file,
    write_index,
)
from ..runs.whole_model import checked_folder
from ..textfiles import read_json_file

MANIFEST = "diff.json"
FORMAT = "alpaca-lora-diff-1"
_FILES = "files"
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # XOR does not care for their sign
_TRAVELS = (".json", ".model", ".txt", ".jinja", ".md", "")  # of the tuned model's other files


def make_diff(base_model: str | Path, tuned: str | Path, out: str | Path) -> Path:
    """Write the difference between a tuned model and its base.

    Args:
        base_model: The base: a folder, a hub id, or `demo`. In another dtype than the tuned model it is cast first.
        tuned: The tuned model, of the same architecture; dimensions of rows (vocabulary) may differ.
        out: New or empty folder.

    Raises:
        AdapterError: the two are not of the same architecture; a tensor is named.
        ModelError: one of them cannot be read.
    """
    check_new(out)
    base, after = Shards(checked_folder(base_model)), Shards(checked_folder(tuned))
    _check_alike(base, after)
    tensors: dict[str, dict[str, Any]] = {}

    def difference(name: str) -> torch.Tensor:
        entry, result = after.entries[name], after.read(name)
        before = base.read(name) if name in base.entries else None
        change = _xor(_bits(result), before, entry)
        tensors[name] = {
            "file": entry.file,
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "base": None if before is None else sha256_of(before),
            "diff": sha256_of(change),
            "result": sha256_of(result),
        }
        return change

    with new_folder(out) as part:
        for file, names in after.by_file().items():
            plan = {name: (_WORDS[after.entries[name].dtype.itemsize], after.entries[name].shape) for name in names}
            write_file(part / f"diff.{file}", plan, difference)
        (part / _FILES).mkdir()
        files = [path for path in sorted(after.folder.iterdir()) if _travels(path)]
        for path in files:
            shutil.copyfile(path, part / _FILES / path.name)
        content = {
            "format": FORMAT,
            "base": str(base_model),
            "sharded": after.sharded,
            "tensors": {name: tensors[name] for name in sorted(tensors)},
            "files": {path.name: sha256_of_file(path) for path in files},
        }
        manifest = {"content": content, "sha256": sha256_of_json(content)}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return Path(out)


def apply_diff(diff: str | Path, base_model: str | Path, out: str | Path) -> Path:
    """Give back the tuned model, bit for bit.

    Args:
        diff: What `make_diff` wrote.
        base_model: The base.
        out: New or empty folder.

    Raises:
        AdapterError: a tensor of diff, base or result has another hash than when the difference was made; the first
            one is named and nothing is kept.
    """
    check_new(out)
    diff = Path(diff)
    content, tensors = _read_manifest(diff)
    stored, base = _stored(diff, tensors), Shards(checked_folder(base_model))

    def restored(name: str) -> torch.Tensor:
        expected, entry = content["tensors"][name], tensors[name]
        change = stored.read(name)
        _check(sha256_of(change) == expected["diff"], diff, name, "the difference")
        before = None
        if expected["base"] is not None:
            before = base.read(name) if name in base.entries else None
            known = before is not None and sha256_of(before) == expected["base"]
            _check(known, base.folder, name, "the base")
        result = _xor(change, before, entry).view(entry.dtype)
        _check(sha256_of(result) == expected["result"], Path(out), name, "the result")
        return result

    with new_folder(out) as part:
        for file in sorted({entry.file for entry in tensors.values()}):
            plan = {name: (entry.dtype, entry.shape) for name, entry in tensors.items() if entry.file == file}
            write_file(part / file, plan, restored)
        if content["sharded"]:
            write_index(part, tensors)
        for name, digest in content["files"].items():
            path = diff / _FILES / name
            if not path.is_file() or sha256_of_file(path) != digest:
                raise AdapterError(f"{path}: is not the file the difference was made with. Copy the folder again.")
            shutil.copyfile(path, part / name)
    return Path(out)


def verify_diff(
    diff: str | Path, base_model: str | Path | None = None, result: str | Path | None = None
) -> dict[str, int]:
    """Check the hashes of a difference, and of a base and a result where given.

    Returns:
        How many tensors were checked: `diff`, `base`, `result`.

    Raises:
        AdapterError: tensors are missing or others than those the difference was made with; the first are named.
    """
    diff = Path(diff)
    content, tensors = _read_manifest(diff)
    given = {"diff": _stored(diff, tensors)}
    given |= {
        part: Shards(checked_folder(model))
        for part, model in (("base", base_model), ("result", result))
        if model is not None
    }
    counts, problems = {}, []
    for part, shards in given.items():
        wanted = {name: entry[part] for name, entry in content["tensors"].items() if entry[part] is not None}
        wrong = [
            name
            for name, digest in wanted.items()
            if name not in shards.entries or sha256_of(shards.read(name)) != digest
        ]
        if part == "result":
            wrong += sorted(shards.entries.keys() - wanted.keys())
        counts[part] = len(wanted)
        if wrong:
            problems.append(f"{shards.folder} ({part}): {counted(len(wrong), 'tensor')}, first {wrong[:2]}")
    folders = [diff / _FILES, *([Path(checked_folder(result))] if result is not None else [])]
    for folder in folders:
        for name, digest in content["files"].items():
            if not (folder / name).is_file() or sha256_of_file(folder / name) != digest:
                problems.append(f"{folder / name}")
    if problems:
        raise AdapterError(f"not what the difference was made with: {'; '.join(problems)}. Copy them again.")
    return counts


def _xor(bits: torch.Tensor, base: torch.Tensor | None, entry: Entry) -> torch.Tensor:
    """`bits` XOR the base's, where the base has rows; the same operation makes and applies."""
    bits = bits.clone()
    if base is None:
        return bits
    other = _bits(base.to(entry.dtype))
    if bits.dim():
        rows = min(len(bits), len(other))
        bits[:rows].bitwise_xor_(other[:rows])
    else:
        bits.bitwise_xor_(other)
    return bits


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(_WORDS[tensor.dtype.itemsize])


def _check(same: bool, where: Path, name: str, what: str) -> None:
    if not same:
        raise AdapterError(
            f"{where}: {name!r} of {what} is not the one the difference was made with; nothing was kept. Use the very "
            "base it names, and copy the folder again."
        )


def _check_alike(base: Shards, after: Shards) -> None:
    kinds = [read_json_file(shards.folder / "config.json", ModelError) for shards in (base, after)]
    if kinds[0].get("architectures") != kinds[1].get("architectures"):
        raise AdapterError(
            f"{after.folder}: is a {kinds[1].get('architectures')}, the base a {kinds[0].get('architectures')}; a "
            "difference needs two models of the same architecture."
        )
    shared = base.entries.keys() & after.entries.keys()
    for name in sorted(shared):
        ours, theirs = after.entries[name].shape, base.entries[name].shape
        if ours[1:] != theirs[1:] or len(ours) != len(theirs):
            raise AdapterError(
                f"{after.folder}: {name!r} is {ours}, the base's {theirs}; only the number of rows may differ."
            )
    if not shared:
        raise AdapterError(f"{after.folder}: has no tensor of {base.folder}; is that the base it was tuned from?")


def _travels(path: Path) -> bool:
    if not path.is_file() or path.name == INDEX or path.name.endswith(".bin.index.json"):
        return False
    return path.suffix in _TRAVELS and not path.name.startswith(".")


def _stored(diff: Path, tensors: Mapping[str, Entry]) -> Shards:
    """The differences, in the shapes the manifest says."""
    stored = Shards(diff, sorted({f"diff.{entry.file}" for entry in tensors.values()}))
    for name, entry in tensors.items():
        expected = Entry(f"diff.{entry.file}", _WORDS[entry.dtype.itemsize], entry.shape)
        if stored.entries.get(name) != expected:
            raise AdapterError(f"{diff}: {name!r} is missing or of another shape than {MANIFEST} says. Copy it again.")
    return stored


def _read_manifest(diff: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """What a manifest says, and the tensors it describes."""
    path = diff / MANIFEST
    if not os.path.exists(path):
        raise AdapterError(f"{diff}: has no {MANIFEST}. Give the folder that `alpaca-lora diff make` wrote.")
    manifest = read_json_file(path, AdapterError, "Copy the folder again from where it was made.")
    try:
        content = {**manifest["content"]}
        if manifest["sha256"] != sha256_of_json(content):
            raise ValueError("its content has another hash")
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        entries = {
            name: Entry(entry["file"], DTYPES[entry["dtype"]], tuple(entry["shape"]))
            for name, entry in content["tensors"].items()
        }
        names = [*content["files"], *(entry.file for entry in entries.values())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{path}: damaged: {error}. Copy the folder again from where it was made.") from error
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ModelError(f"{path}: names {outside[0]!r}, which lies outside the folder; refused.")
    weights = [name for name in content["files"] if Path(name).suffix not in _TRAVELS]
    if weights:
        raise ModelError(f"{path}: brings {weights[0]!r}, which is no config or tokenizer file; refused.")
    return content, entries
