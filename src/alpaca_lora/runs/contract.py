"""The contract: what an adapter was trained with, so that it is used the same way wherever it goes.

Kept in `alpaca_lora.json` beside the weights, with what else is worth knowing about the run:

    {"finished": true, "contract": {...}, "contract_sha256": "...", "config": {...}, "versions": {...}, "data": {...},
     "seed": 42, "metrics": {},
     "parent": {"path": "runs/first", "sha256": "...", "data": "...", "parent": null}}    where there is one
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..data.tokens import Encoder
from ..errors import AdapterError, AlpacaLoraError
from ..files import sha256_of_json, write_atomically
from ..models.fingerprint import RUN_FILE, computes, differing, same_base
from ..prompts import Template
from ..textfiles import read_json_file
from .checkpoints import MANIFEST
from .identity import fingerprint_of, identity_of
from .versions import versions

NAME = RUN_FILE
_AGAIN = "Copy the folder again from where it was made."


@dataclass(frozen=True)
class Contract:
    """What has to be the same at inference as it was in training."""

    base_model: str
    """As the user named it: a hub id, a folder, or `demo`."""
    base_fingerprint: str
    """`models.fingerprint.fingerprint` of the base."""
    template: dict[str, str]
    """The template's bytes."""
    tokenizer_fingerprint: str
    """`Encoder.fingerprint`."""
    prefix_ids: list[int]
    """Ids in front of every prompt (BOS, for LLaMA)."""
    eos_id: int
    stop_ids: list[int]
    """Generation ends at any of these."""
    pad_id: int | None
    model_config: dict[str, Any] | None = None
    """What the base's config.json computes; None in runs of earlier versions."""

    def __post_init__(self) -> None:
        """A contract is read from a file that anyone may have edited."""
        texts = {"base_model", "base_fingerprint", "tokenizer_fingerprint"}
        for name, value in self.__dict__.items():
            if name in texts:
                right = isinstance(value, str)
            elif name in ("template", "model_config"):
                right = isinstance(value, dict) or (value is None and name == "model_config")
            elif name in ("prefix_ids", "stop_ids"):
                right = isinstance(value, list) and all(isinstance(entry, int) for entry in value)
            else:
                right = isinstance(value, int) or (value is None and name == "pad_id")
            if not right:
                raise TypeError(f"{name} is {value!r}")

    @classmethod
    def of(cls, encoder: Encoder, base_model: str, base_fingerprint: str, model_config: Any = None) -> Contract:
        """The contract of a run that trains on what `encoder` encodes; `model_config` is what `load_config` gave."""
        return cls(
            base_model=base_model,
            base_fingerprint=base_fingerprint,
            template=encoder.template.to_dict(),
            tokenizer_fingerprint=encoder.fingerprint,
            prefix_ids=encoder.prefix_ids,
            eos_id=encoder.eos_id,
            stop_ids=[encoder.eos_id],
            pad_id=encoder.tokenizer.pad_token_id,
            model_config=None if model_config is None else computes(model_config),
        )

    def mismatches(self, encoder: Encoder, base_fingerprint: str | None = None, model_config: Any = None) -> list[str]:
        """A sentence for everything at hand that is not what was trained with.

        Args:
            encoder: The tokenizer and the template that are to be used.
            base_fingerprint: Fingerprint of the base to be used; None for a whole model.
            model_config: Config of the model to be used, from `load_config`; None if it is not checked.
        """
        found = []
        template = self.load_template()
        if encoder.template.sha256 != template.sha256:
            found.append(
                f"the template {encoder.template.name!r} is not the one trained with, {template.name!r}. Leave "
                "prompt_template out to use that."
            )
        if encoder.fingerprint != self.tokenizer_fingerprint:
            found.append(
                f"the tokenizer is not the one trained with (base {self.base_model!r}): its vocabulary or special ids "
                "differ. Use the tokenizer files saved beside the adapter."
            )
        for what, now, then in (
            ("the ids in front of a prompt (BOS)", encoder.prefix_ids, self.prefix_ids),
            ("EOS", encoder.eos_id, self.eos_id),
        ):
            if now != then:
                found.append(f"{what}: {now} here, {then} in training.")
        if encoder.eos_id not in self.stop_ids:
            found.append(f"the stop ids {self.stop_ids} lack EOS, {encoder.eos_id}: answers would not end.")
        if base_fingerprint is not None and not same_base(self.base_fingerprint, base_fingerprint):
            alike = base_fingerprint.partition("-")[0] == self.base_fingerprint.partition("-")[0]
            found.append(
                f"the base is not the one trained on, {self.base_model!r}: it looks like it, but some of its weights "
                "have other values. Copy the model again."
                if alike
                else f"this adapter was trained on another base: it wants {self.base_model!r} (fingerprint "
                f"{self.base_fingerprint[:12]}), not one with fingerprint {base_fingerprint[:12]}."
            )
        elif model_config is not None and (other := differing(self.model_config or {}, computes(model_config))):
            whose = "the model's" if base_fingerprint is None else "the base's"
            found.append(
                f"{whose} config.json is not the one trained with: {'; '.join(other[:3])}"
                f"{'; ...' if len(other) > 3 else ''}. Copy it again from where it was made."
            )
        return found

    def check(
        self,
        encoder: Encoder,
        base_fingerprint: str | None,
        folder: str | Path,
        *,
        model_config: Any = None,
        force: bool | None = None,
    ) -> list[str]:
        """Refuse what does not match, all of it at once; or warn of it, once.

        Args:
            encoder: The tokenizer and the template that are to be used.
            base_fingerprint: Fingerprint of the base to be used; None for a whole model.
            folder: The adapter's, for messages.
            model_config: Of the model, from `load_config`, where it is to be checked. Not even `force` allows more
                token ids than it knows.
            force: Go on with a warning. None where the caller has no such choice to offer.

        Returns:
            What was gone on with.

        Raises:
            AdapterError: naming every mismatch.
        """
        found = self.mismatches(encoder, base_fingerprint, model_config)
        if found and model_config is not None and (never := self.unknown_ids(encoder, model_config.vocab_size)):
            found, force = [*found, never], None
        settle([f"{folder}: {problem}" for problem in found], force)
        return found

    def unknown_ids(self, encoder: Encoder, vocab_size: int) -> str:
        """Why a tokenizer with more ids than a base knows is never used with it; "" where it has no more."""
        if len(encoder.tokenizer) <= vocab_size:
            return ""
        return (
            f"the tokenizer has {len(encoder.tokenizer)} ids, and the base knows {vocab_size} only; nothing "
            f"uses them together. Use the base it was trained on, {self.base_model!r}."
        )

    def load_template(self) -> Template:
        """The template trained with."""
        return Template.from_dict(self.template, self.template.get("name", "contract"))


