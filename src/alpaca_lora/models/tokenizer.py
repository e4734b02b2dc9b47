"""Tokenizers as their files mean them, whatever class and special tokens those files name.

In: what `resolve_base` gave. Out: a transformers tokenizer. A folder with a SentencePiece model and no tokenizer.json
is where transformers can go wrong without a word: with a class it does not know (`LLaMATokenizer`, which the first
LLaMA conversions wrote) it leaves out the space in front of a text, and without `add_bos_token` it leaves out BOS.
Its ids are therefore compared with those of SentencePiece itself.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..textfiles import read_json_file
from .hub import pretrained

_SPECIALS = ("unk_token", "bos_token", "eos_token")
_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PROBES = ("Below is an instruction.", "Hello", "é 日本\n\nx = 1 # two")


def load_tokenizer(base_model: str) -> Any:
    """The tokenizer of a resolved base model.

    Raises:
        ModelError: it cannot be loaded, or not so that it gives SentencePiece's own ids.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    check_readable(base_model, *_FILES)
    try:
        settings = get_tokenizer_config(**pretrained(base_model))
        # An empty text is no token: transformers would look for it, take <unk> instead, and look for that, forever.
        empty: dict[str, Any] = {name: None for name in (*_SPECIALS, "pad_token") if _text(settings.get(name)) == ""}
        tokenizer = AutoTokenizer.from_pretrained(**pretrained(base_model), trust_remote_code=False, **empty)
        vocabulary = Path(getattr(tokenizer, "vocab_file", None) or "")
        if vocabulary.suffix == ".model" and not vocabulary.with_name("tokenizer.json").exists():
            tokenizer = _from_sentencepiece(tokenizer, base_model, vocabulary, settings)
        tokenizer.decode(tokenizer(_PROBES[0]).input_ids)  # some settings of the wrong kind show when it is used only
        return tokenizer
    except RecursionError as error:
        raise ModelError(
            f"base_model: the tokenizer of {base_model!r} names an unk_token that its vocabulary lacks. Name the right "
            "one (of a LLaMA: <unk>) in its tokenizer_config.json."
        ) from error
    except ModelError:
        raise
    except BaseException as error:  # tokenizers raises Exception itself, and panics, which are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(cannot_load("tokenizer", base_model, error, "tokenizer.json")) from error


def check_pairing(tokenizer: Any, config: Any) -> None:
    """Warn where tokenizer and model config disagree about EOS or BOS, as old LLaMA conversions do.

    Training and generation here use the tokenizer's ids, so the two agree with each other in any case; other runtimes
    may read the config's.

    Raises:
        ModelError: the model has no row for EOS, so that no answer could end.
    """
    rows = getattr(config, "vocab_size", None)
    pad_within(tokenizer, rows)
    for name in ("eos_token_id", "bos_token_id"):
        ours, theirs = getattr(tokenizer, name), getattr(config, name, None)
        allowed = theirs if isinstance(theirs, list) else [theirs]
        if name == "eos_token_id" and ours is not None and rows is not None and ours >= rows:
            known = [f"{tokenizer.convert_ids_to_tokens(id)!r} (id {id})" for id in allowed if id is not None]
            raise ModelError(
                f"eos_token: {tokenizer.eos_token!r} has id {ours}, and the model knows {rows} ids only: "
                "it was added to the tokenizer, not to the model. Set eos_token in tokenizer_config.json to a token "
                f"of the model{', by its config ' + ' or '.join(known) if known else ''}."
            )
        if ours is not None and theirs is not None and ours not in allowed:
            warnings.warn(
                f"{name}: the tokenizer says {ours}, the model's config {theirs}. The tokenizer's is used; "
                "check that tokenizer and model belong together.",
                stacklevel=2,
            )
    bos = tokenizer.bos_token_id
    if bos is None or bos != getattr(config, "bos_token_id", None):
        return
    sentencepiece = tokenizer.convert_tokens_to_ids("<0x0A>") not in (None, tokenizer.unk_token_id)
    if sentencepiece and bos not in tokenizer("x").input_ids:
        warnings.warn(
            f"bos_token: {tokenizer.bos_token!r} is not put in front of prompts (add_bos_token is false). Most models "
            "with a SentencePiece vocabulary were trained with it, and answer worse without. Set add_bos_token to true "
            "in tokenizer_config.json, unless this model's makers left it out.",
            stacklevel=2,
        )


