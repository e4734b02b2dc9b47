"""Bytes to text: UTF-8, or an error that shows what the bytes may be and how to convert them.

Nothing is decoded by a guess. The bytes of one encoding are readable nonsense in several others, and where the letters
do not tell (legacy.py), only a person can. So the error shows what each candidate makes of the same bytes, and its
command names an encoding only where every other is far less likely. Places of another encoding in a file of UTF-8 are
read by themselves.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from alpaca_lora.data.listing import path_of
from alpaca_lora.data.wrapped import quoted
from alpaca_lora.errors import DataError

_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# Texts between ASCII marks that are never the second byte of a character, so that none is cut in two.
_PIECE = re.compile(rb'[^\n",]*[\x80-\xff][^\n",]*')
# What "surrogateescape" leaves of other encodings in UTF-8: bytes, or where a character is several, such a text.
_BYTES, _TEXTS = r"[\udc80-\udcff]+", r"[^\n\x22,]*[\udc80-\udcff][^\n\x22,]*"
_SAMPLE_BYTES = 1 << 14
_WINDOW_BYTES = 1 << 18
_SHOWN = 8
_SHOWN_CHARACTERS = 50
_SHOWN_LINES = 5
_FEW = 3
# A reading is clear where it is e**10 times as likely as any other, and e**0.1 times more for each byte beyond ASCII.
# It is text where its letters are likelier than e**-9 each.
_CLEAR, _CLEAR_A_BYTE, _TEXT = 10.0, 0.1, -9.0


class _Reading(NamedTuple):
    """What a file says in one encoding: a sample, how likely it is, and how many places say nothing in it."""

    name: str
    sample: str
    likelihood: float
    damaged: int


def decode_text(data: bytes, source: str) -> str:
    """Bytes as text, without the UTF-8 byte-order mark.

    Args:
        data: The whole file.
        source: Its name, for messages.

    Raises:
        DataError: The file is empty, is in UTF-16, UTF-32 or a legacy encoding (with what it may be), or is UTF-8 with
            damaged bytes (with line and offset).
    """
    wide = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    head = data[:_SAMPLE_BYTES]
    if not wide and (head.count(b"\x00") > len(head) // 8 or (b"\x00" in data and not _is_utf8(data))):
        wide = _without_mark(data, source)
    if wide:
        raise DataError(
            f"{source}: the file is encoded in {wide.upper()}, not UTF-8. Write it as UTF-8: {_convert(source, wide)}"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(data, error, source)) from None
    if re.search(r"\x1b\$[@B)(]", text):  # Japanese and Korean mail: all ASCII, so that it passes for UTF-8
        name = "iso2022_kr" if "\x1b$)C" in text else "iso2022_jp_2"
        raise DataError(
            f"{source}: the file is encoded in {name}, not UTF-8. Write it as UTF-8: {_convert(source, name)}"
        )
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{source}: the file is empty. Write at least one record to it, or name another file.")
    return text


def _is_utf8(data: bytes) -> bool:
    """Whether it is UTF-8, in which a zero byte is a character like others."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _without_mark(data: bytes, source: str) -> str:
    """Which UTF-16 or UTF-32 bytes with zeros among them are: the one that makes most ASCII of their beginning."""
    if not data.strip(b"\x00"):
        raise DataError(f"{source}: the file holds only zero bytes, as after a crash. Write or download it again.")
    ascii_in: dict[str, int] = {}
    for encoding in _WIDE:
        text = data[:_SAMPLE_BYTES].decode(encoding, "replace")
        if "\x00" not in text and text.count("\ufffd") <= 1:  # the beginning may end inside a character
            ascii_in[encoding] = sum(character < "\x7f" for character in text)
    if not ascii_in or not max(ascii_in.values()):
        raise DataError(f"{source}: this is no text: it holds zero bytes. Save the records as JSON, JSON Lines or CSV.")
    return max(ascii_in, key=lambda encoding: ascii_in[encoding])


def _not_utf8(data: bytes, error: UnicodeDecodeError, source: str) -> str:
    line = data.count(b"\n", 0, error.start) + 1
    in_line = error.start - data.rfind(b"\n", 0, error.start)
    where = f"{source}, line {line}, byte {in_line}"
    found = f"{where}: 0x{data[error.start]:02x} is not valid UTF-8 (file offset {error.start})."
    cut = error.end == len(data) and error.reason == "unexpected end of data"
    if cut and (error.end - error.start > 1 or not data[: error.start].isascii()):
        return f"{where}: the file ends inside a character; it seems to be cut short. Write or download it again."
    head = data[:_SAMPLE_BYTES]
    if len(re.findall(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head)) > len(head) // 50:
        return f"{found} This is no text: it holds control characters. Save the records as JSON, JSON Lines or CSV."
    mixed = _is_damaged_utf8(data[max(0, error.start - _WINDOW_BYTES) : error.start + _WINDOW_BYTES])
    readings, clear = _readings(data, mixed)
    if readings and not mixed and _has_utf8(data, readings[0].name):
        mixed = True
        readings, clear = _readings(data, mixed)
    damaged = f"or write U+FFFD for each such place, which lint finds: {_convert(source, 'utf-8', 'replace')}"
    if mixed:
        text = data.decode("utf-8", "surrogateescape")
        lines = [number for number, one in enumerate(text.split("\n"), 1) if re.search(_BYTES, one)]
        shown = ", ".join(map(str, lines[:_SHOWN_LINES])) + (", ..." if len(lines) > _SHOWN_LINES else "")
        found += f" The rest of the file is UTF-8; not so {'line' if len(lines) == 1 else 'lines'}: {shown}."
        if not readings:
            return f"{found} Correct the text there; {damaged}"
        found += " What is there, read as each encoding that fits:"
    elif not readings:
        return f"{found} This is text in no known encoding, or no text. Export it again, as UTF-8."
    else:
        found += " The file is in another encoding. What it says, read as each that fits:"
    best, errors = readings[0].name, "replace" if any(one.damaged for one in readings[: 1 if clear else None]) else ""
    command = _convert(source, best if clear else "ENCODING", errors, _bad(best) if mixed else "")
    choose = (
        f"Take the name of the one that reads right, here {best}, and write the file as UTF-8: {command}"
        if clear
        else "Which one reads right, only you can tell; where none does, export the file again. Write it as UTF-8 with "
        f"the name of the right one in place of ENCODING: {command}"
    )
    none = f"\nWhere none reads right, correct the text; {damaged}" if mixed else ""
    return "\n".join([found, *map(_line, readings), choose]) + none


