"""Bytes to text: UTF-8, or an error that shows what the bytes may be and how to convert them.

Nothing is decoded by a guess. The bytes of one encoding are readable nonsense in several others, and where the letters
do not tell, only a person can. So the error shows what each candidate makes of the same bytes (readings.py), and its
command names an encoding only where every other is far less likely (legacy.py). Places of another encoding in a file of
UTF-8 are read by themselves.
"""

from __future__ import annotations

import re

from ..errors import DataError
from .legacy import NAMES
from .listing import path_of
from .readings import BYTES, Reading, has_utf8, is_utf8, readings_of, what_is_not_utf8
from .wrapped import quoted

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
    head = data[:_HEAD_BYTES]
    if not wide and (head.count(b"\x00") > len(head) // 8 or (b"\x00" in data and not is_utf8(data))):
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
    mixed = _is_damaged_utf8(data[max(0, error.start - _WINDOW_BYTES) : error.start + _WINDOW_BYTES])
    readings, clear = readings_of(data, mixed)
    if readings and not mixed and has_utf8(data, readings[0].name):
        mixed = True
        readings, clear = readings_of(data, mixed)
    damaged = f"or write U+FFFD for each such place, which lint finds: {_convert(source, 'utf-8', 'replace')}"
    if mixed:
        text = data.decode("utf-8", "surrogateescape")
        lines = [number for number, one in enumerate(text.split("\n"), 1) if re.search(BYTES, one)]
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
    command = _convert(source, best if clear else "ENCODING", errors, what_is_not_utf8(best) if mixed else "")
    choose = (
        f"Take the name of the one that reads right, here {best}, and write the file as UTF-8: {command}"
        if clear
        else "Which one reads right, only you can tell; where none does, export the file again. Write it as UTF-8 with "
        f"the name of the right one in place of ENCODING: {command}"
    )
    none = f"\nWhere none reads right, correct the text; {damaged}" if mixed else ""
    return "\n".join([found, *map(_line, readings), choose]) + none


def _line(reading: Reading) -> str:
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
