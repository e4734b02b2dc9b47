"""Records to token ids: one encoder for training and inference.

    ids         <s> B e l o w ... # R e s p o n s e : \\n | M e o w </s>
                '--------------- prompt_len ----------------'

`ids[:prompt_len]` is exactly what inference feeds the model; everything after it is supervised, and the last id is
always EOS, also where `cutoff_len` cut the response. The boundary is known because prompt and response are encoded
apart; it is never searched for. Three things make that exact:

* Special-token text in data (`</s>` written by a user) is encoded as text, never as the special id.
* A SentencePiece tokenizer puts a space in front of whatever it encodes (`Hello` -> `▁Hello`). The response is
  therefore encoded behind an *anchor*, a newline no piece merges with, whose ids are then cut off.
* Decoding puts the anchor back, because such a decoder also strips one leading space.

What a vocabulary has no ids for cannot come back: a SentencePiece model writes a space as U+2581, so a U+2581 in data
becomes a space, and a byte-level one may lack bytes (the demo model's: six control characters, and code points from
U+40000 to U+BFFFF, which Unicode has not assigned).

Cost: about 1,700 Alpaca records per second on one core; results are cached by fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, ModelError, TemplateError, counted
from ..files import unfinished
from ..prompts import Template
from .records import Record, RecordSet

_BATCH_RECORDS = 1_000
_EVERY = 32
_RARE = "\u2603 \U0001f9ff \u0e01 \u13a0"
# Anything but ASCII, runs of white space, white space at either end, controls: what normalisers squeeze, fold or strip.
_UNUSUAL = re.compile(r"[^\x20-\x7e\n]|\s\s|\A\s|\s\Z")
_LISTS = ("truncated", "too_long", "special_text", "changed_text")
_FORMAT = "tokens-2"  # part of the cache key: change it whenever the same records would give other ids


class Example(NamedTuple):
    """Token ids of one record; `ids[prompt_len:]` is the response and ends in EOS."""

    ids: np.ndarray
    prompt_len: int


@dataclass(frozen=True)
class Examples:
    """Examples laid end to end in one array, so that a million of them are four arrays and no Python objects."""

    ids: np.ndarray
    """int32, shape (total tokens,)."""
    offsets: np.ndarray
    """int64, shape (n + 1,): example i is `ids[offsets[i]:offsets[i + 1]]`."""
    prompt_lens: np.ndarray
    """int32, shape (n,): tokens of each prompt."""
    record_numbers: np.ndarray
    """int32, shape (n,): 1-based number of each example's record in its source."""
    truncated: list[int] = field(default_factory=list)
    """Record numbers whose response was cut to `cutoff_len`."""
    too_long: list[int] = field(default_factory=list)
    """Record numbers dropped because the prompt alone reaches `cutoff_len`."""
    special_text: list[int] = field(default_factory=list)
    """Record numbers that contain the text of a special token (encoded as text)."""
    changed_text: list[int] = field(default_factory=list)
    """Record numbers with text that the tokenizer does not give back as it was."""
    train_on_inputs: bool = False
    """Supervise the prompt too."""

    def __len__(self) -> int:
        return len(self.prompt_lens)

    def __getitem__(self, index: int) -> Example:
        return Example(self.ids[self.offsets[index] : self.offsets[index + 1]], int(self.prompt_lens[index]))

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64, shape (n,): tokens of each example, EOS included."""
        return np.diff(self.offsets)

    @cached_property
    def supervised_from(self) -> np.ndarray:
        """int64, shape (n,): index of the first supervised token. The very first token has nothing to predict it."""
        return np.ones(len(self), np.int64) if self.train_on_inputs else self.prompt_lens.astype(np.int64)

    @cached_property
    def supervised(self) -> np.ndarray:
        """int64, shape (n,): supervised tokens of each example."""
        return self.lengths - self.supervised_from

    @classmethod
    def from_lists(cls, ids: Sequence[Sequence[int]], prompt_lens: Sequence[int], **rest: Any) -> Examples:
        """Lay lists of token ids end to end; records are numbered from 1 unless `record_numbers` is given."""
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        flat = np.concatenate([np.asarray(row, np.int32) for row in ids]) if ids else np.zeros(0, np.int32)
        rest.setdefault("record_numbers", np.arange(1, len(ids) + 1, dtype=np.int32))
        return cls(flat, np.concatenate([[0], np.cumsum(lengths)]), np.asarray(prompt_lens, np.int32), **rest)


class Encoder:
    """Turns prompts and responses into ids, and new ids back into text, for one tokenizer and one template.

    Args:
        tokenizer: A transformers tokenizer with an EOS token.
        template: The prompt template.

    Raises:
        ModelError: the tokenizer has no EOS token, so no answer could ever end.
    """

    def __init__(self, tokenizer: Any, template: Template) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no EOS token, so no answer could end; set `eos_token` in its tokenizer_config.json."
            )
        self.tokenizer, self.template = tokenizer, template
        self.eos_id: int = tokenizer.eos_token_id
        if self.eos_id in self._ids([_RARE])[0]:
            raise ModelError(
                f"eos_token: {tokenizer.eos_token!r} also stands for characters that the vocabulary lacks, so any of "
                "them would end an answer. Set `eos_token` in tokenizer_config.json to the model's own."
            )
        self.prefix_ids = _prefix_ids(tokenizer)
        self.anchor = next((anchor for anchor in ("", "\n") if self._round_trips(anchor)), None)
        if self.anchor is None:
            raise ModelError(
                f"{type(tokenizer).__name__}: text does not survive encoding and decoding, so answers could not be "
                "learned as they are written. Use the tokenizer that belongs to a LLaMA-family model."
            )
        self._anchor_ids = self._ids([self.anchor])[0] if self.anchor else []
        specials = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special_texts = sorted(text for text in specials | set(tokenizer.all_special_tokens) if text)

    def check_template(self) -> None:
        """Refuse a template whose own text holds a special token's.

        Raises:
            TemplateError: it does, and the model would be shown it as plain text.
        """
        literals = self.template.prompt("", "x") + "\n" + self.template.prompt("", "")
        if held := [text for text in self._special_texts if text in literals]:
            raise TemplateError(
                f"prompt_template: {self.template.name!r} holds {held[0]!r}, a special token of this model, which it "
                "would be shown as plain text. Remove it: BOS and EOS are put around each example anyway."
            )

    def comes_back_as(self, record: Record) -> str:
        """What becomes of a record's texts, around the first character that is lost or changed; "" where all come back.

        Example: `'na\u00efve' comes back as 'naive'`.
        """
        for text in record:
            back = self.decode(self.response_ids(text))
            if back != text:
                same = (k for k, (a, b) in enumerate(zip(text, back, strict=False)) if a != b)
                at = next(same, min(len(text), len(back)))
                around = slice(max(at - 10, 0), at + 10)
                return f"{text[around]!r} comes back as {back[around]!r}"
        return ""

    def prompt_ids(self, instruction: str, input: str = "") -> list[int]:
        """Ids of a prompt as the model is fed it, in training and at inference: BOS, where wanted, stands once."""
        return self.text_ids(self.template.prompt(instruction, input))

    def text_ids(self, text: str) -> list[int]:
        """Ids of any text that the model is to go on from.

        Raises:
            DataError: the text holds half of a character.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise DataError("the text holds half of a character (a lone surrogate), which has no ids. Remove it.")
        return self.prefix_ids + self._ids([text])[0]

    def response_ids(self, text: str) -> list[int]:
        """Ids of a response that follows a prompt, without EOS; `decode(response_ids(text)) == text`."""
        return self._responses([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids that follow a prompt. Special tokens are left out; nothing is stripped."""
        return self._decode(ids, self.anchor or "")

    def encode(self, records: RecordSet, cutoff_len: int, *, train_on_inputs: bool = False) -> Examples:
        """Encode every record.

        Args:
            records: The records.
            cutoff_len: Maximum number of tokens per example. The response is cut, EOS keeps its place; a record whose
                prompt leaves no room for one response token and EOS is dropped and listed in `too_long`.
            train_on_inputs: Supervise the prompt too.

        Raises:
            DataError: no record is left.
        """
        rows: list[list[int]] = []
        prompt_lens: list[int] = []
        kept: list[int] = []
        truncated: list[int] = []
        too_long: list[int] = []
        for start in range(0, len(records.records), _BATCH_RECORDS):
            batch = records.records[start : start + _BATCH_RECORDS]
            prompts = self._ids([self.template.prompt(record.instruction, record.input) for record in batch])
            responses = self._responses([record.output for record in batch])
            for number, prompt, response in zip(records.numbers[start:], prompts, responses, strict=False):
                prompt = self.prefix_ids + prompt
                room = cutoff_len - len(prompt) - 1
                if room < 1:
                    too_long.append(number)
                    continue
                if len(response) > room:
                    truncated.append(number)
                rows.append([*prompt, *response[:room], self.eos_id])
                prompt_lens.append(len(prompt))
                kept.append(number)
        if not rows:
            raise DataError(
                f"{records.source}: no record is left: the prompt alone reaches cutoff_len={cutoff_len} in all "
                f"{counted(len(too_long), 'record')}. Raise cutoff_len."
            )
        return Examples.from_lists(
            rows,
            prompt_lens,
            record_numbers=np.asarray(kept, np.int32),
            truncated=truncated,
            too_long=too_long,
            special_text=self._with_special_text(records),
            changed_text=self._with_changed_text(records),
            train_on_inputs=train_on_inputs,
        )

    def encode_cached(
        self, records: RecordSet, cutoff_len: int, *, cache_dir: Path, train_on_inputs: bool = False
    ) -> Examples:
        """`encode`, remembered in `cache_dir` under a hash of records, template, tokenizer and `cutoff_len`.

        A damaged file is made anew; a folder that cannot be written is a warning.
        """
        key = [_FORMAT, records.fingerprint, records.numbers, self.template.sha256, self.fingerprint, cutoff_len]
        path = cache_dir / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.safetensors"
        examples = _read_examples(path, train_on_inputs)
        if examples is None:
            examples = self.encode(records, cutoff_len, train_on_inputs=train_on_inputs)
            try:
                _write_examples(path, examples)
            except OSError as error:
                warnings.warn(f"tokenised records are not cached: {error}", stacklevel=2)
        return examples

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tokenizer's vocabulary, merges, normalisation and special ids.

        Raises:
            ModelError: one of its ids is far beyond the others; tokenizers would write out all between, for minutes.
        """
        tokenizer = self.tokenizer
        count, highest = len(tokenizer), max(tokenizer.get_vocab().values())
        if highest > 2 * count + 1_000_000:
            raise ModelError(
                f"the tokenizer has {count:,} tokens, and one of them has the id {highest:,}: its tokenizer.json is "
                "damaged. Copy it again from where it was made."
            )
        backend = getattr(tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
        parts = [vocabulary, self.prefix_ids, self.eos_id, self.anchor]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text: no special tokens added, none read out of the text."""
        return self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        ).input_ids

    def _responses(self, texts: list[str]) -> list[list[int]]:
        if not self.anchor:
            return self._ids(texts)
        count = len(self._anchor_ids)
        rows = self._ids([self.anchor + text for text in texts])
        for text, row in zip(texts, rows, strict=True):
            if row[:count] != self._anchor_ids:
                raise ModelError(
                    f"{type(self.tokenizer).__name__} joins a newline with the start of {text[:20]!r}, so the response "
                    "cannot be encoded apart from its prompt. Use the tokenizer that belongs to a LLaMA-family model."
                )
        return [row[count:] for row in rows]

    def _decode(self, ids: Sequence[int], anchor: str) -> str:
        anchor_ids = self._ids([anchor])[0] if anchor else []
        text = self.tokenizer.decode([*anchor_ids, *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text[len(anchor) :]

    def _round_trips(self, anchor: str) -> bool:
        """Whether text encoded behind `anchor` comes back unchanged."""
        count = len(self._ids([anchor])[0]) if anchor else 0
        probes = ["Hello", " Hello", "\nHello", "  two", "1", "é\n", "</s>"]
        rows = [row[count:] for row in self._ids([anchor + probe for probe in probes])]
        return [self._decode(row, anchor) for row in rows] == probes

    def _with_special_text(self, records: RecordSet) -> list[int]:
        def has_special(record: Record) -> bool:
            return any(special in text for text in record for special in self._special_texts)

        return [n for n, record in zip(records.numbers, records.records, strict=True) if has_special(record)]

    def _with_changed_text(self, records: RecordSet) -> list[int]:
        """Decodes every text with a character that tokenizers are known to change, and one of `_EVERY` others."""
        found = []
        for index, (number, record) in enumerate(zip(records.numbers, records.records, strict=True)):
            if index % _EVERY == 0 or any(map(_UNUSUAL.search, record)):
                found += [number] if self.comes_back_as(record) else []
        return found


def _prefix_ids(tokenizer: Any) -> list[int]:
    """Ids the tokenizer itself puts in front of a text (BOS, for LLaMA)."""
    bare = tokenizer("x", add_special_tokens=False).input_ids
    full = tokenizer("x").input_ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []


def _read_examples(path: Path, train_on_inputs: bool) -> Examples | None:
    """Examples of a cache file, or None where there is none or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            if file.metadata() != {"sha256": _hash_arrays(arrays)}:
                return None
    except (OSError, SafetensorError):
        return None
    lists = {name: arrays.pop(name).tolist() for name in _LISTS}
    return Examples(**arrays, **lists, train_on_inputs=train_on_inputs)


def _write_examples(path: Path, examples: Examples) -> None:
    """Write atomically: a reader sees the whole file or none, also when two runs start at once."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "ids": examples.ids,
        "offsets": examples.offsets,
        "prompt_lens": examples.prompt_lens,
        "record_numbers": examples.record_numbers,
        **{name: np.asarray(getattr(examples, name), np.int32) for name in _LISTS},
    }
    with unfinished(path, wait=True) as part:
        save_file(arrays, part, metadata={"sha256": _hash_arrays(arrays)})
        os.replace(part, path)


def _hash_arrays(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
