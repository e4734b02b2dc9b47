"""How a model is asked: its prompt, its stops, and the name it goes by."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.columns import CALLED
from ..data.tokens import Encoder
from ..errors import DataError, did_you_mean
from ..models.fingerprint import CERTIFICATE, RUN_FILE
from ..models.load import load_config, load_tokenizer, resolve_base
from ..prompts import Template
from ..runs.adapter_files import is_adapter
from ..runs.checkpoints import MANIFEST
from ..runs.contract import Contract, read_contract

BASE = "base"
"""Name under which an adapter's base answers without it."""

Question = str | Sequence[str | None] | Mapping[str, Any]
"""An instruction; or it and its input, as a pair or as a record."""

_ACCEPTED = "a text, a pair (instruction, input), or a mapping with `instruction` (and `input`)"
_INPUTS = {name.casefold() for name in CALLED["input"]}


@dataclass(frozen=True)
class PromptFormat:
    """How an adapter, or a base, is asked: its prompt, and where its answers end."""

    encoder: Encoder
    stop_ids: list[int]
    contract: Contract | None = None
    """What it was trained with; None for a base or another tool's model."""


def question_of(given: Question, input: str = "", where: str = "instruction") -> tuple[str, str]:
    """Instruction and input of one question.

    Args:
        given: A text, a pair, or a mapping, of which other keys are not read; None as input is "".
        input: The input of a text.
        where: What a message calls it.

    Raises:
        DataError: it is anything else, has two inputs, or its input stands under another key.

    Example:
        >>> question_of({"instruction": "Add.", "input": "2, 3"}), question_of("Add.")
        (('Add.', '2, 3'), ('Add.', ''))
    """
    parts: Sequence[Any] = ()
    if isinstance(given, str):
        parts = (given, input)
    elif input:
        raise DataError(f"{where}: {given!r:.80} cannot have an input beside it; give {_ACCEPTED}.")
    elif isinstance(given, tuple | list):
        parts = given
    elif isinstance(given, Mapping) and ("input" in given or not any(map(_is_input, given))):
        parts = (given.get("instruction"), given.get("input"))
    if len(parts) == 2:
        texts = parts[0], "" if parts[1] is None else parts[1]
        if all(isinstance(text, str) for text in texts):
            return texts
    shown = (given, input) if input else given
    raise DataError(f"{where}: {shown!r:.80} cannot be asked; give {_ACCEPTED}.")


def questions_of(given: Iterable[Question]) -> list[tuple[str, str]]:
    """Instructions and inputs of many questions.

    Raises:
        DataError: it is no list, or one in it cannot be read; its number, from 1, is named.
    """
    if isinstance(given, str | bytes) or hasattr(given, "keys") or not isinstance(given, Iterable):
        raise DataError(f"instructions: {given!r:.80} is no list; give a list, each of it {_ACCEPTED}.")
    return [question_of(one, where=f"instruction {number}") for number, one in enumerate(given, start=1)]


def _is_input(key: object) -> bool:
    return str(key).casefold() in _INPUTS or bool(did_you_mean(str(key), ["input"]))


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
    merged = os.path.exists(Path(path) / CERTIFICATE)
    if (adapter or merged) and contract is None and prompt_template is None:
        again = f" Copy {RUN_FILE} again from where `merge` wrote it, or name the template with prompt_template."
        warnings.warn(
            f"{path}: has no {RUN_FILE}, so it does not say which prompt it was trained with, nor on which base "
            "and tokenizer: none of it can be checked, and template 'alpaca' is assumed."
            + (again if merged else " Name another one with prompt_template."),
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
