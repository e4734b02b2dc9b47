"""Text that is nearly JSON: what is wrong with it, told by what stands there, and how to make JSON of it.

Asked only after the decoder refused a text, so that good files cost nothing.
"""

from __future__ import annotations

import json
import re

from .commands import python_command

CONFLICT = "this is a conflict marker of git. Choose one side of each conflict, and remove the markers."
_CONFLICT = re.compile(r"^(?:<{7} .*|={7}|>{7} .*)$", re.MULTILINE)
# What reads a text that JSON cannot be, and the modules it needs.
_READERS = {
    "python": ("ast.literal_eval(TEXT)", "ast, json"),
    "breaks": ("json.loads(TEXT, strict=False)", "json"),
    "nan": ("json.loads(TEXT, parse_constant=lambda name: None)", "json"),
    "yaml": ("yaml.safe_load(TEXT.replace(chr(9), ' '))", "json, yaml"),  # keys without quotes, commas at the end
}
# What stands where the decoder stopped, or its own message; what that is; the reader.
_SIGNS = (
    (r"'|(?:True|False|None)\b", "These are Python's dicts, not JSON.", "python"),
    ("Invalid control character", "A line break or tab inside a string is written \\n or \\t.", "breaks"),
    (r"Invalid \\", "A backslash is written twice in JSON: \\\\. Write the file with json.dump, which does that.", ""),
    ("[“”„‘’«»]", "Strings stand in straight quotes (\"). Replace the others around keys and values.", ""),
    (r"//|/\*|#", "JSON has no comments. Remove them.", ""),
)  # fmt: skip


def advice(text: str, error: json.JSONDecodeError, source: str) -> str:
    """What to do about text that is nearly JSON, told by what stands where the decoder stopped."""
    found, before = text[error.pos : error.pos + 80], text[: error.pos].rstrip()[-1:]
    for sign, what, reader in _SIGNS:
        if re.match(sign, found) or re.match(sign, error.msg):
            return f"{what} {rewrite(text, source, reader)}" if reader else what
    if before == "," and found[:1] in ("}", "]"):
        return "A comma stands before the closing bracket. " + rewrite(text, source, "yaml")
    if before in ("{", ",") and re.match(r"[A-Za-z_]\w*: ", found):
        return "This is JSON5 or JavaScript: in JSON, keys stand in quotes. " + rewrite(text, source, "yaml")
    return "Correct the JSON there."


def rewrite(text: str, source: str, reader: str) -> str:
    """The command that reads what Python can read and JSON cannot, and writes it as JSON."""
    parse, modules = _READERS[reader]
    opened = "open(FILE, encoding='utf-8-sig')"
    first = text.strip().split("\n", 1)[0].rstrip(" \t\r,")
    if first[:1] == "{" and first[-1:] == "}" and reader != "breaks":  # one line at a time
        rows = f"[{parse.replace('TEXT', 'line')} for line in {opened} if line.strip()]"
    else:
        rows = parse.replace("TEXT", f"{opened}.read()")
    return "Rewrite the file: " + python_command(f"import {modules}; json.dump({rows}, open(OUT, 'w'))", source)


def foreign_lines(text: str, source: str) -> str:
    """What stands among JSON and is none, and where, and what to do about it; or ""."""
    if "\n<<<<<<< " in f"\n{text}" and "\n>>>>>>> " in text and (marker := _CONFLICT.search(text)):
        return f"{source}, line {_line(text, marker.start())}: {CONFLICT}"
    if mark := re.search(r"(?:^|[\]}])\s*\ufeff", text, re.MULTILINE):
        return (
            f"{source}, line {_line(text, mark.end())}: a byte-order mark stands here, as where files were joined. "
            "Pass the files themselves, as a list or a pattern."
        )
    return ""


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
