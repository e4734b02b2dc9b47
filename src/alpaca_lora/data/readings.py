"""What bytes that are not UTF-8 say in each legacy encoding, the likeliest first.

Looked at are some kilobytes of texts that are not UTF-8; an encoding is only offered where it fits the whole file.
Where the rest of a file is UTF-8 (`mixed`), only what is not is read otherwise. A file of 40 MB takes a few seconds.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from .legacy import NAMES, WIDE, likelihood, per_letter

# Texts between ASCII marks that are never the second byte of a character, so that none is cut in two.
# A search begins at such a mark only: long texts without bytes of interest are walked once.
_PIECE = re.compile(rb'(?<![^\n",])[^\n",\x80-\xff]*[\x80-\xff][^\n",]*')
# What "surrogateescape" leaves of other encodings in UTF-8: bytes, or where a character is several, such a text.
BYTES, _TEXTS = r"[\udc80-\udcff]+", r"(?<![^\n\x22,])[^\n\x22,\udc80-\udcff]*[\udc80-\udcff][^\n\x22,]*"
_SAMPLE_BYTES = 1 << 14
_SHOWN = 8
_SHOWN_CHARACTERS = 50
_FEW = 3
# A reading is clear where it is e**10 times as likely as any other, and e**0.1 times more for each byte beyond ASCII.
# It is text where its letters are likelier than e**-9 each.
_CLEAR, _CLEAR_A_BYTE, _TEXT = 10.0, 0.1, -9.0


class Reading(NamedTuple):
    """What a file says in one encoding: a sample, how likely it is, and how many places say nothing in it."""

    name: str
    sample: str
    likelihood: float
    damaged: int


def readings_of(data: bytes, mixed: bool) -> tuple[list[Reading], bool]:
    """What bytes say in each encoding that fits, likely ones first, and whether the first is clear.

    Args:
        mixed: The rest is UTF-8: only what is not is read.
    """
    pieces = _pieces(data, utf8=False)
    sample = b"\n".join(pieces)
    texts: dict[str, str] = {}  # text -> encoding
    for name in NAMES:
        texts.setdefault(_read(sample, name, mixed), name)
    ranked = sorted(((likelihood(text), name) for text, name in texts.items()), reverse=True)
    likely = [name for text, name in texts.items() if per_letter(text) > _TEXT]
    names = [name for _, name in ranked if name in likely]
    if not names:
        return [], False
    piece = max(pieces[:100], key=lambda one: (len({_shown(one, name, mixed) for name in names[:4]}), len(one[:99])))
    found: list[Reading] = []
    chances = {name: chance for chance, name in ranked}
    for name in names:
        text = _read(data, name, mixed)
        damaged = text.count("\ufffd")
        if damaged <= max(_FEW, (len(text) - len(text.encode("ascii", "ignore"))) // 100):
            found.append(Reading(name, _shown(piece, name, mixed), chances[name], damaged))
        if len(found) == _SHOWN:
            break
    beyond = len(re.findall(rb"[\x80-\xff]", sample))
    margin = found[0].likelihood - found[1].likelihood if len(found) > 1 else math.inf
    return found, margin >= max(_CLEAR, _CLEAR_A_BYTE * beyond)


def _pieces(data: bytes, utf8: bool) -> list[bytes]:
    """Pieces of text that hold bytes beyond ASCII and are UTF-8, or are not: the first of them, some kilobytes."""
    pieces: list[bytes] = []
    size = 0
    for match in _PIECE.finditer(data):
        if is_utf8(match[0]) == utf8:
            pieces.append(_clipped(match[0]).strip())
            size += len(pieces[-1])
        if size > _SAMPLE_BYTES:
            break
    return pieces


def _clipped(piece: bytes) -> bytes:
    """Of a very long piece, what follows from a word before the first byte that is not UTF-8, or not ASCII."""
    if len(piece) <= _SAMPLE_BYTES:
        return piece
    try:
        piece.decode("utf-8")
        at = next(place for place, byte in enumerate(piece) if byte > 0x7F)
    except UnicodeDecodeError as error:
        at = error.start
    start = piece.rfind(b" ", max(0, at - _SHOWN_CHARACTERS), at) + 1 or at
    return piece[start : start + _SAMPLE_BYTES]


def has_utf8(data: bytes, name: str) -> bool:
    """Whether the pieces that happen to be UTF-8 make more sense so than in another encoding."""
    pieces = b"\n".join(_pieces(data, utf8=True))
    return bool(pieces) and likelihood(pieces.decode()) > likelihood(_read(pieces, name, mixed=False)) + _CLEAR


def _read(data: bytes, name: str, mixed: bool) -> str:
    """Bytes as text, with U+FFFD for what says nothing; where `mixed`, UTF-8 but for what is not."""
    if not mixed:
        return data.decode(name, "replace")
    text = data.decode("utf-8", "surrogateescape").replace("\ufffd", "?")
    return re.sub(
        what_is_not_utf8(name), lambda one: one[0].encode("utf-8", "surrogateescape").decode(name, "replace"), text
    )


def what_is_not_utf8(name: str) -> str:
    """The pattern of what an encoding is asked for in a file that is UTF-8 otherwise."""
    return _TEXTS if name in WIDE else BYTES


def _shown(piece: bytes, name: str, mixed: bool) -> str:
    """What an encoding makes of a piece, from a little before the first character of interest."""
    start = re.search(r"[\udc80-\udcff]" if mixed else r"[^\x00-\x7f]", piece.decode("utf-8", "surrogateescape"))
    text = _read(piece, name, mixed)[max(0, (start.start() if start else 0) - 15) :][:_SHOWN_CHARACTERS]
    return "".join(one if one.isprintable() else "·" for one in text)


def is_utf8(data: bytes) -> bool:
    """Whether it is UTF-8, in which a zero byte is a character like others."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
