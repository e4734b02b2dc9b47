"""Preference data is called that, and what the last line says to do gives records of the better answers alone."""

from __future__ import annotations

import ast
import json
import re

import pytest

from alpaca_lora import lint
from alpaca_lora.data.records import Record, load_records
from alpaca_lora.errors import DataError

GOOD = "Tom is a good name for a cat that likes milk and sleeps all day."
BAD = "I would rather not tell you any name, since I know none at all."
ASK = "Name a cat."
RECORD = Record(ASK, "", GOOD)
H, A = "\n\nHuman: ", "\n\nAssistant: "


def messages(*texts):
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def follow(source, message):
    """The records that a user gets who does what the last line of a message says."""
    last = message.splitlines()[-1]
    if code := re.search(r'python -c "(.*)"$', last):
        exec(code[1], {})
        return load_records(source.replace(".jsonl", ".records.json")).records
    return load_records(source, columns=ast.literal_eval(re.search(r"columns=(\{.*\})", last)[1])).records


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASK, "chosen": GOOD, "rejected": BAD},
        {"system": "", "question": ASK, "chosen": GOOD, "rejected": BAD},
        {"instruction": ASK, "input": "", "chosen": GOOD, "rejected": BAD},
        {"Prompt": ASK, "Chosen": GOOD, "Rejected": BAD},
        {"prompt": ASK, "pref": GOOD, "unpref": BAD},
        {"instruction": ASK, "better": GOOD, "worse": BAD},
        {"question": ASK, "response_j": GOOD, "response_k": BAD},
        {"prompt": ASK, "accepted": GOOD, "rejected": BAD},
        {"chosen": H + ASK + A + GOOD, "rejected": H + ASK + A + BAD},
        {"prompt": H + ASK + A, "chosen": GOOD, "rejected": BAD},
        {"prompt": H + ASK + A, "chosen": H + ASK + A + GOOD, "rejected": H + ASK + A + BAD},
        {"chosen": messages(ASK, GOOD), "rejected": messages(ASK, BAD)},
        {"prompt": ASK, "chosen": messages(ASK, GOOD), "rejected": messages(ASK, BAD)},
        {"prompt": messages(ASK), "chosen": messages(ASK, GOOD)[1:], "rejected": messages(ASK, BAD)[1:]},
        {"prompt": messages(ASK), "chosen": messages(ASK, GOOD), "rejected": messages(ASK, BAD)},
        {"prompt": ASK, "chosen": messages(ASK, GOOD)[1:], "rejected": messages(ASK, BAD)[1:]},
        {"prompt": messages(ASK), "chosen": GOOD, "rejected": BAD},
        {
            "conversations": [{"from": "human", "value": ASK}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
    ],
)
def test_the_better_answers_become_records(tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(row)] * 3), encoding="utf-8")
    for read in (lint, load_records):
        with pytest.raises(DataError) as caught:
            read("x.jsonl")
        first = "x.jsonl: these are preference pairs, a better and a worse answer to each prompt."
        assert str(caught.value).splitlines()[0] == first
    assert follow("x.jsonl", str(caught.value)) == [RECORD] * 3


@pytest.mark.parametrize(
    ("keys", "verdict", "values", "count"),
    [
        (("response_0", "response_1"), "better_response_id", (0, 1), 2),
        (("answer_1", "answer_2"), "preference", (1, 2), 2),
        (("response_a", "response_b"), "winner", ("a", "b"), 2),
        (("completion_A", "completion_B"), "winner", ("model_A", "model_B"), 2),
    ],
)
@pytest.mark.parametrize("as_messages", [False, True])
def test_a_key_that_names_the_better_answer_is_followed(
    tmp_path, monkeypatch, keys, verdict, values, count, as_messages
):
    monkeypatch.chdir(tmp_path)
    answers = [GOOD, BAD] if not as_messages else [messages(ASK, GOOD), messages(ASK, BAD)]
    rows = [
        {"prompt": ASK, **dict(zip(keys, answers, strict=True)), "safer": 1, verdict: values[0]},
        {"prompt": ASK, **dict(zip(keys, answers[::-1], strict=True)), "safer": 1, verdict: values[1]},
    ]
    rows += [{**rows[0], verdict: "tie"}] * isinstance(values[0], str)
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="these are preference pairs, two answers to each prompt") as caught:
        load_records("x.jsonl")
    assert follow("x.jsonl", str(caught.value)) == [RECORD] * count


@pytest.mark.parametrize("values", [(1, 1), (0, 1), (True, False), ("yes", "no")])
def test_where_the_verdict_is_not_clear_no_answer_is_chosen(values):
    rows = [{"prompt": ASK, "response_1": GOOD, "response_2": BAD, "label": value} for value in values]
    with pytest.raises(DataError, match="the better of 'response_1' and 'response_2'") as caught:
        load_records(rows)
    assert "rows = " not in str(caught.value)


def test_dialogues_of_several_exchanges_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = {"chosen": H + ASK + A + GOOD + H + "And?" + A + BAD, "rejected": H + ASK + A + BAD}
    short = {"chosen": H + ASK + A + GOOD, "rejected": H + ASK + A + BAD}
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, [long, short, long])), encoding="utf-8")
    with pytest.raises(DataError, match="that are a single exchange") as caught:
        load_records("x.jsonl")
    assert follow("x.jsonl", str(caught.value)) == [RECORD]


def test_answers_marked_good_and_bad_and_rated_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": ASK, "completion": text, "label": text is GOOD} for text in (GOOD, BAD)]
    rated = [{"response": BAD, "overall_score": 2.5}, {"response": GOOD, "overall_score": 9}]
    for found in (rows, [{"instruction": ASK, "completions": rated}] * 2):
        (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
        with pytest.raises(DataError) as caught:
            load_records("x.jsonl")
        assert {*follow("x.jsonl", str(caught.value))} == {RECORD}


def test_rows_with_an_answer_of_their_own_leave_both_out():
    rows = [{"instruction": f"{ASK} {n}", "input": "", "output": "Tom", "chosen": GOOD, "rejected": BAD} for n in "12"]
    with pytest.raises(DataError, match="these are preference pairs") as caught:
        load_records(rows)
    last = str(caught.value).splitlines()[-1]
    assert last.endswith("leave both out with columns={'chosen': None, 'rejected': None}.")
    assert len(load_records(rows, columns={"chosen": None, "rejected": None})) == 2
