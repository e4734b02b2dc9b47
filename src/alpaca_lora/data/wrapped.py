"""Objects that hold all the rows: where in them the rows are, and how to get them out.

Enter a dict, of Python or of a JSON file; leave a sentence with a Python expression for the rows, and for a file with
the command that writes them to a new one. Nothing is unwrapped by itself: what else stands in the object may matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .columns import FIELDS, TURN_KEYS, list_keys, suggest
from .listing import path_of

_DEEPEST = 3
_TRAIN = ("train", "training", "train_sft")
_SPLITS = {*_TRAIN, "test", "validation", "valid", "val", "dev", "eval", "test_sft"}
_ONE_ROW = {"chosen", "rejected", "replies", "instances", "turns", "completion"}
_FILE = "json.load(open({}, encoding='utf-8-sig'))"


def wrapping(value: Mapping[Any, Any], source: str = "") -> str:
    """What an object is that holds all the rows, and how to unwrap it, or "" when it is a row itself.

    Args:
        value: The object.
        source: The file that holds it; "" for an object of Python.

    Example:
        >>> wrapping({"data": [{"instruction": "Hi", "output": "Hello"}]})
        "the records are inside the key 'data'. Pass that list itself: rows = data['data']"
    """
    what, expression = next(_found(value, "data", 0), ("", ""))
    if not what:
        return ""
    if not expression:
        return what
    how = write_records(expression, source, f"data = {_FILE}") if source else f"rows = {expression}"
    return f"{what}. {'Write that list' if source else 'Pass that list itself'}: {how}"


def write_records(expression: str, source: str, reading: str = "") -> str:
    """The command that writes what a Python expression makes of a source's `rows`, or of what `reading` reads.

    For rows that no file holds, the expression itself, as an assignment.
    """
    if source.startswith("<"):
        return f"rows = {expression}"
    name = "FILE" if " + " in source else source  # of several sources, one at a time
    path = path_of(name)
    out = (path if path.parent.is_dir() else Path(path.name)).with_name(f"{path.stem}.records.json").as_posix()
    modules = "import json" if reading else "import json; from alpaca_lora.data.sources import open_source"
    read = reading.format(quoted(path.as_posix())) if reading else f"rows = open_source({quoted(name)}).values"
    return f"python -c \"{modules}; {read}; json.dump({expression}, open({quoted(out)}, 'w'))\""


def quoted(text: str) -> str:
    """A name as Python code inside a command in double quotes: what a shell or Python would read is escaped."""
    return "'" + re.sub(r"[\\'\"$`]", lambda one: f"\\x{ord(one[0]):02x}", text) + "'"


def _found(value: Mapping[Any, Any], at: str, depth: int) -> Iterator[tuple[str, str]]:
    """What the object is and the expression for its rows, the likeliest first; nothing for a row."""
    if isinstance(value.get("instruction"), str) or any(_are_dicts(value.get(key)) for key in TURN_KEYS):
        return
    if isinstance(value.get(suggest(value).get("instruction")), str) or not _ONE_ROW.isdisjoint(value):
        return
    rows, columns, data = value.get("rows"), value.get("columns"), value.get("data")
    if isinstance(rows, list) and _are_dicts(rows) and isinstance(rows[0].get("row"), dict):
        total = value.get("num_rows_total")
        part = f", {len(rows):,} of {total:,} rows" if isinstance(total, int) and total > len(rows) else ""
        yield (
            f"this is an answer of the hub's data viewer{part} (for all, name its hub id; cut rows are left out)",
            f"[one['row'] for one in {at}['rows'] if not one.get('truncated_cells')]",
        )
    elif isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        yield (
            "this is a table of pandas, written with orient='split'",
            f"[dict(zip({at}['columns'], row)) for row in {at}['data']]",
        )
    lists = [key for key, inner in value.items() if _are_dicts(inner)]
    if len(lists) > 1 and len(likely := [key for key in lists if is_record(value[key][0])]) > 0:
        lists = likely
    if len(lists) > 1 and all(str(key).lower() in _SPLITS for key in lists):
        train = next((key for key in lists if str(key).lower() in _TRAIN), None)
        what = f"these are several splits: {', '.join(f'{key!r} with {len(value[key]):,} rows' for key in lists)}"
        if train is None:
            yield f"{what}. Name one: rows = {at}[<its name>].", ""
        else:
            yield f"{what}; train on {train!r} alone", f"{at}[{train!r}]"
    elif len(lists) > 1:
        yield (
            f"the records are inside several keys, {list_keys(lists)}",
            f"[row for key in {lists!r} for row in {at}[key]]",
        )
    alone = [key for key, inner in value.items() if isinstance(inner, list) and len(value) == 1 and key not in FIELDS]
    for key in lists or alone:
        yield f"the records are inside the key {str(key)!r}", f"{at}[{key!r}]"
    if value and all(isinstance(inner, list) for inner in value.values()):
        if len({len(inner) for inner in value.values()}) > 1:
            yield "this is a dict of lists of different lengths. Write a list of records, each with its own keys.", ""
        yield (
            "this is a dict of lists (one list a column)",
            f"[dict(zip({at}, values)) for values in zip(*{at}.values())]",
        )
    inner = [one for one in value.values() if isinstance(one, dict) and one]
    if inner and len(inner) == len(value):
        if all(one.keys() == inner[0].keys() for one in inner) and is_record(value):
            first = next(iter(value))
            yield (
                "this is a dict of columns, each with its values by row (a table of pandas)",
                f"[{{key: {at}[key][row] for key in {at}}} for row in {at}[{first!r}]]",
            )
        if all(map(is_record, inner)):
            yield "this is a dict of records, each under a key of its own", f"list({at}.values())"
    if depth < _DEEPEST:
        for key, one in value.items():
            if isinstance(one, dict):
                yield from _found(one, f"{at}[{key!r}]", depth + 1)
    if inner and len(inner) == len(value) and not depth:
        yield "this is a dict of dicts, and none of them looks like a record. Write a list of records.", ""


def _are_dicts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def is_record(row: Mapping[Any, Any]) -> bool:
    """Whether the keys are those of a record, under our names or others that are usual."""
    return any(key in row for key in TURN_KEYS) or {"instruction", "output"} <= {*row, *suggest(row)}
