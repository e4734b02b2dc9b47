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

from ..data.key_names import CALLED
from ..data.tokens import Encoder, encoder_for, user_message
from ..errors import DataError, did_you_mean
from ..models.load import load_config, load_tokenizer, resolve_base
from ..runs.checkpoints import MANIFEST
from ..runs.contract import Contract
from ..runs.run_file import RUN_FILE
from ..runs.whole_model import CERTIFICATE

BASE = "base"
"""Name under which an adapter's base answers without it."""

Question = str | Sequence[str | None] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""An instruction; it and its input, as a pair or as a record; or a conversation's messages."""

_ACCEPTED = (
    "a text, a pair (instruction, input), a mapping with `instruction` (and `input`), or a list of messages with "
    "`role` and `content`"
)
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


def questions_of(given: Iterable[Question]) -> list[Question]:
    """Many questions, each a conversation or a pair of instruction and input.

    Raises:
        DataError: it is no list, or one in it cannot be read; its number, from 1, is named.
    """
    if isinstance(given, str | bytes) or hasattr(given, "keys") or not isinstance(given, Iterable):
        raise DataError(f"instructions: {given!r:.80} is no list; give a list, each of it {_ACCEPTED}.")
    numbered = enumerate(given, start=1)
    return [
        one if is_conversation(one) else question_of(one, where=f"instruction {number}") for number, one in numbered
    ]


def is_conversation(given: Any) -> bool:
    """Whether a question is a list of messages."""
    listed = isinstance(given, (list, tuple)) and bool(given)
    return listed and all(isinstance(one, Mapping) and isinstance(one.get("role"), str) for one in given)


def with_system(system: str, instruction: Question, input: str = "") -> tuple[Question, str]:
    """A question and its input, behind a system text if there is one; they are then a conversation."""
    if not system:
        return instruction, input
    said: Any = instruction if is_conversation(instruction) else [user_message(*question_of(instruction, input))]
    return [{"role": "system", "content": system}, *said], ""


def conversation_of(system: str, earlier: Iterable[tuple[str, str]], asked: str) -> list[dict[str, str]]:
    """Messages of a system text, if there is one, of earlier questions with their answers, and of what is asked now."""
    said = [{"role": "system", "content": system}] if system.strip() else []
    for question, answer in earlier:
        said += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*said, {"role": "user", "content": asked}]


def question_ids(encoder: Encoder, given: Question, input: str = "") -> list[int]:
    """Ids of the prompt of a question.

    Raises:
        DataError: it cannot be read, or the template has no place for it.
    """
    if is_conversation(given):
        if input:
            raise DataError("input: a conversation has no input beside it; write it into the last message.")
        messages: Any = given
        if odd := next((one for one in messages if not isinstance(one.get("content", ""), str | None)), None):
            raise DataError(f"messages: {odd!r:.80} has no text as its content.")
        return encoder.message_ids([{**one, "content": one.get("content") or ""} for one in messages])
    return encoder.prompt_ids(*question_of(given, input))


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


def prompt_format_of(
    path: str | Path,
    contract: Contract | None,
    base: str,
    base_fingerprint: str | None,
    prompt_template: str | None,
    force: bool | None,
) -> PromptFormat:
    """How what lies at `path` is asked, checked against what it was trained with; no stops without a contract.

    Args:
        path: Folder of an adapter or a model.
        contract: Its contract.
        base: What `resolve_base` gave for its base, which is itself for a whole model.
        base_fingerprint: An adapter's base's; None for a whole model.
        prompt_template: Instead of the contract's.
        force: As for `Contract.check`.
    """
    adapter = base_fingerprint is not None
    if os.path.exists(Path(path) / "tokenizer_config.json"):
        source = str(path) if adapter else base
    elif contract and (Path(path) / MANIFEST).exists():  # a run's checkpoint, which holds no tokenizer
        source = resolve_base(contract.pinned_base)
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
            stacklevel=5,
        )
    template = contract.load_template() if contract and prompt_template is None else None
    encoder = encoder_for(tokenizer, template or prompt_template or "alpaca")
    if contract:
        contract.check(encoder, base_fingerprint, path, model_config=load_config(base), force=force)
    stops = sorted({*contract.stop_ids, encoder.eos_id}) if contract else []
    return PromptFormat(encoder, stops, contract)


def stop_ids_of(model: Any, encoder: Encoder) -> list[int]:
    """EOS of the tokenizer, and what the model's own generation config stops at."""
    own = model.generation_config.eos_token_id
    return sorted({encoder.eos_id, *(own if isinstance(own, list) else [own] if own is not None else [])})
