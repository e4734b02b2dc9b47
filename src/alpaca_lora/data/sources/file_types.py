"""Files that hold no records: what a file is instead, and how to get records out of it.

The first sentence of a message says what the file is, the last what to do. Only the beginning of a binary file is
looked at, so that a checkpoint of many gigabytes is not read to be refused.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
from pathlib import Path

from ..columns import TURN_KEYS
from ..record import FIELDS
from .commands import python_command

HEAD_BYTES = 1 << 12

_EXPORT = "Export the records as JSON, JSON Lines, CSV or Parquet, and pass that file."
_UNPACK = "Unpack it first, and pass what was inside."
_AGAIN = "Download the file itself again, and look at what came: on the hub its address has /resolve/, not /blob/."
_WEIGHTS = "Pass it where a model is asked for, and name a file of records here."
_PIXELS = "Name the file with the records; this library reads text only."
# What stands in backquotes is Python, and is shown as a command.
_SHEET = (
    "Save the sheet as CSV UTF-8 in the program that made it. With pandas and openpyxl: "
    "`import pandas; pandas.read_excel(FILE).to_json(OUT, orient='records')`"
)
_TRUSTED = (
    "Loading it runs code, so only for a file you trust: "
    "`import pandas; pandas.DataFrame(pandas.read_pickle(FILE)).to_json(OUT, orient='records')`"
)

# The first bytes of a file, what it is, what to do.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\xfd7zXZ", "the file is compressed (xz)", _UNPACK),
    (b"7z\xbc\xaf", "the file is compressed (7z)", _UNPACK),
    (b"Rar!", "the file is compressed (rar)", _UNPACK),
    (b"version https://git-lfs", "this is a Git LFS pointer, not the data itself", "Run git lfs pull, or download it."),
    (b"\xd0\xcf\x11\xe0", "this is an Excel workbook (.xls) or another old Office document", _SHEET),
    (b"%PDF", "this is a PDF document", _EXPORT),
    (b"SQLite format 3", "this is an SQLite database", _EXPORT),
    (b"ARROW1", "this is a Feather file", "`import pandas; pandas.read_feather(FILE).to_json(OUT, orient='records')`"),
    (b"\xff\xff\xff\xff", "this is an Arrow file of the package datasets",
     "`import datasets; datasets.Dataset.from_file(FILE).to_json(OUT)`"),
    (b"\x93NUMPY", "this is a NumPy array", _EXPORT),
    (b"\x89HDF", "this is an HDF5 file", _EXPORT),
    (b"GGUF", "this is a model (GGUF)", _WEIGHTS),
    (b"\x89PNG", "this is an image (PNG)", _PIXELS),
    (b"\xff\xd8\xff", "this is an image (JPEG)", _PIXELS),
    (b"GIF8", "this is an image (GIF)", _PIXELS),
    (b"RIFF", "this is an image, sound or film (RIFF)", _PIXELS),
    (b"\x7fELF", "this is a program", _PIXELS),
)  # fmt: skip
# What a zip archive is by a name inside it.
_ZIPPED = (
    (r"xl/", "this is an Excel workbook (.xlsx)", _SHEET),
    (r"word/", "this is a Word document (.docx)", _EXPORT),
    (r"ppt/", "this is a PowerPoint file", _EXPORT),
    (r".*data\.pkl$", "this is a PyTorch checkpoint", _WEIGHTS),
    (r".*\.npy$", "this is a file of NumPy arrays (.npz)", _EXPORT),
    (r"content\.xml$", "this is an OpenDocument file (.ods, .odt)", _SHEET),
    (r"", "the file is compressed (zip)", _UNPACK),
)
# How a text begins that is no JSON.
_TEXT = (
    (r"<!doctype html|<(?:html|head|body)\b", "this is a web page, not the file that its address may name", _AGAIN),
    (r"<\?xml|<!doctype", "this is an XML document", _EXPORT),
    (r"#!.*python|(?:from [\w.]+ )?import \w|def \w+\(|\w+ ?= ?[\[{(]",
     "this is Python code", "Let the program write its list: json.dump(records, open('records.json', 'w'))"),
    (r"(?:const|let|var) \w+ ?=|export default|module\.exports",
     "this is JavaScript code", "Let the program write its list: JSON.stringify(records)"),
    (r"\{\\rtf", "this is a rich text document (RTF)", "Save its text in a plain text editor, and pass that file."),
    (r"HTTP/\d", "this is a server's answer with its headers", "Download the file again, and save the body alone."),
    (r"\|.*\|[ \r]*\n\|[ :|-]+\|", "this is a table in Markdown", _EXPORT),
    (r"(?:[^`{}\[\]\n]*\n)*`{3}\w*[ \r]*\n", "this is Markdown, with the records inside a code fence",
     "Save what stands inside the fence as a file of its own."),
    (r"\x1e", "this is a sequence of JSON texts (RFC 7464), each after a record separator",
     "Remove the separators (U+001E): what is left is JSON Lines, if each text stands on one line."),
    (r"(?:---|- ?(?:instruction|conversations|messages)\b|(?:instruction|conversations|messages) ?:)",
     "this is YAML", "`import json, yaml; json.dump(yaml.safe_load(open(FILE, encoding='utf-8')), open(OUT, 'w'), "
     "default=str)`"),
)  # fmt: skip
_ERROR_KEYS = {"error", "errors", "error_message", "detail", "details", "message", "status", "statuscode", "code"}
_SERVER_TEXT_CHARACTERS = 300


def not_a_file(path: Path) -> str:
    """Why a path that is there cannot be opened as a file, or "": a pipe or a device may never end."""
    mode = path.stat().st_mode
    kinds = {"a named pipe": stat.S_ISFIFO, "a device": stat.S_ISCHR, "a disk": stat.S_ISBLK, "a socket": stat.S_ISSOCK}
    kind = next((kind for kind, test in kinds.items() if test(mode)), "")
    return f"this is {kind}, not a file. Write the records to a file first, and pass its path." if kind else ""


def foreign_bytes(head: bytes, path: Path) -> str:
    """What a file is by its first bytes, and what to do about it; "" for text and for Parquet."""
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return "the file is compressed (zip) and damaged. Download it again."
        found = next((what, how) for begin, what, how in _ZIPPED if any(re.match(begin, name) for name in names))
        return _message(*found, path)
    for magic, what, how in _MAGIC:
        if head.startswith(magic):
            return _message(what, how, path)
    if re.match(rb"\x80[\x02-\x05]", head):
        return _message("this is a pickle of Python", _TRUSTED, path)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 28:
        return _message("this is a model's weights (safetensors)", _WEIGHTS, path)
    if head[257:262] == b"ustar":
        return _message("the file is an archive (tar)", _UNPACK, path)
    return ""


def foreign_text(text: str, path: Path) -> str:
    """What a text is that holds no records, and what to do about it, or ""."""
    begin = text[:HEAD_BYTES].lstrip(" \t\r\n")
    if begin.startswith("{") and not begin.startswith("{\\rtf"):
        return _foreign_object(text, path)
    if begin.startswith("["):
        return ""
    for pattern, what, how in _TEXT:
        if re.match(pattern, begin, re.IGNORECASE):
            return _message(what, how, path)
    named_json = path.suffix.lower() in (".json", ".jsonl", ".ndjson")
    if named_json and len(text) <= _SERVER_TEXT_CHARACTERS and "{" not in text and not begin.startswith('"'):
        shown = " ".join(text.split())[:60]
        return f"this is the text {shown!r}, perhaps a server's answer in place of the file. {_AGAIN}"
    return ""


def _foreign_object(text: str, path: Path) -> str:
    """One JSON object that is the whole file and no record: a notebook, or a server's error."""
    head = text[: 1 << 16]
    if '"nbformat"' not in text[-500:] + head and len(text) > len(head):
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict) or any(key in value for key in (*FIELDS, *TURN_KEYS)):
        return ""
    if "nbformat" in value and "cells" in value:
        how = "Let a cell of it write the records: json.dump(records, open('records.json', 'w'))"
        return _message("this is a Jupyter notebook", how, path)
    lists = any(isinstance(inner, list) and inner and isinstance(inner[0], dict) for inner in value.values())
    named = [key for key in value if str(key).lower() in _ERROR_KEYS]
    if named and not lists:
        shown = " ".join(json.dumps({key: value[key] for key in named}, ensure_ascii=False).split())[:100]
        return f"this is a server's answer, not data: {shown}. {_AGAIN}"
    return ""


def _message(what: str, how: str, path: Path) -> str:
    how = re.sub(r"`(.+)`", lambda code: python_command(code[1], path.as_posix()), how)
    return f"{what}. {how}"
