"""Bytes to text: UTF-8 only. Anything else is shown in each encoding that fits, with the command that converts.

Nothing is decoded by a guess: bytes of one encoding are readable nonsense in several others, and which reading is right
only a person can tell. charset-normalizer puts the likely ones first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate, islice
from typing import NamedTuple

from ...errors import DataError
from .commands import new_file, quoted
from .compressed import is_compressed
from .rows import path_of

_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_HEAD_BYTES = 1 << 14
_WINDOW_BYTES = 1 << 18
_SHOWN_LINES = 5
_LOOKED_AT = 1_000
_SHOWN_READINGS = 10
_SHOWN_CHARACTERS = 50
# Encodings of files that people have, the usual first: of several that read the same, the first is shown.
_LEGACY = (
    *("cp1252", "latin_1", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "koi8_u", "cp866"),
    *("cp1250", "iso8859_2", "cp852", "cp1254", "cp1253", "cp1255", "cp1256", "cp1258", "cp874", "cp1257"),
    *("mac_roman", "mac_cyrillic", "iso8859_5", "iso8859_6", "cp850"),
)


def decode_text(data: bytes, source: str) -> str:
    """Bytes as text, without the UTF-8 byte-order mark.

    Args:
        data: The whole file.
        source: Its name, for messages.

    Raises:
        DataError: The file is empty, is in UTF-16, UTF-32 or a legacy encoding (with what it may be), or is UTF-8 with
            damaged bytes (with line and offset).
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    head = data[:_HEAD_BYTES]
    if not encoding and (head.count(b"\x00") > len(head) // 8 or (b"\x00" in data and not _is_utf8(data))):
        encoding = _without_mark(data, source)
    if not encoding:
        try:
            text = data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(data, error, source)) from None
        if re.search(r"\x1b\$[@B)(]", text):  # Japanese and Korean mail: all ASCII, so that it passes for UTF-8
            encoding = "iso2022_kr" if "\x1b$)C" in text else "iso2022_jp_2"
    if encoding:
        command = _convert(source, encoding)
        raise DataError(f"{source}: the file is encoded in {encoding.upper()}, not UTF-8. Write it as UTF-8: {command}")
    if not text.strip():
        raise DataError(f"{source}: the file is empty. Write at least one record to it, or name another file.")
    return text


def _without_mark(data: bytes, source: str) -> str:
    """Which UTF-16 or UTF-32 bytes with zeros among them are: the one that makes most ASCII of their beginning."""
    if not data.strip(b"\x00"):
        raise DataError(f"{source}: the file holds only zero bytes, as after a crash. Write or download it again.")
    ascii_in: dict[str, int] = {}
    for encoding in _WIDE:
        text = data[:_HEAD_BYTES].decode(encoding, "replace")
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
    head = data[:_HEAD_BYTES]
    if len(re.findall(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head)) > len(head) // 50:
        return f"{found} This is no text: it holds control characters. Save the records as JSON, JSON Lines or CSV."
    if _is_damaged_utf8(data[max(0, error.start - _WINDOW_BYTES) : error.start + _WINDOW_BYTES]):
        lines = _lines(data, lambda line: not _is_utf8(line))
        return (
            f"{found} The rest of the file is UTF-8; not so {lines}. Correct the text there; or write U+FFFD for each "
            f"such place, which lint finds: {_convert(source, 'utf-8', 'replace')}"
        )
    readings = _readings(data)
    if not readings:
        return f"{found} This is text in no known encoding, or no text. Export it again, as UTF-8."
    errors = "replace" if any(one.damaged for one in readings) else ""
    lines = _lines(data, lambda line: not line.isascii() and _is_utf8(line))
    utf8 = f" Some of it seems to be UTF-8 already, {lines}: convert the rest by itself." if lines else ""
    return "\n".join(
        [
            f"{found} The file is in another encoding.{utf8} What it says, read as each that fits:",
            *map(str, readings),
            "Which one reads right, only you can tell; if none does, export the file again. Write it as UTF-8 with the "
            f"name of the right one in place of ENCODING: {_convert(source, 'ENCODING', errors)}",
        ]
    )


