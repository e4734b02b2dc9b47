"""Folders of safetensors, a tensor at a time: read without loading them, written without holding them.

    folder/model-00001-of-00002.safetensors      8 bytes: length of the header | header, JSON | the tensors' bytes
           model-00002-of-00002.safetensors      {"embed.weight": {"dtype": "BF16", "shape": [8, 4],
           model.safetensors.index.json                            "data_offsets": [0, 64]}, ...}

Memory: the tensor at hand. safetensors' own writer wants all tensors of a file at once, hence the one here; the format
is at github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ..errors import AdapterError, ModelError
from ..files import unfinished
from .hub import LOADED, split_revision
from .load import resolve_base
from .weight_files import INDEX as INDEX
from .weight_files import SINGLE as SINGLE
from .weight_files import weight_map

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """Where a tensor is and what it looks like."""

    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Shards:
    """The tensors of a folder's safetensors files.

    Args:
        folder: A model's folder.
        files: Names of its files; what its index says if left out.

    Raises:
        ModelError: a file is missing or damaged, lies outside the folder, or lacks what the index names.
    """

    def __init__(self, folder: str | Path, files: list[str] | None = None) -> None:
        self.folder = Path(folder)
        indexed = self._index() if files is None else {}
        self.sharded = bool(indexed)
        self.entries: dict[str, Entry] = {}
        for file in sorted(set(indexed.values())) or files or [SINGLE]:
            if file != Path(file).name:
                raise ModelError(f"{self.folder}: {file!r} lies outside the folder; refused.")
            with self._open(file) as opened:
                for name in opened.keys():  # noqa: SIM118
                    piece = opened.get_slice(name)
                    dtype = DTYPES.get(piece.get_dtype())
                    if dtype is None:
                        rule = f"is {piece.get_dtype()}; only {', '.join(DTYPES)} are read"
                        raise ModelError(f"{self.folder / file}: {name!r} {rule}. Use a full-precision copy.")
                    self.entries[name] = Entry(file, dtype, tuple(piece.get_shape()))
        lacking = sorted(indexed.keys() - self.entries.keys())
        if lacking:
            raise ModelError(
                f"{self.folder}: lacks {len(lacking)} of the tensors its index names, first {lacking[:2]}."
            )

    def read(self, name: str) -> torch.Tensor:
        """A tensor, mapped from its file: bytes that are never looked at are never read."""
        with self._open(self.entries[name].file) as opened:  # opened each time, so that what was read can be let go
            return opened.get_tensor(name)

    def by_file(self) -> dict[str, list[str]]:
        """Names of each file's tensors."""
        found: dict[str, list[str]] = {}
        for name, entry in self.entries.items():
            found.setdefault(entry.file, []).append(name)
        return found

    def _index(self) -> dict[str, str]:
        path = self.folder / INDEX
        return weight_map(path) if path.exists() else {}

    @contextmanager
    def _open(self, file: str) -> Iterator[Any]:
        if not os.path.isfile(self.folder / file):
            raise ModelError(f"{self.folder / file}: is missing. Copy it again from where it was made.")
        try:
            with safe_open(self.folder / file, framework="pt") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{self.folder / file}: damaged: {error}. Copy it again from where it was made."
            ) from error


def base_folder(base_model: str | Path) -> Path:
    """The folder of a model given as a folder, a hub id (downloaded where it is not yet) or `demo`.

    Raises:
        ModelError: there is none, it is an adapter, it holds pickles only, or its files point outside it.
    """
    resolved = resolve_base(str(base_model))
    if os.path.exists(resolved):
        return Path(resolved)
    from huggingface_hub import snapshot_download

    repo, revision = split_revision(resolved)
    try:
        found = snapshot_download(repo, revision=revision, allow_patterns=LOADED)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"base_model: cannot get {resolved!r} (no such folder here, so it was taken for a hub id): {reason} "
            "Give a folder with safetensors weights, a hub id you can reach, or 'demo'."
        ) from error
    return Path(resolve_base(found))


def write_file(
    path: Path, plan: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], make: Callable[[str], torch.Tensor]
) -> None:
    """Write one safetensors file, asking for its tensors one after the other.

    Args:
        path: The file.
        plan: dtype and shape of each tensor.
        make: Gives the tensor of a name; it is let go before the next.
    """
    order = sorted(plan, key=lambda name: (-plan[name][0].itemsize, name))  # the wider first, so that all are aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        dtype, shape = plan[name]
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            tensor = make(name)
            assert (tensor.dtype, tuple(tensor.shape)) == plan[name], name
            file.write(raw(tensor))
            del tensor
        file.flush()
        os.fsync(file.fileno())


def write_index(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write the index that tells which file holds which tensor."""
    total = sum(torch.Size(entry.shape).numel() * entry.dtype.itemsize for entry in entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": {name: entries[name].file for name in sorted(entries)}}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def check_new(out: str | Path) -> Path:
    """The path of a folder to write, asked for before anything large is read.

    Raises:
        AdapterError: it is there and not empty.
    """
    out = Path(out)
    if os.path.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out}: exists and is not an empty folder; name a new one.")
    return out


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder that becomes `out` when all went well, and vanishes when anything did not; see `unfinished`.

    Raises:
        AdapterError: `out` is not empty, another process writes it, or it cannot be written.
    """
    out = check_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(out) as part:
            check_new(out)  # again: another process may have written it meanwhile
            part.mkdir()
            yield part
            part.rename(out)  # also onto an empty folder
    except BlockingIOError as error:
        raise AdapterError(f"{out}: another process is writing it. Wait for it, or name another folder.") from error
    except OSError as error:
        raise AdapterError(f"{out}: cannot be written: {error.strerror or error}. Name another folder.") from error


def raw(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, not copied where they lie together."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def sha256_of(tensor: torch.Tensor) -> str:
    """Hash of a tensor's bytes."""
    return hashlib.sha256(raw(tensor)).hexdigest()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds no NaN and no Inf; unlike `isfinite().all()`, this takes no memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))
