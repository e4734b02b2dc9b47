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
        ({"Conversations": said(U, A)}, "conversations under a key that is not read", [ONE]),
        ({"id": 7, "items": said("human: Hi", "gpt: Ho", names=("from", "value"))}, "a key that is not read", [ONE]),
        ({"messages": said("User: Hi", "Bot: Ho")}, "other names for the speakers or their texts", [ONE]),
        ({"messages": said(U, A, names=("role", "text"))}, "other names for the speakers or their texts", [ONE]),
        ({"messages": json.dumps(said(U, A))}, "conversations written as JSON inside a text", [ONE]),
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


def follow(tmp_path, monkeypatch, rows):
    """The first line of the message, and the records that its command gives."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_records("x.jsonl")
    exec(re.search(r'python -c "(.*)"$', str(caught.value))[1], {})
    return str(caught.value).splitlines()[0], load_records("x.records.json").records


@pytest.mark.parametrize(
    ("text", "more", "record"),
    [
        ("### Human: Hi### Assistant: Ho", "### Human: And?### Assistant: No.", ONE),
        ("Below is a task.\n\n### Instruction:\nHi\n\n### Response:\nHo", "", ONE),
        ("### Instruction:\nAdd.\n\n### Input:\n2, 3\n\n### Response:\n5", "", Record("Add.", "2, 3", "5")),
        (
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n",
            "<|im_start|>user\nAnd?<|im_end|>\n",
            ONE,
        ),
        ("<s>[INST] Hi [/INST] Ho </s>", "<s>[INST] And? [/INST] No. </s>", ONE),
        ("\n\nHuman: Hi\n\nAssistant: Ho", "\n\nHuman: And?\n\nAssistant: No.", ONE),
    ],
)
def test_the_first_exchange_is_cut_out_of_texts_with_markers(tmp_path, monkeypatch, text, more, record):
    system = {"<|im_": "<|im_start|>system\nBe kind.<|im_end|>\n", "<s>[I": "<<SYS>>Be kind.<</SYS>>"}.get(text[:5])
    rows = [{"text": text}, {"text": text + more}, *([{"text": system + text}] if system else [])]
    first, records = follow(tmp_path, monkeypatch, rows)
    assert first == "x.jsonl: these are texts, each in a single key ('text')."
    assert records == [record] * 2


def test_openassistants_prompts_with_the_best_replies(tmp_path, monkeypatch):
    def message(number, parent, text, role, **more):
        return {"message_id": number, "parent_id": parent, "text": text, "role": role, **more}

    flat = [
        message("1", None, "Hi", "prompter"),
        message("2", "1", "Ho", "assistant", rank=0),
        message("3", "1", "No.", "assistant", rank=1),
        message("4", "2", "And?", "prompter"),
        message("5", "4", "Later.", "assistant", rank=0),
    ]
    first, records = follow(tmp_path, monkeypatch, flat)
    assert "messages of OpenAssistant" in first and records == [ONE]
    replies = [{"text": "Ho", "role": "assistant", "rank": 0, "replies": []}, {"text": "No.", "rank": 1, "replies": []}]
    tree = {"message_tree_id": "1", "prompt": {"text": "Hi", "role": "prompter", "replies": replies}}
    for row in (tree, tree["prompt"]):
        first, records = follow(tmp_path, monkeypatch, [row] * 2)
        assert "conversation trees of OpenAssistant" in first and records == [ONE] * 2


def test_seed_tasks_and_questions_with_answers(tmp_path, monkeypatch):
    seed = {"instruction": "Add.", "instances": [{"input": "2, 3", "output": "5"}, {"input": "1, 1", "output": "2"}]}
    _, records = follow(tmp_path, monkeypatch, [seed] * 2)
    assert records == [Record("Add.", "2, 3", "5"), Record("Add.", "1, 1", "2")] * 2
    squad = {"question": "Hi", "context": "A ship.", "answers": {"text": ["Ho", "Hey"], "answer_start": [0, 1]}}
    first, records = follow(tmp_path, monkeypatch, [squad, {**squad, "answers": {"text": [], "answer_start": []}}])
    assert "questions with a list of answers" in first and records == [Record("Hi", "A ship.", "Ho")]