def _line(reading: _Reading) -> str:
    from alpaca_lora.data.legacy import NAMES

    damaged = f"; unreadable places: {reading.damaged:,}" if reading.damaged else ""
    return f"  {reading.name:12}  {reading.sample}   ({NAMES[reading.name]}{damaged})"


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether more of the text outside ASCII is UTF-8 than is not."""
    good = bad = 0
    for run in re.findall(rb"[\x80-\xff]+", data):
        text = run.decode("utf-8", "replace")
        damaged = text.count("\ufffd")
        # Two bytes of another encoding beside damaged ones are UTF-8 by chance; three seldom are.
        good += sum(character != "\ufffd" and (not damaged or character > "\u07ff") for character in text)
        bad += damaged
    return good > bad


def _readings(data: bytes, mixed: bool) -> tuple[list[_Reading], bool]:
    """What bytes say in each encoding that fits, likely ones first, and whether the first is clear.

    Args:
        mixed: The rest is UTF-8: only what is not is read.
    """
    from alpaca_lora.data.legacy import NAMES, likelihood, per_letter

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
    found: list[_Reading] = []
    chances = {name: chance for chance, name in ranked}
    for name in names:
        text = _read(data, name, mixed)
        damaged = text.count("\ufffd")
        if damaged <= max(_FEW, (len(text) - len(text.encode("ascii", "ignore"))) // 100):
            found.append(_Reading(name, _shown(piece, name, mixed), chances[name], damaged))
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
        if _is_utf8(match[0]) == utf8:
            pieces.append(match[0].strip())
            size += len(pieces[-1])
        if size > _SAMPLE_BYTES:
            break
    return pieces


def _has_utf8(data: bytes, name: str) -> bool:
    """Whether the pieces that happen to be UTF-8 make more sense so than in another encoding."""
    from alpaca_lora.data.legacy import likelihood

    pieces = b"\n".join(_pieces(data, utf8=True))
    return bool(pieces) and likelihood(pieces.decode()) > likelihood(_read(pieces, name, mixed=False)) + _CLEAR


def _read(data: bytes, name: str, mixed: bool) -> str:
    """Bytes as text, with U+FFFD for what says nothing; where `mixed`, UTF-8 but for what is not."""
    if not mixed:
        return data.decode(name, "replace")
    text = data.decode("utf-8", "surrogateescape").replace("\ufffd", "?")
    return re.sub(_bad(name), lambda one: one[0].encode("utf-8", "surrogateescape").decode(name, "replace"), text)


def _bad(name: str) -> str:
    """The pattern of what an encoding is asked for in a file that is UTF-8 otherwise."""
    from alpaca_lora.data.legacy import WIDE

    return _TEXTS if name in WIDE else _BYTES


def _shown(piece: bytes, name: str, mixed: bool) -> str:
    """What an encoding makes of a piece, from a little before the first character of interest."""
    start = re.search(r"[\udc80-\udcff]" if mixed else r"[^\x00-\x7f]", piece.decode("utf-8", "surrogateescape"))
    text = _read(piece, name, mixed)[max(0, (start.start() if start else 0) - 15) :][:_SHOWN_CHARACTERS]
    return "".join(one if one.isprintable() else "·" for one in text)


def _convert(source: str, encoding: str, errors: str = "", bad: str = "") -> str:
    """The command that writes a file as UTF-8; of a file that is UTF-8 otherwise, `bad` matches what is not."""
    path = path_of(source)
    out = path.with_name(f"{path.stem}.utf8{path.suffix}")
    read = f"Path({quoted(path.as_posix())}).read_bytes().decode"
    how = f"{encoding!r}, {errors!r}" if errors else repr(encoding)
    modules, text = "", f"{read}({how})"
    if bad:
        mend = f"lambda one: one[0].encode('utf-8', 'surrogateescape').decode({how})"
        modules, text = "import re; ", f"re.sub(r'{bad}', {mend}, {read}('utf-8', 'surrogateescape'))"
    elif encoding == "cp1258":  # in which tone marks are characters of their own
        modules, text = "import unicodedata; ", f"unicodedata.normalize('NFC', {text})"
    return f'python -c "{modules}from pathlib import Path; Path({quoted(out.as_posix())}).write_bytes({text}.encode())"'
