"""Bytes to text: UTF-8, or an error that shows what the bytes may be and how to convert them.

Nothing is decoded by a guess. The bytes of one encoding are readable nonsense in several others, and only a person can
tell which is meant: so the error shows what each candidate makes of the same bytes.
"""

from __future__ import annotations

import re

from alpaca_lora.data.listing import path_of
from alpaca_lora.errors import DataError

_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# Legacy encodings still met, the more usual first: that decides where the bytes do not.
_LEGACY = (
    *("cp1252", "gb18030", "cp1251", "cp932", "cp949", "big5", "mac_roman", "koi8_r", "cp1250", "euc_jp"),
    *("cp1254", "cp1253", "cp1256", "cp1255", "cp874", "latin_1"),
)
_KNOWN_AS = {
    "cp1252": "Western Europe, Windows",
    "gb18030": "Chinese, GBK and GB2312 too",
    "cp1251": "Cyrillic, Windows",
    "cp932": "Japanese, Shift-JIS",
    "cp949": "Korean, EUC-KR too",
    "big5": "traditional Chinese",
    "mac_roman": "Western Europe, old Macs",
    "koi8_r": "Russian, Unix",
    "cp1250": "Central Europe, Windows",
    "euc_jp": "Japanese, Unix",
    "cp1254": "Turkish",
    "cp1253": "Greek",
    "cp1256": "Arabic",
    "cp1255": "Hebrew",
    "cp874": "Thai",
    "latin_1": "Western Europe, ISO 8859-1",
}
# Texts between ASCII marks that are never the second byte of a character, so that none is cut in two.
_PIECE = re.compile(rb'[^\n",]*[\x80-\xff][^\n",]*')
_SAMPLE_BYTES = 1 << 14
_WINDOW_BYTES = 1 << 18
_SHOWN = 6
_SHOWN_CHARACTERS = 50
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
    if error.end == len(data) and error.reason == "unexpected end of data":
        return f"{where}: the file ends inside a character; it seems to be cut short. Write or download it again."
    if _is_damaged_utf8(data[max(0, error.start - _WINDOW_BYTES) : error.start + _WINDOW_BYTES]):
        text = data.decode("utf-8", "replace")
        bad = [number for number, one in enumerate(text.split("\n"), 1) if "\ufffd" in one]
        shown = ", ".join(map(str, bad[:_SHOWN_LINES])) + (", ..." if len(bad) > _SHOWN_LINES else "")
        return (
            f"{found} The rest of the file is UTF-8; damaged {'line' if len(bad) == 1 else 'lines'}: {shown}. Correct "
            f"the text there; or write U+FFFD for each damaged place, which lint finds: "
            f"{_convert(source, 'utf-8', 'replace')}"
        )
    read_as = _candidates(data)
    if not read_as:
        return f"{found} This is text in no known encoding, or no text. Export it again, as UTF-8."
    shown = "\n".join(f"  {name:9}  {sample}   ({_KNOWN_AS[name]})" for name, sample in read_as.items())
    return (
        f"{found} The file is in another encoding. What it says, read as each that fits:\n{shown}\n"
        f"Take the name of the one that reads right, here {next(iter(read_as))}, and write the file as UTF-8: "
        f"{_convert(source, next(iter(read_as)))}"
    )


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


def _candidates(data: bytes) -> dict[str, str]:
    """Encodings in which all of the bytes are text, likely ones first, with what they make of the same few bytes."""
    import charset_normalizer

    pieces: list[bytes] = []
    for match in _PIECE.finditer(data):
        pieces.append(match[0].strip())
        if sum(map(len, pieces)) > _SAMPLE_BYTES:
            break
    matches = charset_normalizer.from_bytes(
        b"\n".join(pieces), cp_isolation=list(_LEGACY), threshold=0.5, enable_fallback=False
    )
    # How unlike a text it is, in tenths, and then how unlike a language: a short text is the like of many.
    rank = {
        name: (round(match.chaos, 1), -round(match.coherence, 1), _LEGACY.index(name))
        for match in reversed(list(matches))
        for name in match.could_be_from_charset
        if name in _LEGACY
    }
    example = max(pieces[:100], key=lambda piece: len(re.findall(rb"[\x80-\xff]", piece[:100])))
    start = next(place for place, byte in enumerate(example) if byte > 0x7F)
    found: dict[str, str] = {}
    for name in sorted(rank, key=lambda name: rank[name]):
        try:
            data.decode(name)
        except UnicodeDecodeError:
            continue
        text = example[:start].decode("ascii")[-15:] + example[start:].decode(name, "replace")
        sample = "".join(one if one.isprintable() else "·" for one in text[:_SHOWN_CHARACTERS])
        if sample not in found.values():
            found[name] = sample
        if len(found) == _SHOWN:
            break
    return found


def _convert(source: str, encoding: str, errors: str = "") -> str:
    path = path_of(source)
    how = f"'{encoding}', '{errors}'" if errors else f"'{encoding}'"
    out = path.with_name(f"{path.stem}.utf8{path.suffix}")
    return (
        f'python -c "from pathlib import Path; '
        f'Path({out.as_posix()!r}).write_bytes(Path({path.as_posix()!r}).read_bytes().decode({how}).encode())"'
    )
