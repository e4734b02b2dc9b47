"""Text to token ids and back, for one tokenizer.

Three things make both ways exact:

* Special-token text in data (`</s>` written by a user) is encoded as text, never as the special id.
* A SentencePiece tokenizer puts a space in front of whatever it encodes (`Hello` -> `\u2581Hello`). A response is
  therefore encoded behind an *anchor*, a newline no piece merges with, whose ids are then cut off.
* Decoding puts the anchor back, because such a decoder also strips one leading space.

What a vocabulary has no ids for cannot come back: a SentencePiece model writes a space as U+2581, so a U+2581 in data
becomes a space, and a byte-level one may lack bytes (the demo model's: six control characters, and code points from
U+40000 to U+BFFFF, which Unicode has not assigned).

A template's own special tokens are ids. Its text is told from that of the data by marks: special-token text in data is
replaced by private characters while a template is filled in (`SpecialTexts`), and comes back before it is encoded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ...errors import DataError, ModelError
from ..records.key_values import texts_in

_RARE = "\u2603 \U0001f9ff \u0e01 \u13a0"
_PRIVATE = (0xF0000, 0x100000)  # the first characters of Unicode's two private planes


class SpecialTexts:
    """The texts of a tokenizer's special tokens: hidden in data, found in templates.

    Args:
        texts: The texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = sorted(texts)
        longest_first = sorted(texts, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def hide(self, value: Any, first: int) -> Any:
        """Texts, also inside lists and mappings, with each special text as one private character from `first` on."""
        if isinstance(value, str):
            return self.pattern.sub(lambda found: chr(first + self._numbers[found[0]]), value)
        if isinstance(value, dict):
            return {key: self.hide(inner, first) for key, inner in value.items()}
        return [self.hide(inner, first) for inner in value] if isinstance(value, (list, tuple)) else value

    def show(self, text: str, first: int) -> str:
        """What was hidden, again as text; nothing was if `first` is 0."""
        if not first:
            return text
        end = first + len(self.texts)
        return "".join(self.texts[ord(char) - first] if first <= ord(char) < end else char for char in text)

    def held_by(self, value: Any) -> bool:
        """Whether a special text stands in texts, also inside lists and mappings."""
        return any(self.pattern.search(text) for text in texts_in(value))

    def first_free(self, value: Any) -> int:
        """A private character from which on none stands in texts, also inside lists and mappings.

        Raises:
            DataError: both planes are used.
        """
        used = {char for text in texts_in(value) for char in text if ord(char) >= _PRIVATE[0]}
        for first in _PRIVATE:
            if not any(first <= ord(char) < first + len(self.texts) for char in used):
                return first
        raise DataError("the text holds special tokens beside private characters of both planes. Remove either.")


class TextCodec:
    """Encodes and decodes text, with or without special tokens.

    Args:
        tokenizer: A transformers tokenizer with an EOS token.

    Raises:
        ModelError: the tokenizer has no EOS token, so no answer could ever end; or text does not come back.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no EOS token, so no answer could end; set `eos_token` in its tokenizer_config.json."
            )
        self.tokenizer = tokenizer
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
        tokens = {str(token.content): token for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._strips = {text: (token.lstrip, token.rstrip) for text, token in tokens.items()}
        self.specials = SpecialTexts([text for text in {*tokens, *tokenizer.all_special_tokens} if text])

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

    def marked_ids(self, texts: Sequence[tuple[str, int]]) -> list[list[int]]:
        """Ids of filled-in templates: their special tokens as ids, those hidden as text.

        A tokenizer cuts a text at its special tokens before anything else; so is it done here, piece by piece. A piece
        that stands in many of the texts, as turns of a conversation do, is encoded once.

        Args:
            texts: Each with the character from which on its data hides special tokens, 0 if it does not.
        """
        pieces: dict[tuple[bool, str], list[int]] = {}
        rows: list[list[int | tuple[bool, str]]] = []
        for text, first in texts:
            row: list[int | tuple[bool, str]] = []
            place, before = 0, ""
            for found in [*self.specials.pattern.finditer(text), None]:
                piece = text[place : found.start() if found else len(text)]
                if before and self._strips.get(before, (False, False))[1]:
                    piece = piece.lstrip()
                if found and self._strips.get(found[0], (False, False))[0]:
                    piece = piece.rstrip()
                if piece:
                    key = (bool(before), self.specials.show(piece, first))
                    pieces[key] = []
                    row.append(key)
                if found:
                    row.append(self._special_ids[found[0]])
                    place, before = found.end(), found[0]
            rows.append(row)
        for after_special in (False, True):
            wanted = [piece for after, piece in pieces if after == after_special]
            # Behind a special token some tokenizers put a space in front of a text, some only at the start.
            encode = self._responses if after_special and not self._spaced_after_special else self._ids
            for piece, ids in zip(wanted, encode(wanted) if wanted else [], strict=True):
                pieces[after_special, piece] = ids
        return [[id for part in row for id in ([part] if isinstance(part, int) else pieces[part])] for row in rows]

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        return {text: self.tokenizer.convert_tokens_to_ids(text) for text in self.specials.texts}

    @cached_property
    def _spaced_after_special(self) -> bool:
        special = self.tokenizer.eos_token
        whole = self.tokenizer(f"{special}Hello", add_special_tokens=False).input_ids
        return whole[whole.index(self.eos_id) + 1 :] == self._ids(["Hello"])[0]

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
        if not texts:
            return []
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


def _prefix_ids(tokenizer: Any) -> list[int]:
    """Ids the tokenizer itself puts in front of a text (BOS, for LLaMA)."""
    bare = tokenizer("x", add_special_tokens=False).input_ids
    full = tokenizer("x").input_ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []
