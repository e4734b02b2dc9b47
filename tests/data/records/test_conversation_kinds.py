"""Conversations that cannot be read are called what they are, and the command that is told gives records."""

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


IMAGE = {"role": "user", "content": [{"type": "text", "text": "See: "}, {"type": "image_url", "image_url": {}}]}
AUDIO = {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}
U, A = "user: Hi", "assistant: Ho"
ONE = Record("Hi", "", "Ho")


@pytest.mark.parametrize(
    ("row", "what", "advice"),
    [
        ({"prompt": said(U), "completion": said(A)}, "cut into a 'prompt' and a 'completion'", None),
        ({"prompt": said(U), "completion": "Ho"}, "whose last answer stands apart, in 'completion'", None),
        ({"messages": [IMAGE, *said(A)]}, "conversations with images, audio or other parts", "in words"),
        ({"messages": [AUDIO, *said(A)]}, "conversations with images, audio or other parts", "in words"),
        ({"messages": said("system: Be kind.", A, U, A)}, "that the assistant begins", "Remove the assistant's first"),
        ({"messages": said(A, U, A)}, "conversations that the assistant begins", "Remove the assistant's first turn"),
        ({"messages": said(U, A, "critic: 5")}, "conversations with turns of unknown speakers", "Known are 'human', "),
        ({"messages": [{**turn, "weight": 0} for turn in said(U, A)]}, "nothing is to be learned", "the marks"),
        ({"messages": [{**turn, "weight": 0.5} for turn in said(U, A)]}, "that cannot be read", "Mend what is named"),
        ({"conversation": said(U, A)}, "conversations under a key that is not read", None),
        ({"Conversations": said(U, A)}, "conversations under a key that is not read", None),
        ({"id": 7, "items": said("human: Hi", "gpt: Ho", names=("from", "value"))}, "a key that is not read", None),
        ({"messages": said("User: Hi", "Bot: Ho")}, "other names for the speakers or their texts", "the usual names"),
        ({"messages": said(U, A, names=("role", "text"))}, "other names for the speakers", "the usual names"),
        ({"messages": json.dumps(said(U, A))}, "conversations written as JSON inside a text", None),
        ({"messages": said(U)}, "conversations in which nobody answers", "alpaca-lora answer MODEL FILE"),
        ({"messages": said("system: Be kind.")}, "conversations in which nobody answers", "alpaca-lora answer MODEL"),
    ],
)
def test_each_is_named_and_the_last_line_says_what_to_do(tmp_path, monkeypatch, row, what, advice):
    """Without `advice` that is a command, which gives records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(row)] * 2), encoding="utf-8")
    for read in (lint, load_records):
        with pytest.raises(DataError) as caught:
            read("x.jsonl")
        first, *_, last = str(caught.value).splitlines()
        assert first.startswith("x.jsonl: these are conversations") and what in first
    if advice:
        assert advice in last
    else:
        exec(re.search(r'python -c "(.*)"$', last)[1], {})  # the very command that a user is told to run
        assert load_records("x.records.json").records == [ONE] * 2


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": said(U), "completion": said(A)},
        {"prompt": said(U), "completion": "Ho"},
        {"conversation": said(U, A)},
        {"messages": json.dumps(said(U, A))},
    ],
)
def test_the_command_keeps_what_stands_beside_the_turns(tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    beside = {"system": "Be kind.", "tools": [{"type": "function", "function": {"name": "add"}}]}
    (tmp_path / "x.json").write_text(json.dumps([{**beside, **row}]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_records("x.json")
    exec(re.search(r'python -c "(.*)"$', str(caught.value))[1], {})
    (made,) = load_records("x.records.json").records
    assert [*made.messages] == said("system: Be kind.", U, A)
    assert [*made.tools] == beside["tools"]


def test_turns_that_nobody_answers_are_counted():
    rows = [{"messages": said(U, A, U)}, {"messages": said(U, A)}]
    with pytest.warns(UserWarning, match="turns at the end that nobody answers are not read, in 1 of 2 rows"):
        assert load_records(rows).records == [ONE] * 2


def test_some_that_cannot_be_read_are_counted_among_others_that_can():
    rows = [{"messages": said(A, U, A)}, *[{"messages": said(U, A, U, A)}] * 20]
    with pytest.raises(DataError, match="<list>: 1 of 21 rows are conversations that the assistant begins") as caught:
        load_records(rows)
    assert "first record 1" in str(caught.value)
    assert len(load_records(rows[1:])) == 20


def test_parts_that_are_no_text_are_named_with_their_record():
    for turn, kind in ((IMAGE, "an image_url part"), (AUDIO, "an input_audio part")):
        with pytest.raises(DataError, match=rf"1 row: a text holds {kind}, first record 2"):
            load_records([{"messages": said(U, A)}, {"messages": [turn, *said(A)]}])
