"""How a model is asked: its prompt, its stops, and the name it goes by."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.tokens import Encoder
from ..models.load import load_config, load_tokenizer, resolve_base
from ..prompts import Template
from ..runs.adapter_files import is_adapter
from ..runs.checkpoints import MANIFEST
from ..runs.contract import Contract, read_contract

BASE = "base"
"""Name under which an adapter's base answers without it."""


@dataclass(frozen=True)
class PromptFormat:
    """How an adapter, or a base, is asked: its prompt, and where its answers end."""

    encoder: Encoder
    stop_ids: list[int]
    contract: Contract | None = None
    """What it was trained with; None for a base or another tool's model."""


def warnings_of(prompt_formats: Mapping[str, PromptFormat]) -> list[str]:
    """What the templates warn of, each once."""
    found = [prompt_format.encoder.template.warning for prompt_format in prompt_formats.values()]
    return list(dict.fromkeys(warning for warning in found if warning))


def name_of(path: str | Path) -> str:
    """What a model is called in requests: its folder's name, in letters, digits, `_` and `-`, at most 64."""
    letters = unicodedata.normalize("NFKD", Path(path).name or Path(path).resolve().name)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", letters.encode("ascii", "ignore").decode()).strip("-")[:64]
    return name if name not in ("", BASE, "default") else f"{name or 'the'}-model"


def prompt_format_at(
    path: str | Path, base: str, base_fingerprint: str, prompt_template: str | None, force: bool | None
) -> PromptFormat:
    """How what lies at `path` is asked, checked against what it was trained with; no stops without a contract."""
    contract, adapter = read_contract(path), is_adapter(path)
    if os.path.exists(Path(path) / "tokenizer_config.json"):
        source = str(path) if adapter else base
    elif contract and (Path(path) / MANIFEST).exists():  # a run's checkpoint, which holds no tokenizer
        source = resolve_base(contract.base_model)
    else:
        source = base
    tokenizer = load_tokenizer(source)
    if adapter and contract is None and prompt_template is None:
        warnings.warn(
            f"{path}: has no alpaca_lora.json, so it does not say which prompt it was trained with, nor on which base "
            "and tokenizer: none of it can be checked, and template 'alpaca' is assumed. Name another one with "
            "prompt_template.",
            stacklevel=4,
        )
    template = contract.load_template() if contract and prompt_template is None else None
    encoder = Encoder(tokenizer, template or Template.load(prompt_template or "alpaca"))
    if template is None:
        encoder.check_template()
    if contract:
        config = load_config(base)
        contract.check(encoder, base_fingerprint if adapter else None, path, model_config=config, force=force)
    stops = sorted({*contract.stop_ids, encoder.eos_id}) if contract else []
    return PromptFormat(encoder, stops, contract)


def stop_ids_of(model: Any, encoder: Encoder) -> list[int]:
    """EOS of the tokenizer, and what the model's own generation config stops at."""
    own = model.generation_config.eos_token_id
    return sorted({encoder.eos_id, *(own if isinstance(own, list) else [own] if own is not None else [])})
