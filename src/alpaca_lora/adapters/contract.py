"""The contract: what an adapter was trained with, so that it is used the same way wherever it goes.

Kept in `alpaca_lora.json` beside the weights, with what else is worth knowing about the run:

    {"finished": true, "contract": {...}, "config": {...}, "versions": {...}, "data": {...}, "seed": 42, "metrics": {}}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..data.tokens import Encoder
from ..errors import AdapterError
from ..prompts import Template
from ..training.checkpoint import versions
from ..training.files import write_atomically

NAME = "alpaca_lora.json"


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

    def __post_init__(self) -> None:
        """A contract is read from a file that anyone may have edited."""
        texts = {"base_model", "base_fingerprint", "tokenizer_fingerprint"}
        for name, value in self.__dict__.items():
            if name in texts:
                right = isinstance(value, str)
            elif name == "template":
                right = isinstance(value, dict)
            elif name in ("prefix_ids", "stop_ids"):
                right = isinstance(value, list) and all(isinstance(entry, int) for entry in value)
            else:
                right = isinstance(value, int) or (value is None and name == "pad_id")
            if not right:
                raise TypeError(f"{name} is {value!r}")

    @classmethod
    def of(cls, encoder: Encoder, base_model: str, base_fingerprint: str) -> Contract:
        """The contract of a run that trains on what `encoder` encodes."""
        return cls(
            base_model=base_model,
            base_fingerprint=base_fingerprint,
            template=encoder.template.to_dict(),
            tokenizer_fingerprint=encoder.fingerprint,
            prefix_ids=encoder.prefix_ids,
            eos_id=encoder.eos_id,
            stop_ids=[encoder.eos_id],
            pad_id=encoder.tokenizer.pad_token_id,
        )

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise AdapterError where the tokenizer at hand is not the one trained with."""
        if encoder.fingerprint != self.tokenizer_fingerprint:
            raise AdapterError(
                f"the tokenizer is not the one this adapter was trained with (base {self.base_model!r}): its "
                "vocabulary or special ids differ. Use the tokenizer files saved beside the adapter."
            )

    def check_base(self, fingerprint: str, folder: str | Path) -> None:
        """Raise AdapterError where the base at hand is not the one trained on."""
        if fingerprint != self.base_fingerprint:
            raise AdapterError(
                f"{folder}: this adapter was trained on another base: it wants {self.base_model!r} "
                f"(fingerprint {self.base_fingerprint[:12]}), not one with fingerprint {fingerprint[:12]}."
            )

    def load_template(self) -> Template:
        """The template trained with."""
        return Template.from_dict(self.template, self.template.get("name", "contract"))


def read_run_file(folder: str | Path) -> dict[str, Any] | None:
    """What a folder's alpaca_lora.json says; None where it was made by another tool and has none.

    Raises:
        AdapterError: it is damaged.
    """
    path = Path(folder) / NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {**content}
    except (ValueError, TypeError) as error:
        raise AdapterError(f"{path}: damaged: {error!r}. Copy the folder again from where it was made.") from error


def read_contract(folder: str | Path) -> Contract | None:
    """The contract of a folder; None where it was made by another tool and has none.

    Raises:
        AdapterError: alpaca_lora.json is damaged.
    """
    path = Path(folder) / NAME
    content = read_run_file(folder)
    if content is None:
        return None
    try:
        values = content["contract"]
        return Contract(**{field.name: values[field.name] for field in fields(Contract)})
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path}: damaged: {error!r}. Copy the folder again from where it was made.") from error


def write_run_file(folder: str | Path, contract: Contract, **rest: Any) -> None:
    """Write alpaca_lora.json, whole or not at all: the contract, package versions, and `rest`."""
    content = {**rest, "contract": asdict(contract), "versions": versions()}
    write_atomically(Path(folder) / NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
