"""Rows of preference data: two answers to a prompt, and how to get records of the better ones.

Which answer is better is said by the names of the keys (`chosen` and `rejected`), or by a third key that names one of
them (`better_response_id`: 0 means `response_0`). Answers are texts, messages, or whole dialogues in one text
("\\n\\nHuman: ... \\n\\nAssistant: ...").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .columns import TURN_KEYS, suggest
from .wrapped import write_records

_BETTER_WORSE = (
    *(("chosen", "rejected"), ("chosen_response", "rejected_response"), ("accepted", "rejected")),
    *(("preferred", "rejected"), ("preferred", "dispreferred"), ("pref", "unpref"), ("better", "worse")),
    *(("better_response", "worse_response"), ("good", "bad"), ("win", "lose"), ("response_j", "response_k")),
    *(("positive", "negative"), ("pos", "neg")),
)
_TWO = re.compile(
    r"(.*(?:response|answer|completion|output|conversation|reply|summary|ref)s?_?)([ab]|[0-2])", re.IGNORECASE
)
_VERDICT = re.compile("better|prefer|winner|choice|chosen|label|best|selected|verdict", re.IGNORECASE)
_ROWS_LOOKED_AT = 1000
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def better_and_worse(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the better and the worse answer, where their names say it."""
    names = {str(key).casefold(): str(key) for key in row}
    return next(((names[one], names[two]) for one, two in _BETTER_WORSE if one in names and two in names), None)