def pad_within(tokenizer: Any, rows: int | None) -> None:
    """Have EOS pad where the tokenizer's own pad token has no row in the model: any batch would end in an index error.

    Padding is masked, so which token stands there changes nothing.
    """
    pad = tokenizer.pad_token_id
    if rows is None or pad is None or pad < rows:
        return
    warnings.warn(
        f"pad_token: {tokenizer.pad_token!r} has id {pad}, and the model knows {rows} ids only: it was added to the "
        "tokenizer, not to the model. EOS pads instead.",
        stacklevel=3,
    )
    tokenizer.pad_token = tokenizer.eos_token


def check_readable(base_model: str, *names: str) -> None:
    """Raise ModelError where a folder has one of these files and it holds no JSON object; hub models pass."""
    for name in names:
        path = Path(base_model) / name
        if os.path.lexists(path):
            read_json_file(path, ModelError, "Copy the model again.")


def cannot_load(what: str, base_model: str, error: BaseException, file: str) -> str:
    """What a user is told where transformers cannot load something, most likely for what `file` says."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if "trust_remote_code" in str(error):
        return (
            f"base_model: {base_model!r} comes with code of its own, which is never run here. Name a model that "
            "transformers knows, such as a LLaMA."
        )
    if os.path.exists(Path(base_model) / file):
        return f"{Path(base_model) / file}: transformers cannot use it: {reason.rstrip('.')}. Copy the model again."
    if os.path.isdir(base_model):
        lacking = f"{base_model}: has no {file}, and the {what} cannot be loaded"
        return f"{lacking}: {reason.rstrip('.')}. Copy the folder again."
    found = "" if os.path.exists(base_model) else " (no such folder here, so it was taken for a hub id)"
    return (
        f"base_model: cannot load the {what} of {base_model!r}{found}: {reason} "
        "Give a folder with safetensors weights, a hub id you can reach, or 'demo'."
    )


def _from_sentencepiece(tokenizer: Any, base_model: str, vocabulary: Path, settings: dict[str, Any]) -> Any:
    """The tokenizer, made anew where SentencePiece gives other ids or the settings leave something out."""
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaTokenizer

    try:
        model = SentencePieceProcessor(model_file=str(vocabulary))
    except RuntimeError:
        return tokenizer  # another program's file of the same name
    missing: dict[str, Any] = {}
    for name, id in zip(_SPECIALS, (model.unk_id(), model.bos_id(), model.eos_id()), strict=True):
        if not _text(settings.get(name)) and id >= 0:
            missing[name] = model.id_to_piece(id)
    missing |= {} if "add_bos_token" in settings else {"add_bos_token": True}  # the default of LLaMA's own tokenizer
    probes = [model.encode(probe) for probe in _PROBES]

    def agrees(candidate: Any) -> bool:
        return [candidate(probe, add_special_tokens=False).input_ids for probe in _PROBES] == probes

    if agrees(tokenizer) and not missing:
        return tokenizer
    if agrees(made := LlamaTokenizer.from_pretrained(**pretrained(base_model), **missing)):
        return made
    if agrees(tokenizer):
        return tokenizer
    raise ModelError(
        f"base_model: {type(tokenizer).__name__} gives other ids for {vocabulary.name} of {base_model!r} than "
        "SentencePiece does, so the model would not see what it was trained on. Put its tokenizer.json beside it, or "
        "name the right tokenizer_class in tokenizer_config.json."
    )


def _text(token: Any) -> str | None:
    """Text of a special token as tokenizer_config.json writes it: a string, or an object with `content`."""
    return token.get("content") if isinstance(token, dict) else token
