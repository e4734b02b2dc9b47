"""Text that is nearly JSON: what is wrong with it by what stands there, and the command that rewrites it.

Asked only after the decoder refused a text, so that what is good costs nothing. A raw line break ends no JSON string,
so that a line of a log, or a conflict marker of git, can be told from a record's text.
"""

from __future__ import annotations

import json
import re

from .filetypes import in_command
from .listing import path_of

_QUOTED = r"\x22(?:[^\x22\x5c]|\x5c.)*\x22"  # a string; quotes and backslashes are named for a shell's sake
_COMMENT = r"//.*|#.*|/\*[\s\S]*?\*/"
_COMMA = rf",(?=(?:\s|{_COMMENT})*[]}}])"
_GAP = r"[\s\ufeff]*"
_JOINED = (
    f"re.sub(r'({_QUOTED})|\\}}{_GAP}\\{{|\\]{_GAP}\\[', "
    "lambda found: found[1] or ('},{' if found[0][0] == '}' else ','), TEXT)"
)
# How Python reads what JSON cannot be; "lines" reads a line at a time wherever the first line is a whole object.
_PARSE = {
    "python": ("ast.literal_eval(TEXT)", "ast, json"),
    "breaks": ("json.loads(TEXT, strict=False)", "json"),
    "nan": ("json.loads(TEXT, parse_constant=lambda name: None)", "json"),
    "comments": (
        f"json.loads(re.sub(r'({_QUOTED})|{_COMMENT}|{_COMMA}', lambda found: found[1] or '', TEXT))",
        "json, re",
    ),
    "names": ("yaml.safe_load(TEXT.replace(chr(9), ' '))", "json, yaml"),
    "commas": ("json.loads('[' + TEXT.strip().rstrip(',') + ']')", "json"),
    "joined": (f"json.loads('[' + {_JOINED} + ']')", "json, re"),
    "joined arrays": (f"json.loads({_JOINED})", "json, re"),
    "marks": ("json.loads(TEXT.replace(chr(65279), ''))", "json"),
    "objects": ("json.loads(TEXT)", "json"),
}
CONFLICT = "this is a conflict marker of git. Choose one side of each conflict, and remove the markers."
_CONFLICT = re.compile(r"^(?:<{7} .*|={7}|>{7} .*)$", re.MULTILINE)
_LOG_LINE = re.compile(r"[\w(<*=>#~-]|\[[\w-]")
_SHOWN = 60


def advice(text: str, error: json.JSONDecodeError, source: str) -> str:
    """What to do about text that is nearly JSON, told by what stands where the decoder stopped."""
    found, before = text[error.pos : error.pos + 80], text[: error.pos].rstrip()[-1:]
    if found.startswith("'") or re.match(r"True\b|False\b|None\b", found):
        return "These are Python's dicts, not JSON. " + rewrite(text, source, "python")
    if error.msg.startswith("Invalid control character"):
        return "A line break or tab inside a string is written \\n or \\t. " + rewrite(text, source, "breaks")
    if error.msg.startswith("Invalid \\"):
        return "A backslash is written twice in JSON: \\\\. Write the file with json.dump, which does that."
    if found[:1] in tuple("“”„‘’«»"):
        return f'Strings stand in straight quotes ("), not in {found[0]}. Replace those around keys and values.'
    if found.startswith(("//", "/*", "#")):
        return "JSON has no comments. " + rewrite(text, source, "comments")
    if before == "," and found[:1] in ("}", "]"):
        return "A comma stands before the closing bracket. " + rewrite(text, source, "comments")
    if before in ("{", ",") and re.match(r"[A-Za-z_]\w*: ", found):
        return "This is JSON5 or JavaScript: in JSON, keys stand in quotes. " + rewrite(text, source, "names")
    return "Correct the JSON there."


def rewrite(text: str, source: str, kind: str) -> str:
    """The command that reads what Python can read and JSON cannot, and writes it as JSON."""
    parse, modules = _PARSE[kind]
    path = path_of(source)
    opened = f"open({in_command(path.as_posix())}, encoding='utf-8-sig')"
    first = text.strip().split("\n", 1)[0].rstrip(" \t\r,")
    lines = kind in ("objects", "marks") or (first[:1] == "{" and first[-1:] == "}")
    if lines and kind not in ("breaks", "commas", "joined"):
        chosen = "line.lstrip().startswith('{')" if kind == "objects" else "line.strip()"
        rows = f"[{parse.replace('TEXT', 'line')} for line in {opened} if {chosen}]"
    else:
        rows = parse.replace("TEXT", f"{opened}.read()")
    out = in_command(path.with_name(f"{path.stem}.mended.json").as_posix())
    return f"Rewrite the file: python -c \"import {modules}; json.dump({rows}, open({out}, 'w'))\""


def mixed(text: str, source: str) -> str:
    """What stands among JSON and is none, and where, and what to do about it; or ""."""
    if "\n<<<<<<< " in f"\n{text}" and "\n>>>>>>> " in text and (marker := _CONFLICT.search(text)):
        return f"{source}, line {_line(text, marker.start())}: {CONFLICT}"
    if mark := re.search(r"(?:^|[\]}])\s*\ufeff", text, re.MULTILINE):
        array = text.lstrip().startswith("[")
        how = rewrite(text, source, "joined arrays" if array else "marks")
        return (
            f"{source}, line {_line(text, mark.end())}: a byte-order mark stands here, as where files were joined. "
            f"Pass the files themselves, as a list or a pattern; or put the records together. {how}"
        )
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    others = [(number, line) for number, line in lines if not (line.startswith("{") and line.endswith("}"))]
    if 0 < len(others) < len(lines) and all(_LOG_LINE.match(line) for _, line in others):
        number, line = others[0]
        return (
            f"{source}, line {number}: {line[:_SHOWN]!r} is no JSON, like a message of a program; "
            f"{len(lines) - len(others):,} of {len(lines):,} lines are JSON objects. To keep these alone: "
            + rewrite(text, source, "objects").partition(": ")[2]
        )
    return ""


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
