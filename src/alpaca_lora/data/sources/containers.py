"""Objects that hold all the rows: which part holds them, and how to get them out.

Enter a dict, of Python or of a JSON file; leave a sentence with a Python expression for the rows, and for a file with
the command that writes them to a new one. Nothing is unwrapped by itself: what else stands in the object may matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..columns import TURN_KEYS, list_keys, names_record, suggest
from ..record import FIELDS
from .commands import python_command

_DEEPEST = 3
_TRAIN = ("train", "training", "train_sft")
_SPLITS = {*_TRAIN, "test", "validation", "valid", "val", "dev", "eval", "test_sft"}
_ONE_ROW = {"chosen", "rejected", "replies", "instances", "turns", "completion"}


def unwrapping(value: Mapping[Any, Any], source: str = "") -> str:
    """What an object is that holds all the rows, and how to unwrap it, or "" if it is a row itself.

    Args:
        value: The object.
        source: The file that holds it; "" for an object of Python.

    Example:
        >>> unwrapping({"data": [{"instruction": "Hi", "output": "Hello"}]})
        "the records are inside the key 'data'. Pass that list itself: rows = data['data']"
    """
    what, expression = next(_found(value, "data", 0), ("", ""))
    if not expression:
        return what
    if not source:
        return f"{what}. Pass that list itself: rows = {expression}"
    read = f"import json; data = json.load(open(FILE, encoding='utf-8-sig')); json.dump({expression}, open(OUT, 'w'))"
    return f"{what}. Write that list: {python_command(read, source)}"


def _found(value: Mapping[Any, Any], at: str, depth: int) -> Iterator[tuple[str, str]]:
    """What the object is and the expression for its rows, the likeliest first; nothing for a row."""
    if isinstance(value.get("instruction"), str) or any(_are_dicts(value.get(key)) for key in TURN_KEYS):
        return
    if isinstance(value.get(suggest(value).get("instruction")), str) or not _ONE_ROW.isdisjoint(value):
        return
    lists = [key for key, inner in value.items() if _are_dicts(inner)]
    if len(lists) > 1 and (likely := [key for key in lists if names_record(value[key][0])]):
        lists = likely
    if len(lists) > 1 and all(str(key).lower() in _SPLITS for key in lists):
        train = next((key for key in lists if str(key).lower() in _TRAIN), None)
        what = f"these are several splits: {', '.join(f'{key!r} with {len(value[key]):,} rows' for key in lists)}"
        if train is None:
            yield f"{what}. Name one: rows = {at}[<its name>].", ""
        else:
            yield f"{what}; train on {train!r} alone", f"{at}[{train!r}]"
    elif len(lists) > 1:
        what = f"the records are inside several keys, {list_keys(lists)}"
        yield what, f"[row for key in {lists!r} for row in {at}[key]]"
    alone = [key for key, inner in value.items() if isinstance(inner, list) and len(value) == 1 and key not in FIELDS]
    for key in lists or alone:
        yield f"the records are inside the key {str(key)!r}", f"{at}[{key!r}]"
    if value and all(isinstance(inner, list) for inner in value.values()):
        if len({len(inner) for inner in value.values()}) > 1:
            yield "this is a dict of lists of different lengths. Write a list of records, each with its own keys.", ""
        rows = f"[dict(zip({at}, values)) for values in zip(*{at}.values())]"
        yield "this is a dict of lists (one list per column)", rows
    inner = [one for one in value.values() if isinstance(one, dict) and one]
    all_dicts = bool(inner) and len(inner) == len(value)
    if all_dicts and all(one.keys() == inner[0].keys() for one in inner) and names_record(value):
        rows = f"[{{key: {at}[key][row] for key in {at}}} for row in {at}[{next(iter(value))!r}]]"
        yield "this is a dict of columns, each with its values by row (a table of pandas)", rows
    if all_dicts and all(map(names_record, inner)):
        yield "this is a dict of records, each under a key of its own", f"list({at}.values())"
    if depth < _DEEPEST:
        for key, one in value.items():
            if isinstance(one, dict):
                yield from _found(one, f"{at}[{key!r}]", depth + 1)
    if all_dicts and not depth:
        yield "this is a dict of dicts, and none of them looks like a record. Write a list of records.", ""


def _are_dicts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