class _Reading(NamedTuple):
    """What a file says in one encoding: a sample, and how many places say nothing in it."""

    name: str
    sample: str
    damaged: int

    def __str__(self) -> str:
        damaged = f"   (unreadable places: {self.damaged:,})" if self.damaged else ""
        return f"  {self.name:12}  {self.sample}{damaged}"


def _readings(data: bytes) -> list[_Reading]:
    """What bytes say in each encoding that fits, likely ones first."""
    from charset_normalizer import from_bytes  # slow to import, and seldom needed

    found_pieces = re.finditer(rb'[^\n",\x80-\xff]{0,50}[\x80-\xff][^\n",]{0,4000}', data)
    pieces = [piece[0] for piece in islice(found_pieces, _LOOKED_AT)]
    sizes = accumulate(map(len, pieces))
    sample = b"\n".join(piece for piece, size in zip(pieces, sizes, strict=True) if size <= _HEAD_BYTES) or pieces[0]
    by_length = sorted(pieces[:100], key=len, reverse=True)  # if bytes of the sample are damaged
    ranked = (from_bytes(one, cp_isolation=list(_LEGACY), threshold=1.0) for one in (sample, *by_length))
    names = [one.encoding for one in next((matches for matches in ranked if len(matches)), ())]
    # Shown is a piece that the likely ones read differently.
    piece = max(pieces[:100], key=lambda one: (len({_shown(one, name) for name in names[:4]}), len(one[:99])))
    found: dict[int, _Reading] = {}  # by the hash of the text, which may be long
    for name in (*names, *_LEGACY):  # short texts mislead it: the usual ones follow
        text = data.decode(name, "replace")
        damaged = text.count("\ufffd")
        if damaged * 20 <= len(text) - len(text.encode("ascii", "ignore")):
            found.setdefault(hash(text), _Reading(name, _shown(piece, name), damaged))
        if len(found) == _SHOWN_READINGS:
            break
    return [*found.values()]


def _shown(piece: bytes, name: str) -> str:
    """What an encoding makes of a piece, from a little before its first character beyond ASCII."""
    text = piece.decode(name, "replace")
    start = re.search(r"[^\x00-\x7f]", text)
    text = text[max(0, (start.start() if start else 0) - 15) :].strip()[:_SHOWN_CHARACTERS]
    return "".join(one if one.isprintable() else "·" for one in text)


def _lines(data: bytes, test: Callable[[bytes], bool]) -> str:
    """The numbers of the lines that pass a test, the first of them: `lines 3, 7`; "" if none does."""
    found = [str(number) for number, line in enumerate(data.split(b"\n"), 1) if test(line)]
    shown = ", ".join(found[:_SHOWN_LINES]) + (", ..." if len(found) > _SHOWN_LINES else "")
    return f"line{'s' * (len(found) > 1)} {shown}" if found else ""


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


def _is_utf8(data: bytes) -> bool:
    """Whether it is UTF-8, in which a zero byte is a character like others."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _convert(source: str, encoding: str, errors: str = "") -> str:
    """The command that writes a file as UTF-8."""
    path = path_of(source)
    how = f"{encoding!r}, {errors!r}" if errors else repr(encoding)
    if is_compressed(path):
        modules, read = (
            "import pyarrow; from pathlib import Path",
            f"pyarrow.input_stream({quoted(path.as_posix())}).read()",
        )
        path = path.with_suffix("")
    else:
        modules, read = "from pathlib import Path", f"Path({quoted(path.as_posix())}).read_bytes()"
    out = quoted(new_file(path, f".utf8{path.suffix}"))
    return f'python -c "{modules}; Path({out}).write_bytes({read}.decode({how}).encode())"'
