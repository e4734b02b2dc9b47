"""What single tokens stand for, as bytes: a token may be a part of a character, which has no text of its own.

    byte-level    ĠHello   ðŁ        a letter a byte, printable ones for those that are not
    SentencePiece ▁Hello   <0xF0>    U+2581 is a space; bytes where the vocabulary has no piece

The bytes of an answer's tokens, joined, are its text's, so that a token has a place in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..data.tokens import Encoder

_PROBE = " Hello, é\n"
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
# Byte-level vocabularies write other bytes as the characters from U+0100 on.
_BYTES = {chr(byte): bytes([byte]) for byte in _PRINTABLE} | {
    chr(256 + place): bytes([byte]) for place, byte in enumerate(sorted({*range(256)} - {*_PRINTABLE}))
}
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class TokenTexts:
    """Says what a tokenizer's ids stand for.

    Args:
        encoder: Of the tokenizer.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, tokenizer = encoder, encoder.tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {id: str(token.content).encode() for id, token in added.items()}
        self._special = {*tokenizer.all_special_ids, *(id for id, token in added.items() if token.special)}
        probe = encoder.response_ids(_PROBE)
        self._own = next(
            (read for read in (self._byte_level, self._piece) if b"".join(map(read, probe)) == _PROBE.encode()),
            self._decoded,
        )

    def in_bytes(self, id: int) -> bytes:
        """The bytes of a token; of a special one those of its name."""
        if (own := self._added.get(id)) is not None:
            return own
        return self._own(id)

    def shown(self, id: int) -> bytes:
        """What a token adds to a text in which special ones are not shown."""
        return b"" if id in self._special else self.in_bytes(id)

    def name(self, id: int) -> str:
        r"""The text of a token, as OpenAI writes it: `bytes:\xf0\x9f` for a part of a character."""
        own = self.in_bytes(id)
        try:
            return own.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)

    def whole(self, ids: Sequence[int]) -> str:
        """The text of a prompt, which begins nothing but a text; special tokens are not shown."""
        return self._encoder.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _in_vocabulary(self, id: int) -> str:
        return self._encoder.tokenizer.convert_ids_to_tokens(id) or ""

    def _byte_level(self, id: int) -> bytes:
        return b"".join(_BYTES.get(letter, letter.encode()) for letter in self._in_vocabulary(id))

    def _piece(self, id: int) -> bytes:
        piece = self._in_vocabulary(id)
        if found := _BYTE.fullmatch(piece):
            return bytes([int(found[1], 16)])
        return piece.replace("\u2581", " ").encode()

    def _decoded(self, id: int) -> bytes:
        return self._encoder.decode([id]).encode()
