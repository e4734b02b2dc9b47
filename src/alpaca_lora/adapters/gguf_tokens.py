"""A tokenizer in a GGUF file's metadata, both of the LLaMA family's kinds, out of tokenizer.json.

SentencePiece       tokens, and scores = -rank of the first merge that makes each: llama.cpp merges by score
byte-level BPE      tokens, merges, and llama.cpp's name of the way text is split before merging
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..data.tokens import Encoder
from ..errors import ModelError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {_LLAMA3: "llama-bpe", _LLAMA3.replace("{1,3}", ""): "qwen2"}
"""Regular expressions that text is split by, and llama.cpp's names of them; they differ in runs of digits."""


def add_tokenizer(writer: Any, encoder: Encoder, rows: int, stop_ids: list[int]) -> str:
    """Add a tokenizer to a file's metadata.

    Args:
        writer: The file's GGUFWriter.
        encoder: The tokenizer.
        rows: Rows of the model's embedding; ids without a token get a name that no text has.
        stop_ids: Generation ends at any of these; the format has places for EOS and two more.

    Returns:
        "llama" for SentencePiece; for a byte-level tokenizer, llama.cpp's name of the way it splits text.

    Raises:
        ModelError: the tokenizer cannot be expressed.
    """
    tokenizer = encoder.tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model, kind = content["model"], _kind(content)
    ids = {**model["vocab"], **{token["content"]: token["id"] for token in content["added_tokens"]}}
    if max(ids.values()) >= rows:
        raise ModelError(f"the tokenizer has ids up to {max(ids.values())}, the model's embedding {rows} rows.")
    if encoder.prefix_ids not in ([], [tokenizer.bos_token_id]):
        raise ModelError(f"the tokenizer puts ids {encoder.prefix_ids} in front of a text; GGUF knows only BOS.")
    tokens, types = [f"[PAD{id}]" for id in range(rows)], [_UNUSED] * rows
    for text, id in ids.items():
        tokens[id] = text
        byte = kind == "llama" and re.fullmatch("<0x[0-9A-F]{2}>", text)
        types[id] = _BYTE if byte else _NORMAL
    for token in content["added_tokens"]:
        types[token["id"]] = _CONTROL if token["special"] else _USER_DEFINED
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    if kind == "llama":
        if tokenizer.unk_token_id is not None:
            types[tokenizer.unk_token_id] = _UNKNOWN
        ranks: dict[str, int] = {}
        for rank, pair in enumerate(pairs):
            ranks.setdefault("".join(pair), rank)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([-float(ranks.get(text, len(pairs))) for text in tokens])
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(kind)
        writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for name in ("bos", "unk", "pad"):
        if (id := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(id)
    writer.add_eos_token_id(encoder.eos_id)
    others = [id for id in stop_ids if id != encoder.eos_id]
    for add, id in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
        add(id)
    writer.add_add_bos_token(bool(encoder.prefix_ids))
    writer.add_add_eos_token(False)
    spaced = tokenizer.convert_ids_to_tokens(tokenizer("x", add_special_tokens=False).input_ids)[0] != "x"
    writer.add_add_space_prefix(spaced)
    return kind


def _kind(content: dict[str, Any]) -> str:
    """How a tokenizer.json splits text, in llama.cpp's words."""
    model, split = content["model"], content["pre_tokenizer"] or {}
    steps = split.get("pretokenizers", [split])
    kinds = [step.get("type") for step in steps]
    if model["type"] == "BPE" and model.get("byte_fallback"):
        return "llama"
    if model["type"] == "BPE" and kinds == ["ByteLevel"] and steps[0]["use_regex"]:
        return "gpt-2"
    if model["type"] == "BPE" and kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if model["type"] == "BPE" and kinds == ["Split", "ByteLevel"]:
        known = _SPLITS.get(steps[0]["pattern"].get("Regex"))
        if known:
            return known
    raise ModelError(
        f"the tokenizer splits text in a way ({model['type']}, {', '.join(map(str, kinds))}) that has no name in GGUF "
        "here. Convert the folder with llama.cpp's convert_hf_to_gguf.py."
    )
