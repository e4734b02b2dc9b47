"""A folder's adapter: each of its files read once, checked, and put on a base only if every tensor fits.

peft itself loads unexpected keys and other shapes' leftovers without a word; here each is an error that names the first
keys. In: a folder. Out: a SavedAdapter, which loading, merging and training share.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import AdapterError, counted
from ..models.folder import what_is
from ..models.hub import downloaded
from ..models.lora import quiet_peft
from ..models.new_tokens import ids_of, make_room, rows_for, rows_of
from ..models.shards import sha256_of
from .adapter_files import is_adapter, read_adapter
from .checkpoints import MANIFEST, newest_name
from .contract import Contract
from .peft_config import APPLIED, CONFIG, changes_base, peft_config, read_config
from .run_file import AdapterRecord, RunFile, run_of_checkpoint


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter as its folder holds it.

    Args:
        folder: The folder.
        says: What adapter_config.json says.
        run_file: What alpaca_lora.json says; None if another tool made the adapter.
    """

    folder: Path
    says: Mapping[str, Any]
    run_file: RunFile | None

    @classmethod
    def read(cls, folder: str | Path, before: str = "") -> SavedAdapter:
        """A finished adapter that can be applied here; its tensors are read when they are needed.

        Args:
            folder: The folder, or a name on the hub.
            before: What the message begins with, before the folder.

        Raises:
            AdapterError: it holds none, or its config or run file is damaged or says what cannot be applied here.
        """
        folder = downloaded(str(folder))
        run_file = RunFile.read(folder)
        check_finished(folder, run_file)
        if not is_adapter(folder):
            what, advice = what_is(folder)
            raise AdapterError(f"{before}{folder}: is not an adapter folder (no {CONFIG}): {what}. {advice}")
        found = cls(Path(folder), read_config(folder), run_file)
        found.config  # noqa: B018  # raises
        return found

    @cached_property
    def config(self) -> Any:
        """peft's config."""
        return peft_config(self.folder, self.says)

    @cached_property
    def contract(self) -> Contract | None:
        """What it was trained with, also for a run's checkpoint; None if another tool made it."""
        found = self.run_file or run_of_checkpoint(self.folder)
        return found.contract if found else None

    @cached_property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Its tensors by key, on the CPU; what raises is that of `read_adapter`."""
        return read_adapter(self.folder)

    @property
    def named_base(self) -> str:
        """The base it was trained on, as its contract names it, or else its config.

        Raises:
            AdapterError: neither names one.
        """
        name = self.contract.pinned_base if self.contract else self.config.base_model_name_or_path
        if not name:
            raise AdapterError(f"{self.folder}: names no base model. Give it as base_model.")
        return str(name)

    @property
    def changes_of_base(self) -> str:
        """What it changes in its base itself, so that none but it can answer there; "" if it changes nothing."""
        saved = [f"{module}.weight" for module in self.config.modules_to_save or ()]
        whole = [key for key in whole_ends(self.tensors, ()) if not key.endswith(tuple(saved))]
        return changes_base(self.config) or (f"it holds {whole[0]!r} whole" if whole else "")

    def check_shareable(self) -> None:
        """Raise AdapterError if no other adapter can stand on the same base as this one."""
        kind = self.config.peft_type.value
        tokens = "it has tokens of its own" if self.run_file and self.run_file.config.get("new_tokens") else ""
        if why := self.changes_of_base or tokens or (kind != "LORA" and f"peft_type={kind!r}"):
            raise AdapterError(
                f"{self.folder}: cannot share its base with other adapters ({why}). Load it alone, without also."
            )

    def put_on(self, model: Any, base_name: str, name: str = "default", dropout: float | None = None) -> Any:
        """The adapter on its base, also beside others.

        Args:
            model: The base model, or a peft model with other adapters.
            base_name: What the base is called, for messages.
            name: What peft calls the adapter.
            dropout: The matrices are to train on, with this dropout; None: nothing trains.

        Returns:
            A peft model in evaluation mode.

        Raises:
            AdapterError: keys or shapes do not fit this base; the message names the first ones.
        """
        from peft import set_peft_model_state_dict

        wrapped = self.wrap(model, base_name, name=name, dropout=dropout)
        set_peft_model_state_dict(wrapped, dict(self.tensors), adapter_name=name)
        return wrapped.eval()

    def wrap(
        self, model: Any, base_name: str, meta: bool = False, name: str = "default", dropout: float | None = None
    ) -> Any:
        """The peft model that it fits on, its matrices not set yet.

        Args:
            model: The base model.
            base_name: What the base is called, for messages.
            meta: The base has shapes only, and so shall the matrices.
            name: What peft calls the adapter.
            dropout: The matrices are to train on, with this dropout.

        Raises:
            AdapterError: keys or shapes do not fit this base, or are not what the run wrote.
        """
        from peft import PeftModel, get_peft_model_state_dict

        tensors, config = self.tensors, deepcopy(self.config)  # peft writes into it
        try:
            config.inference_mode = dropout is None
            if dropout is not None:
                config.lora_dropout = dropout
            with quiet_peft():
                if isinstance(model, PeftModel):
                    if rows_for(ids_of(config), rows_of(model)) > rows_of(model):
                        raise ValueError("it trains tokens that the base lacks; load it alone, without others")
                    model.add_adapter(name, config)
                    wrapped = model
                else:
                    make_room(model, ids_of(config))
                    wrapped = PeftModel(model, config, adapter_name=name, low_cpu_mem_usage=meta)
                ends = False if ids_of(config) else "auto"  # rows are saved, and not the embedding beside them
                expected = get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=ends)
        except (MemoryError, torch.OutOfMemoryError, ImportError):
            raise
        except Exception as error:  # whatever peft meets in values it did not expect
            reason = " ".join(str(error).split())[:300]
            raise AdapterError(f"{self.folder}: {CONFIG} does not fit {base_name!r}: {reason}") from error
        # peft's save_embedding_layers keeps embedding and head whole beside the matrices; loading sets the base's own.
        base = {f"base_model.model.{key}": tensor for key, tensor in wrapped.get_base_model().state_dict().items()}
        whole = {key: base[key] for key in whole_ends(tensors, expected) if key in base}
        for key, own in whole.items():
            if len(own) != len(tensors[key]):
                raise AdapterError(
                    f"{self.folder}: holds {key!r} with {len(tensors[key]):,} rows, and {base_name!r} has "
                    f"{len(own):,}: it was trained on a base with another vocabulary. Give that base the same rows "
                    "with transformers (resize_token_embeddings), merge the adapter into it with peft "
                    "(merge_and_unload), save it, and use that folder."
                )
        problems = _misfits(tensors, expected | whole)
        if problems:
            raise AdapterError(
                f"{self.folder}: does not fit {base_name!r}: {'; '.join(problems)}. It names the base "
                f"{config.base_model_name_or_path!r}."
            )
        self.check_unchanged()
        return wrapped

    def check_unchanged(self) -> None:
        """Raise AdapterError if the adapter is not what its run file describes."""
        if self.run_file is None or self.run_file.adapter is None:
            return
        before, now = self.run_file.adapter, describe_adapter(self.says, self.tensors)
        problems = [
            f"{key} is {now.settings.get(key)!r}, not {value!r}"
            for key, value in before.settings.items()
            if now.settings.get(key) != value
        ]
        old, new = before.tensors, now.tensors
        for what, names in (
            ("missing", old.keys() - new.keys()),
            ("unexpected", new.keys() - old.keys()),
            ("changed", {name for name in old.keys() & new.keys() if old[name] != new[name]}),
        ):
            if names:
                problems.append(f"{counted(len(names), 'tensor')} {what}, first {sorted(names)[:2]}")
        if problems:
            raise AdapterError(
                f"{self.folder}: is not the adapter that was trained here: {'; '.join(problems)}. Copy it again from "
                "where it was made."
            )


def describe_adapter(says: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> AdapterRecord:
    """What an adapter must still be when it is loaded.

    Args:
        says: What adapter_config.json says.
        tensors: The adapter's.
    """
    hashes = {name: sha256_of(tensor) for name, tensor in sorted(tensors.items())}
    return AdapterRecord({key: says[key] for key in sorted(APPLIED & says.keys())}, hashes)


def check_finished(folder: str | Path, run_file: RunFile | None) -> None:
    """Raise AdapterError if a folder holds a run that has not ended; warn if it is a run's checkpoint."""
    if os.path.exists(Path(folder) / MANIFEST) and (is_adapter(folder) or os.path.exists(Path(folder) / "config.json")):
        warnings.warn(
            f"{folder}: is a checkpoint of a run, not what the run was to give; it may be half trained.", stacklevel=3
        )
    elif run_file is not None and run_file.finished is False:
        newest = newest_name(Path(folder) / "checkpoints")
        until = f", or use what is there so far: {Path(folder) / 'checkpoints' / newest}" if newest else ""
        raise AdapterError(
            f"{folder}: holds a run that has not ended, so there is nothing to use yet. Continue it with the same "
            f"command and --resume auto{until}."
        )


def whole_ends(keys: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Keys of an embedding or head that an adapter holds whole, though its config does not say so."""
    found = set(keys) - set(expected)
    return sorted(key for key in found if key.endswith(("embed_tokens.weight", "lm_head.weight")))


def _misfits(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """A phrase for keys that are missing, for those that are unexpected, and for those of another shape."""
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    return [
        f"{counted(len(found), what)}, first {found[:2]}"
        for found, what in (
            (sorted(expected.keys() - tensors.keys()), "missing key"),
            (sorted(tensors.keys() - expected.keys()), "unexpected key"),
            (shapes, "other shape"),
        )
        if found
    ]