def two_answers(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of two answers that differ in a last letter or digit, such as `response_0` and `response_1`."""
    found: dict[str, list[str]] = {}
    for key in map(str, row):
        if (match := _TWO.fullmatch(key)) and isinstance(row[key], (str, list)):
            found.setdefault(match[1], []).append(key)
    return next(((min(keys), max(keys)) for keys in found.values() if len(keys) == 2), None)


def take_better(rows: Sequence[Any], source: str) -> str:
    """What to do with rows whose keys say which answer is better."""
    row = next(row for row in rows if isinstance(row, Mapping) and better_and_worse(row))
    better, worse = better_and_worse(row) or ("", "")
    answer, rest = row[better], [key for key in row if key not in (better, worse)]
    columns: dict[str, str | None] = suggest(rest)
    prompt = columns.get("instruction") or ("instruction" if "instruction" in row else "")
    turns = next((key for key in TURN_KEYS if isinstance(row.get(key), list)), "")
    begin = f"row[{prompt!r}] + " if prompt and isinstance(row[prompt], type(answer)) else ""
    if "output" in row:
        return f"To train on the 'output' of each, leave both out with columns={ {better: None, worse: None} }."
    if isinstance(answer, str) and _ASSISTANT in (row[prompt] if begin else "") + answer:
        begin = begin if _HUMAN not in answer else ""
        return (
            f"Take the better ones that are a single exchange: {write_records(_first_exchange(begin, better), source)}"
        )
    if isinstance(answer, list):
        whole = len(answer) > 1 and (not begin or answer[: len(row[prompt])] == row[prompt])
        of = f"row[{better!r}]" if whole else f"{begin}row[{better!r}]"
        if not whole and not begin and prompt:
            made = f"{{'instruction': row[{prompt!r}], 'output': row[{better!r}][-1]['content']}} for row in rows"
        else:
            made = f"{{'messages': turns}} for row in rows for turns in [{of}] if len(turns) == 2"
        return f"Take the better ones that are a single exchange: {write_records(f'[{made}]', source)}"
    if turns and isinstance(answer, Mapping):
        made = f"{{{turns!r}: row[{turns!r}] + [row[{better!r}]]}} for row in rows if len(row[{turns!r}]) == 1"
        return f"Take the better ones that are a single exchange: {write_records(f'[{made}]', source)}"
    if prompt and isinstance(row[prompt], list) and isinstance(answer, str):
        made = f"{{'messages': row[{prompt!r}] + [dict(role='assistant', content=row[{better!r}])]}} for row in rows"
        return f"Take the better ones: {write_records(f'[{made}]', source)}"
    named = columns if prompt else {"instruction": "<its name here>", **columns}
    order = {field: key for field, key in named.items() if field != "output"}
    return f"Take the better ones: pass columns={ {**order, 'output': better, worse: None} }."


def take_named(rows: Sequence[Any], source: str) -> str:
    """What to do with rows of two answers, of which another key may name the better."""
    row = next(row for row in rows if isinstance(row, Mapping) and two_answers(row))
    first, second = two_answers(row) or ("", "")
    columns = suggest(key for key in row if key not in (first, second))
    prompt = columns.get("instruction") or ("instruction" if "instruction" in row else "")
    verdict, names = _verdict([one for one in rows[:_ROWS_LOOKED_AT] if isinstance(one, Mapping)], first, second)
    if not names or not (prompt or isinstance(row[first], list)):
        return f"Write one object a row with 'instruction' and, as 'output', the better of {first!r} and {second!r}."
    chosen = f"for row in rows for key in [{names}.get(row[{verdict!r}])] if key"
    if isinstance(row[first], list):
        made = f"{{'messages': row[key]}} {chosen} and len(row[key]) == 2"
    else:
        given = columns.get("input") or ("input" if "input" in row else "")
        also = f"'input': row[{given!r}], " if given else ""
        made = f"{{'instruction': row[{prompt!r}], {also}'output': row[key]}} {chosen}"
    return f"Take the one that {verdict!r} names, where it names one: {write_records(f'[{made}]', source)}"


def take_good(rows: Sequence[Any], source: str) -> str:
    """What to do with answers that a label calls good or bad."""
    row = next(row for row in rows if isinstance(row, Mapping) and "label" in row)
    made = "'instruction': row['prompt'], 'output': row['completion']"
    if isinstance(row["prompt"], list):
        made = "'messages': row['prompt'] + row['completion']"
    kept = f"[{{{made}}} for row in rows if row['label'] in (True, 'True', 'true')]"
    return f"Keep the rows whose label is true: {write_records(kept, source)}"


def best_rated(rows: Sequence[Any], source: str) -> str:
    """What to do with rows of several rated answers, as UltraFeedback has them."""
    row = next(row for row in rows if isinstance(row, Mapping) and row.get("completions"))
    prompt, first = suggest(row).get("instruction") or "instruction", row["completions"][0]
    if prompt not in row or not {"response", "overall_score"} <= {*first}:
        return "Write one object with 'instruction', 'input' and 'output' for the best answer of each row."
    best = "max(row['completions'], key=lambda one: float(one['overall_score']))['response']"
    made = f"[{{'instruction': row[{prompt!r}], 'output': {best}}} for row in rows if row['completions']]"
    return f"Take the one with the highest score: {write_records(made, source)}"


def _first_exchange(begin: str, better: str) -> str:
    dialogue = f"({begin}row[{better!r}])" if begin else f"row[{better!r}]"
    asked = f"{dialogue}.strip().removeprefix({_HUMAN.strip()!r}).partition({_ASSISTANT!r})"
    return (
        "[{'instruction': asked.strip(), 'output': answer.strip()} for row in rows "
        f"for asked, _, answer in [{asked}] if answer.strip() and {_HUMAN!r} not in answer]"
    )


def _verdict(rows: Sequence[Mapping[str, Any]], first: str, second: str) -> tuple[str, dict[Any, str]]:
    """The key that names the better answer, and what its values name; ties and the like name none."""
    ends = first[-1].casefold(), second[-1].casefold()
    keys: Iterable[str] = (key for key in rows[0] if key not in (first, second) and _VERDICT.search(str(key)))
    for key in keys:
        values = {row.get(key) for row in rows if isinstance(row.get(key), (str, int))}
        if any(isinstance(value, bool) for value in values):
            continue
        numbers = {value for value in values if isinstance(value, int)}
        if ends[0].isdigit() and numbers == {*map(int, ends)}:  # where one is never named, it may be another count
            return key, {int(ends[0]): first, int(ends[1]): second}
        for value in sorted(value for value in values if isinstance(value, str)):
            begin = value[:-1]
            if value[-1:].casefold() in ends and re.fullmatch(r"|(.*[_\W])?", begin):
                upper = value[-1:].isupper()
                one, two = (end.upper() if upper else end for end in ends)
                return key, {begin + one: first, begin + two: second}
    return "", {}