def settle(mismatches: list[str], force: bool | None) -> None:
    """Raise AdapterError naming every mismatch, or, where `force` is set, warn of them, once.

    Args:
        mismatches: Sentences.
        force: None where nothing can be forced, so that the error does not offer it.
    """
    if not mismatches:
        return
    one = len(mismatches) == 1
    listed = mismatches[0] if one else "\n  - ".join([f"{len(mismatches)} mismatches:", *mismatches])
    if not force:
        way_out = "" if force is None else f"{' ' if one else chr(10)}--force (force=True) goes on all the same."
        raise AdapterError(listed + way_out)
    warnings.warn(f"going on, as force says: {listed}", stacklevel=4)


def read_run_file(folder: str | Path) -> dict[str, Any] | None:
    """What a folder's alpaca_lora.json says; None where it was made by another tool and has none.

    Raises:
        AdapterError: it is damaged, or its contract is not the one that was written.
    """
    path = Path(folder) / NAME
    if not os.path.exists(path):
        return None
    content = read_json_file(path, AdapterError, _AGAIN)
    if "contract_sha256" in content and content["contract_sha256"] != _hash_of(content.get("contract")):
        raise AdapterError(
            f"{path}: damaged: its contract (template, BOS, EOS, stops and the like) was changed after it was written, "
            f"so the model would be asked otherwise than in training. {_AGAIN}"
        )
    return content


@contextmanager
def run_file_in_use(folder: str | Path) -> Iterator[None]:
    """Around what takes a run file's content to be of the kind a run writes.

    Raises:
        AdapterError: it is not.
    """
    try:
        yield
    except AlpacaLoraError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise AdapterError(f"{Path(folder) / NAME}: damaged: {reason}. {_AGAIN}") from error


def _hash_of(contract: Any) -> str:
    """Hash of a contract as a mapping; where the base is may change."""
    known = isinstance(contract, dict)
    return sha256_of_json({key: contract[key] for key in contract if key != "base_model"} if known else contract)


def run_of_checkpoint(folder: str | Path) -> Path | None:
    """The folder of the run that a checkpoint belongs to; None where it is none, or lies elsewhere than in its run."""
    if not os.path.exists(Path(folder) / MANIFEST):
        return None
    checkpoint = Path(folder).resolve()
    run = checkpoint.parent.parent
    if (checkpoint / NAME).exists() or not (run / NAME).exists():
        return None
    try:
        content = read_run_file(run) or {}
        identity = identity_of(
            content["config"], content["data"]["fingerprint"], content["contract"], content.get("parent")
        )
        manifest = read_json_file(checkpoint / MANIFEST, AdapterError)
        return run if manifest["content"]["run"] == fingerprint_of(identity) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # whatever this folder is, it is no checkpoint of that run


def read_contract(folder: str | Path) -> Contract | None:
    """The contract of a folder, or of the run whose checkpoint it is; None where another tool made it.

    Raises:
        AdapterError: alpaca_lora.json is damaged.
    """
    folder = run_of_checkpoint(folder) or folder
    content = read_run_file(folder)
    if content is None:
        return None
    with run_file_in_use(folder):
        values = {"model_config": None, **content["contract"]}
        return Contract(**{field.name: values[field.name] for field in fields(Contract)})


def write_run_file(folder: str | Path, contract: Contract, **rest: Any) -> None:
    """Write alpaca_lora.json, whole or not at all: the contract, package versions, and `rest`."""
    values = asdict(contract)
    content = {**rest, "contract": values, "contract_sha256": _hash_of(values), "versions": versions()}
    write_atomically(Path(folder) / NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
