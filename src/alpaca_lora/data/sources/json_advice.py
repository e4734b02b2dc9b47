"""Text that is nearly JSON: what is wrong with it, told by what stands there, and how to make JSON of it.

Asked only after the decoder refused a text, so that good files cost nothing.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .commands import python_command

CONFLICT = "this is a conflict marker of git. Choose one side of each conflict, and remove the markers."
_CONFLICT = re.compile(r"^(?:<{7} .*|={7}|>{7} .*)$", re.MULTILINE)
_COMMENT = r"//.*|/[*][\s\S]*?[*]/"
_SURPLUS = rf"(\x22(?:[^\x22\x5c]|\x5c.)*\x22)|{_COMMENT}|,(?=(?:\s|{_COMMENT})*[\]}}])"
"""A string, which stays, or a comment or a comma before a closing bracket. Without quotes and doubled backslashes, for
it stands inside a command."""
# What reads a text that JSON cannot be, and the modules it needs.
_READERS = {
    "python": ("ast.literal_eval(TEXT)", "ast, json"),
    "breaks": ("json.loads(TEXT, strict=False)", "json"),
    "nan": ("json.loads(TEXT, parse_constant=lambda name: None)", "json"),
    "surplus": (
        f"json.loads(re.sub(r'{_SURPLUS}', r'\\1', TEXT), strict=False, parse_constant=lambda name: None)",
        "json, re",
    ),
    "yaml": ("yaml.safe_load(TEXT.replace(chr(9), ' '))", "json, yaml"),  # keys without quotes
}
_YAML_TRIED = 1 << 18  # characters; YAML reads 50,000 a second
_CORRECT = "Correct the JSON there."
# What stands where the decoder stopped, or its own message; what that is; the reader.
_SIGNS = (
    (r"'|(?:True|False|None)\b", "These are Python's dicts, not JSON.", "python"),
    ("Invalid control character", "A line break or tab inside a string is written \\n or \\t.", "breaks"),
    (r"Invalid \\", "A backslash is written twice in JSON: \\\\. Write the file with json.dump, which does that.", ""),
    ("[“”„‘’«»]", "Strings stand in straight quotes (\"). Replace the others around keys and values.", ""),
    (r"//|/\*", "JSON has no comments. Remove them.", "surplus"),
    ("#", "JSON has no comments. Remove them.", ""),
)  # fmt: skip


def advice(text: str, error: json.JSONDecodeError, source: str) -> str:
    """What to do about text that is nearly JSON, told by what stands where the decoder stopped."""
    found, before = text[error.pos : error.pos + 80], text[: error.pos].rstrip()[-1:]
    for sign, what, reader in _SIGNS:
        if re.match(sign, found) or re.match(sign, error.msg):
            return f"{what} {rewrite(text, source, reader)}" if reader else what
    if before == "," and found[:1] in ("}", "]"):
        return "A comma stands before the closing bracket. " + rewrite(text, source, "surplus")
    if before in ("{", ",") and re.match(r"[A-Za-z_]\w*: ", found):
        return "This is JSON5 or JavaScript: in JSON, keys stand in quotes. " + rewrite(text, source, "yaml")
    return _CORRECT


def rewrite(text: str, source: str, reader: str) -> str:
    """The command that reads what Python can read and JSON cannot, and writes it as JSON; it has been tried here."""
    first = text.strip().split("\n", 1)[0].rstrip(" \t\r,")
    for name in (reader, "surplus") if reader in ("breaks", "nan") else (reader,):
        by_line = first[:1] == "{" and first[-1:] == "}" and name != "breaks"
        try:
            for part in filter(str.strip, text.split("\n")) if by_line else [text]:
                _try(part, name)
        except TwiceError as error:
            return f"Besides, {error}"
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # ast has them all
            continue
        parse, modules = _READERS[name]
        opened = "open(FILE, encoding='utf-8-sig')"
        if by_line:
            rows = f"[{parse.replace('TEXT', 'line')} for line in {opened} if line.strip()]"
        else:
            rows = parse.replace("TEXT", f"{opened}.read()")
        return "Rewrite the file: " + python_command(f"import {modules}; json.dump({rows}, open(OUT, 'w'))", source)
    return _CORRECT


class TwiceError(ValueError):
    """A key stands twice in an object: a parser would keep one of its values."""


def unique_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """An object of a parser's pairs.

    Raises:
        TwiceError: a key stands in two of them.
    """
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise TwiceError(f"the key {twice!r} stands more than once in one object. Keep one of them.")
    return found


def _try(text: str, reader: str) -> None:
    """Read as a reader's command does, and raise where it would fail or drop a value."""
    if reader == "python":
        for node in ast.walk(ast.parse(text.strip(), mode="eval")):
            if isinstance(node, ast.Dict):
                unique_keys((key.value, None) for key in node.keys if isinstance(key, ast.Constant))
        ast.literal_eval(text.strip())
    elif reader == "yaml":
        import yaml

        if len(text) < _YAML_TRIED:
            text = text.replace("\t", " ")
            try:
                yaml.safe_load(text)
                for node in _mappings(yaml.compose(text, Loader=yaml.SafeLoader)):
                    unique_keys((key.value, None) for key, _ in node.value)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
    else:
        text = re.sub(_SURPLUS, r"\1", text) if reader == "surplus" else text
        # `breaks` would write NaN again: int("NaN") fails.
        constant = int if reader == "breaks" else lambda name: None
        json.loads(text, strict=reader == "nan", parse_constant=constant, object_pairs_hook=unique_keys)


def _mappings(node: Any) -> list[Any]:
    """The mappings of a YAML text."""
    if isinstance(node.value, str):
        return []
    inner = [one for pair in node.value for one in (pair if isinstance(pair, tuple) else [pair])]
    found = [node] if node.id == "mapping" else []
    return [*found, *(one for each in inner for one in _mappings(each))]


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
