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

from ..data.tokens import Encoder, encoder_for
from ..errors import AdapterError, ModelError
from ..files import sha256_of_file
from ..models.fingerprint import computes, fingerprint
from ..models.load import load_config, load_tokenizer
from ..models.new_tokens import ids_of, rows_for
from ..models.shards import Entry, Shards, check_new, is_finite, new_folder, write_file, write_index
from ..models.tokenizer import pad_within
from ..runs.adapter_files import WEIGHTS
from ..runs.contract import Contract, refuse_or_warn
from ..runs.model_card import merged_card
from ..runs.peft_config import CONFIG
from ..runs.run_file import RUN_FILE, RunFile
from ..runs.saved_adapter import SavedAdapter
from ..runs.versions import versions
from ..runs.whole_model import CERTIFICATE, checked_folder
from ..textfiles import read_json_file
from . import OutputDtype
from .certificate import answers_of, check_memory, compare, reference_model
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
    saved = _read(adapters)
    name = base_model or saved[0].named_base
    base = checked_folder(name)
    shards = Shards(base)
    _check_full_precision(base, shards, name)
    base_fingerprint = fingerprint(str(base))
    contract, encoder, forced = _agreed(saved, base, base_fingerprint, certify, force)
    changes = changes_to(shards, saved, name)
    vocab_size = rows_for([id for adapter in saved for id in ids_of(adapter.config)], load_config(str(base)).vocab_size)
    if contract is not None and contract.model_config is not None:
        contract = replace(contract, model_config={**contract.model_config, "vocab_size": vocab_size})
    if certify:
        check_memory(sum(torch.Size(entry.shape).numel() for entry in shards.entries.values()))

    with new_folder(out) as part:
        written = _write(part, shards, changes, None if dtype == "auto" else getattr(torch, dtype))
        dtypes = sorted({str(entry.dtype) for entry in written.values() if entry.dtype.is_floating_point})
        _write_config(base, part, dtype, vocab_size)
        certificate: dict[str, Any] = {
            "base": {"name": name, "fingerprint": base_fingerprint},
            "adapters": [
                {
                    "name": adapter.folder.name,
                    "sha256": {file: sha256_of_file(adapter.folder / file) for file in (WEIGHTS, CONFIG)},
                }
                for adapter in saved
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
            before = answers_of(reference_model(base, saved, name), encoder)
            certificate["logits"] = compare(part, before, exact=dtypes == ["torch.float32"], out=out)
        (part / CERTIFICATE).write_text(json.dumps(certificate, indent=2) + "\n", encoding="utf-8")
        warning = contract.load_template().warning if contract is not None else ""
        card = merged_card(name, [adapter.folder.name for adapter in saved], warning)
        (part / "README.md").write_text(card, encoding="utf-8")
        if contract is not None:
            done: dict[str, Any] = {"dtype": ", ".join(dtypes)}
            if certify:
                done["max_logit_difference"] = certificate["logits"]["max_difference"]
            replace(_data_of(saved, contract), merge=done).write(part)
    return certificate


def _data_of(saved: Sequence[SavedAdapter], contract: Contract) -> RunFile:
    """A merged folder's run file: of one adapter also its data, for checks of contamination."""
    run = saved[0].run_file if len(saved) == 1 else None
    if run is None or run.data is None:
        return RunFile(contract)
    return RunFile(contract, data=run.data, config={"columns": run.config.get("columns")})


def _read(folders: Sequence[str | Path]) -> list[SavedAdapter]:
    """Adapters that can be merged, each another one."""
    found = [SavedAdapter.read(folder) for folder in folders]
    seen: dict[str, Path] = {}
    for adapter in found:
        check_mergeable(adapter)
        folder = adapter.folder
        if len(found) == 1 or not (folder / WEIGHTS).is_file():
            continue  # what is missing is told where it is read
        first = seen.setdefault(sha256_of_file(folder / WEIGHTS), folder)
        if first is not folder:
            raise AdapterError(
                f"{folder}: holds the same weights as {first}, which would be added twice. Name it once."
            )
    return found


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
    saved: Sequence[SavedAdapter],
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
    for adapter in saved:
        folder, contract = adapter.folder, adapter.contract
        if contract is None:
            warnings.warn(
                f"{folder}: has no {RUN_FILE}, so it cannot be checked whether this is the base it was trained "
                "on, nor with which prompt.",
                stacklevel=4,
            )
        source = folder if (folder / "tokenizer_config.json").exists() else base
        if certify or contract or any((source / file).exists() for file in _TOKENIZER_FILES):
            known = contract or agreed
            encoder = encoder_for(load_tokenizer(str(source)), known.load_template() if known else "alpaca")
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
    refuse_or_warn(mismatches, may_force)
    return agreed, encoder, mismatches


def _write(part: Path, shards: Shards, changes: dict[str, list[Change]], dtype: torch.dtype | None) -> dict[str, Entry]:
    """Write the merged tensors, a file for each of the base's."""
    entries = {
        name: entry._replace(dtype=dtype or entry.dtype) if entry.dtype.is_floating_point else entry
        for name, entry in shards.entries.items()
    }
    for name, done in changes.items():
        entries[name] = entries[name]._replace(shape=done[-1].shape)

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


def _write_config(base: Path, part: Path, dtype: OutputDtype, vocab_size: int) -> None:
    config = read_json_file(base / "config.json", ModelError)
    if config.get("vocab_size", vocab_size) != vocab_size:
        config["vocab_size"] = vocab_size
    if dtype != "auto":
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if (base / "generation_config.json").exists():
        shutil.copyfile(base / "generation_config.json", part / "generation_config.json")
