"""Conversations that are no single exchange are called what they are, and the command that is told gives records."""

from __future__ import annotations

import json
import re

import pytest

from alpaca_lora import lint
from alpaca_lora.data.records import Record, load_records
from alpaca_lora.errors import DataError


def said(*turns, names=("role", "content")):
    """`said("user: Hi", "assistant: Hello")` as messages."""
    return [dict(zip(names, turn.split(": ", 1), strict=True)) for turn in turns]


def parts(*turns):
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in said(*turns)]


U, A = "user: Hi", "assistant: Ho"
ONE = Record("Hi", "", "Ho")


@pytest.mark.parametrize(
    ("row", "what", "records"),
    [
        ({"prompt": said(U), "completion": said(A)}, "cut into a 'prompt' and a 'completion'", [ONE]),
        ({"messages": parts(U, A)}, "conversations whose texts are lists of parts", [ONE]),
        ({"messages": [*said(U), *parts(A)]}, "conversations whose texts are lists of parts", [ONE]),
        (
            {"messages": said("system: Be kind.", U, A)},
            "conversations with a system text",
            [Record("Be kind.\n\nHi", "", "Ho")],
        ),
        (
            {"conversations": said("system: Be kind.", "human: Hi", "gpt: Ho", names=("from", "value"))},
            "conversations with a system text",
            [Record("Be kind.\n\nHi", "", "Ho")],
        ),
        (
            {"system": "Be kind.", "conversations": said("human: Hi", "gpt: Ho", names=("from", "value"))},
            "conversations with a system text",
            [Record("Be kind.\n\nHi", "", "Ho")],
        ),
        ({"messages": said(A, U, A)}, "conversations that the assistant begins", [ONE]),
        ({"messages": said(A, U)}, "conversations that the assistant begins", None),
        ({"messages": said(U, A, "tool: 5")}, "turns of others than a user and an assistant, such as tools", None),
        ({"messages": said(U, A, U, A)}, "conversations of several turns", [ONE]),
        (
            {"conversations": said("human: Hi", "gpt: Ho", "human: x", names=("from", "value"))},
            "conversations of several turns",
            [ONE],
        ),
        ({"conversation": said(U, A)}, "conversations under a key that is not read", [ONE]),
        ({"messages": said(U)}, "conversations in which only the user speaks", "questions"),
    ],
)
def test_each_is_named_and_the_command_gives_records(tmp_path, monkeypatch, row, what, records):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(row)] * 2), encoding="utf-8")
    for read in (lint, load_records):
        with pytest.raises(DataError) as caught:
            read("x.jsonl")
        first, *_, last = str(caught.value).splitlines()
        assert first.startswith("x.jsonl: these are conversations") and what in first
    code = re.search(r'python -c "(.*)"$', last)
    if records is None:
        assert code is None and "remove these rows" in last
        return
    exec(code[1], {})  # the very command that a user is told to run
    if records == "questions":
        assert json.loads((tmp_path / "x.records.json").read_text(encoding="utf-8")) == [{"instruction": "Hi"}] * 2
    else:
        assert load_records("x.records.json").records == records * 2


def test_a_system_text_does_not_cost_the_conversations_without_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"messages": said("system: Be kind.", U, A)}, {"messages": said(U, A)}, {"messages": said(U, A, U, A)}]
    (tmp_path / "x.json").write_text(json.dumps(rows[:2]), encoding="utf-8")
    with pytest.raises(DataError, match="x.json: 1 of 2 rows are conversations with a system text") as caught:
        load_records("x.json")
    exec(re.search(r'python -c "(.*)"$', str(caught.value))[1], {})
    assert load_records("x.records.json").records == [Record("Be kind.\n\nHi", "", "Ho"), ONE]
