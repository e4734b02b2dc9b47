"""Merging: adapters and their full-precision base become one plain transformers folder, a tensor at a time.

    W' = W + s B A      or what else `updates` says, in float32, cast once at the end

In: adapter folders and the base's files. Out: a file for each of these, merge_certificate.json. Memory: the adapters
and a few times the largest tensor, never the model; a comparison of logits (`certify`) loads it, in float32.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..data.tokens import Encoder
from ..errors import AdapterError, ModelError
from ..files import sha256_of_file
from ..models.fingerprint import computes, fingerprint
from ..models.load import load_config, load_tokenizer
from ..models.shards import Entry, Shards, base_folder, check_new, is_finite, new_folder, write_file, write_index
from ..models.tokenizer import pad_within
from ..prompts import Template
from ..runs.adapter_files import WEIGHTS, check_adapter, named_base
from ..runs.contract import Contract, read_contract, read_run_file, run_file_in_use, settle, write_run_file
from ..runs.model_card import merged_card
from ..runs.peft_config import CONFIG
from ..runs.versions import versions
from ..textfiles import read_json_file
from . import OutputDtype
from .certificate import CERTIFICATE, answers_of, check_memory, compare, reference_model
from .chat_template import put_chat_template
from .lora_delta import Change, changes_to, check_mergeable

_FULL_PRECISION = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")


def merge_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    *,
    base_model: str | None = None,
    dtype: OutputDtype = "auto",
    certify: bool = True,
    force: bool = False,
) -> dict[str, Any]:
    """Merge adapters, one after the other, into their base and write a plain transformers folder.

    Args:
        adapters: Folders of LoRA adapters; each changes what the one before it left.
        out: New or empty folder.
        base_model: Where the base is now, if not where the first adapter says.
        dtype: Dtype of the merged weights; "auto" leaves every tensor in the base's own.
        certify: Compare logits with those of base + adapters; needs memory for the model in float32.
        force: Merge although base, tokenizer or stops are not those of a contract; warned of, and certified.

    Returns:
        What merge_certificate.json says.

    Raises:
        AdapterError: an adapter is damaged, belongs to another base, cannot be merged or is named twice; a merged
            tensor is not finite; logits differ by more than rounding explains; `out` is not empty.
        ModelError: the base is quantised, a pickle, or incomplete.
    """
    check_new(out)
    folders = [Path(adapter) for adapter in adapters]
    _check_adapters(folders)
    contracts = [read_contract(folder) for folder in folders]
    name = base_model or (contracts[0].base_model if contracts[0] else named_base(folders[0]))
    base = base_folder(name)
    shards = Shards(base)
    _check_full_precision(base, shards, name)
    base_fingerprint = fingerprint(str(base))
    contract, encoder, forced = _agreed(folders, contracts, base, base_fingerprint, certify, force)
    changes = changes_to(shards, folders, name)
    if certify:
        check_memory(sum(torch.Size(entry.shape).numel() for entry in shards.entries.values()))

    with new_folder(out) as part:
        written = _write(part, shards, changes, None if dtype == "auto" else getattr(torch, dtype))
        dtypes = sorted({str(entry.dtype) for entry in written.values() if entry.dtype.is_floating_point})
        _write_config(base, part, dtype)
        certificate: dict[str, Any] = {
            "base": {"name": name, "fingerprint": base_fingerprint},
            "adapters": [
                {"name": folder.name, "sha256": {file: sha256_of_file(folder / file) for file in (WEIGHTS, CONFIG)}}
                for folder in folders
            ],
            "merged": {"fingerprint": fingerprint(str(part)), "dtype": ", ".join(dtypes).replace("torch.", "")},
            "tensors": {"changed": len(changes), "finite": len(written), "all": len(written)},
            "forced": forced,
            "logits": "not compared (certify=False)",
            "versions": versions(),
        }
        if encoder is not None:
            if contract is not None:
                put_chat_template(encoder)
            encoder.tokenizer.save_pretrained(part)
        if certify and encoder is not None:
            before = answers_of(reference_model(base, folders, name), encoder)
            certificate["logits"] = compare(part, before, exact=dtypes == ["torch.float32"], out=out)
        (part / CERTIFICATE).write_text(json.dumps(certificate, indent=2) + "\n", encoding="utf-8")
        warning = contract.load_template().warning if contract is not None else ""
        card = merged_card(name, [folder.name for folder in folders], warning)
        (part / "README.md").write_text(card, encoding="utf-8")
        if contract is not None:
            merge = {"dtype": ", ".join(dtypes)}
            if certify:
                merge["max_logit_difference"] = certificate["logits"]["max_difference"]
            write_run_file(part, contract, merge=merge, **_data_of(folders))
    return certificate


def _data_of(folders: list[Path]) -> dict[str, Any]:
    """What one adapter says it was trained on, for checks of contamination; nothing of several adapters."""
    run = (read_run_file(folders[0]) or {}) if len(folders) == 1 else {}
    if "data" not in run:
        return {}
    with run_file_in_use(folders[0]):
        return {"data": run["data"], "config": {"columns": run.get("config", {}).get("columns")}}


def _check_adapters(folders: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        check_mergeable(folder, check_adapter(folder))
        if len(folders) == 1 or not (folder / WEIGHTS).is_file():
            continue  # what is missing is told where it is read
        first = seen.setdefault(sha256_of_file(folder / WEIGHTS), folder)
        if first is not folder:
            raise AdapterError(
                f"{folder}: holds the same weights as {first}, which would be added twice. Name it once."
            )


def _check_full_precision(base: Path, shards: Shards, name: str) -> None:
    """Merging into rounded weights would round them again, and drift (huggingface/peft issues 1043 and 2321)."""
    config = getattr(load_config(str(base)), "quantization_config", None)
    narrow = {entry.dtype for entry in shards.entries.values()} - {
        *_FULL_PRECISION,
        torch.int64,
        torch.int32,
        torch.bool,
    }
    if config is not None or narrow:
        how = ", ".join(sorted(map(str, narrow))) or "quantization_config in its config.json"
        raise ModelError(
            f"base_model: the weights of {name!r} are quantised ({how}), and merging into them would lose what was "
            "trained. Name the full-precision model with base_model."
        )


def _agreed(
    folders: list[Path],
    contracts: list[Contract | None],
    base: Path,
    base_fingerprint: str,
    certify: bool,
    force: bool,
) -> tuple[Contract | None, Encoder | None, list[str]]:
    """Contract and encoder of the merged folder: those of the last adapter that has them. Contracts are checked.

    Third comes what does not match them and was forced.
    """
    agreed: Contract | None = None
    encoder: Encoder | None = None
    mismatches: list[str] = []
    may_force: bool | None = force
    config = load_config(str(base))
    for folder, contract in zip(folders, contracts, strict=True):
        if contract is None:
            warnings.warn(
                f"{folder}: has no alpaca_lora.json, so it cannot be checked whether this is the base it was trained "
                "on, nor with which prompt.",
                stacklevel=4,
            )
        source = folder if (folder / "tokenizer_config.json").exists() else base
        if certify or contract or any((source / file).exists() for file in _TOKENIZER_FILES):
            template = contract.load_template() if contract else agreed.load_template() if agreed else None
            encoder = Encoder(load_tokenizer(str(source)), template or Template.load("alpaca"))
            pad_within(encoder.tokenizer, config.vocab_size)
        if contract is None:
            continue
        assert encoder is not None
        found = contract.mismatches(encoder, base_fingerprint, config)
        if found and (never := contract.unknown_ids(encoder, config.vocab_size)):
            found, may_force = [*found, never], None
        if agreed is not None and agreed.tokenizer_fingerprint != contract.tokenizer_fingerprint:
            found.append("was trained with another tokenizer than the adapter before it. Merge one.")
        mismatches += [f"{folder}: {problem}" for problem in found]
        if agreed is not None and agreed.template != contract.template:
            warnings.warn(f"{folder}: was trained with another template than the adapter before it.", stacklevel=4)
        agreed = replace(contract, model_config=computes(config))
    settle(mismatches, may_force)
    return agreed, encoder, mismatches


def _write(part: Path, shards: Shards, changes: dict[str, list[Change]], dtype: torch.dtype | None) -> dict[str, Entry]:
    """Write the merged tensors, a file for each of the base's."""
    entries = {
        name: entry._replace(dtype=dtype or entry.dtype) if entry.dtype.is_floating_point else entry
        for name, entry in shards.entries.items()
    }

    def merged(name: str) -> torch.Tensor:
        tensor = shards.read(name)
        if name in changes:
            tensor = tensor.to(torch.float32, copy=True)
            for change in changes[name]:
                tensor = change.apply(tensor)
        tensor = tensor.to(entries[name].dtype)
        if not is_finite(tensor):
            reason = (
                f"It leaves the range of {tensor.dtype}: merge with dtype='float32', or train the adapter again with a "
                "lower learning_rate."
                if is_finite(shards.read(name))
                else "The base's own does too: copy the base again."
            )
            raise AdapterError(f"{name!r} of the merged model holds NaN or Inf; not kept. {reason}")
        return tensor

    for file, names in shards.by_file().items():
        write_file(part / file, {name: (entries[name].dtype, entries[name].shape) for name in names}, merged)
    if shards.sharded:
        write_index(part, entries)
    return entries


def _write_config(base: Path, part: Path, dtype: OutputDtype) -> None:
    config = read_json_file(base / "config.json", ModelError)
    if dtype != "auto":
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if (base / "generation_config.json").exists():
        shutil.copyfile(base / "generation_config.json", part / "generation_config.json")
