"""Files that hold no records: the first line says what they are, the last what to do; bad rows are counted by kind."""

from __future__ import annotations

import ast
import re

import pytest

from alpaca_lora import lint
from alpaca_lora.data.records import Record, load_records
from alpaca_lora.errors import DataError

GOOD = {"instruction": "Name a cat.", "input": "", "output": "Tom"}


def turns(count):
    return [{"from": ("human", "gpt")[n % 2], "value": f"text {n}"} for n in range(count)]


def messages(*texts):
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("row", "first", "last"),
    [
        (
            {"conversation": [{"Q": "a", "A": "b"}]},
            "conversations that cannot be read",
            "A conversation is {'messages'",
        ),
        ({"row_idx": 1, "row": GOOD}, "rows with the record inside a key", "rows = [row['row'] for row in rows if not"),
        ({"id": 1, "data": {"question": "a", "answer": "b"}}, "rows with the record inside a key", "[row['data'] for"),
        ({"prompt": "Sort.", "code": "def sort(x): ..."}, "instructions or questions without answers", "'code' is the"),
        ({"instruction": "Hi", "completions": [{"response": "a"}]}, "instructions with several rated", "best answer"),
        ({"instruction": "Hi", "output": ["a", "b"]}, "instructions with a list of answers", "row['output'][0]"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "preference pairs", "'output': 'chosen', 'rejected': None}"),
        ({"prompt": "Hi", "completion": "a", "label": True}, "answers marked good or bad", "row['label'] in (True"),
        (
            {"message_tree_id": "1", "prompt": {"text": "Hi", "replies": []}},
            "trees of replies that cannot be read",
            "Each message of a tree has a 'text', a 'role'",
        ),
        ({"message_id": "2", "parent_id": "1", "text": "Hi"}, "messages of OpenAssistant", "the file of its trees"),
        ({"question_id": 81, "turns": ["a", "b"]}, "questions of MT-bench", "alpaca-lora answer MODEL"),
        ({"prompt": "Why?"}, "instructions or questions without answers", "alpaca-lora answer MODEL"),
        ({"Instruction": "Why?"}, "instructions or questions without answers", "alpaca-lora answer MODEL"),
        ({"question": "a", "choices": ["b", "c"], "answerKey": "B"}, "questions with choices", "with the choices in"),
        ({"question": "a", "answers": {"text": ["b"]}}, "questions with a list of answers", "['answers']['text'][0]"),
        ({"text": "Once upon a time"}, "texts, each in a single key", "split each text"),
        (
            {"instruction": "a", "output_1": "x", "output_2": "y", "preference": 1},
            "annotations of AlpacaEval",
            "compare",
        ),
        ({**GOOD, "generator": "gpt4", "dataset": "koala"}, "answers of a model to an evaluation set", "compare"),
        ({"prompt": "Hi", "instruction": "Hi", "input": "", "response": "a", "target": "b"}, "predictions", "compare"),
        ({"id": "1", "instruction": "Hi", "instances": []}, "Self-Instruct seed tasks", "for one in row['instances']"),
    ],
)
def test_files_of_another_shape_are_called_by_their_name(row, first, last):
    for read in (load_records, lint):
        with pytest.raises(DataError) as caught:
            read([row] * 3)
        lines = str(caught.value).splitlines()
        assert lines[0].startswith(f"<list>: these are {first}"), lines[0]
        assert last in lines[-1]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "each a bare list of messages"),
        ([GOOD, GOOD], "lists of objects"),
    ],
)
def test_lists_in_the_place_of_rows_are_unwrapped(rows, what):
    with pytest.raises(DataError) as caught:
        load_records([rows] * 3)
    first, *_, last = str(caught.value).splitlines()
    assert what in first
    found = load_records(eval(last.partition("rows = ")[2], {"rows": [rows] * 3}))
    assert found.records[0].output in ("Tom", "Ho")


def test_values_without_names_are_read_by_their_first_row():
    rows = [["instruction", "response"], ["Hi", "Ho"], ["Hi again", "Ho ho"]]
    with pytest.raises(DataError, match="these are lists of values without their names") as caught:
        load_records(rows)
    made = eval(str(caught.value).partition("rows = ")[2], {"rows": rows})
    assert made == [{"instruction": "Hi", "response": "Ho"}, {"instruction": "Hi again", "response": "Ho ho"}]


def test_texts_without_a_key(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('["Why?", "How?"]', encoding="utf-8")
    with pytest.raises(DataError, match="these are bare texts, without a key") as caught:
        load_records(path)
    assert "[{'instruction': row} for row in rows]" in str(caught.value).splitlines()[-1]


def test_an_answer_under_a_slip_is_no_question():
    with pytest.raises(DataError) as caught:
        load_records([{"instruction": f"Add {n}.", "input": "", "ouput": "x"} for n in range(3)])
    assert "without answers" not in str(caught.value)
    assert "pass columns={'output': 'ouput'}" in str(caught.value)


def test_mixed_conversations_are_told_together_with_their_count():
    judged = {"messages": [*messages("a", "b"), {"role": "critic", "content": "Be kind."}]}
    begun = {"messages": messages("a", "b", "c")[1:]}
    with pytest.raises(DataError) as caught:
        load_records([judged, begun] * 3 + [{"messages": messages("a", "b")}] * 4)
    lines = str(caught.value).splitlines()
    assert lines[0] == "<list>: 6 of 10 rows are conversations that cannot be read."
    assert any("3 rows: the assistant begins this conversation, first record 2" in line for line in lines)
    assert any("3 rows: 'messages': a turn is from 'critic', first record 1" in line for line in lines)
    assert lines[-1].startswith("Mend what is named here, or remove these rows. A conversation is {'messages'")


def test_bad_rows_are_counted_by_kind_with_one_of_each():
    rows = [GOOD] * 3 + [{"instruction": "a"}] * 12 + [{**GOOD, "input": n} for n in (5, 6)] + [["x"]]
    with pytest.raises(DataError) as caught:
        load_records(rows)
    lines = str(caught.value).splitlines()
    assert lines[0] == "<list>: 15 of 18 rows are no records."
    assert lines[1].startswith("  12 rows: the key 'output' is missing, first record 4. Keys of this record")
    assert lines[2].startswith("  2 rows: 'input' is an int, not a string, first record 16: 'input' is 5 (int)")
    assert lines[3].startswith("  1 row: this is a list, not an object, first record 18")
    assert lines[-1].startswith("Mend or remove these rows")
    shown = str(lint(rows))
    assert all(line in shown for line in lines[1:4])


def test_some_conversations_among_records_are_counted(tmp_path):
    with pytest.raises(DataError) as caught:
        load_records([GOOD] * 5 + [{"conversations": turns(6)}, *[{"conversations": turns(6)[1:]}] * 2])
    lines = str(caught.value).splitlines()
    assert lines[0] == "<list>: 2 of 8 rows are conversations that the assistant begins."
    assert "2 rows: the assistant begins this conversation" in lines[1] and "first record 7" in lines[1]


def test_bad_rows_lost_keys_and_empty_outputs_are_said_together():
    rows = [{**GOOD, "persona": "Be kind."}, {**GOOD, "output": ""}, {"instruction": "a"}]
    with pytest.raises(DataError) as caught:
        load_records(rows)
    assert all(
        part in str(caught.value) for part in ("1 row: the key 'output'", "'persona' is not read", "empty output")
    )


COMMANDS = [
    ({"instruction": "Hi", "output": ["Ho", "Hey"]}, [Record("Hi", "", "Ho")]),
    ({"row_idx": 1, "row": GOOD, "truncated_cells": []}, [Record(**GOOD)]),
    ({"prompt": "Hi", "completion": "Ho", "label": True}, [Record("Hi", "", "Ho")]),
    (
        {"instruction": "Add.", "instances": [{"input": "2, 3", "output": "5"}, {"input": "1, 1", "output": "2"}]},
        [Record("Add.", "2, 3", "5"), Record("Add.", "1, 1", "2")],
    ),
    ({"question": "Hi", "context": "A ship.", "answers": {"text": ["Ho", "Hey"]}}, [Record("Hi", "A ship.", "Ho")]),
]


@pytest.mark.parametrize(("row", "records"), COMMANDS)
def test_the_expression_of_a_message_gives_records(row, records):
    with pytest.raises(DataError) as caught:
        load_records([row] * 2)
    made = eval(str(caught.value).partition("rows = ")[2], {"rows": [row] * 2})
    assert load_records(made).records == records * 2


GULL = "Tom is a good name for a cat that likes milk and sleeps all day."
PAIRS = [
    {"prompt": "Hi", "chosen": GULL, "rejected": "No."},
    {"system": "", "question": "Hi", "chosen": GULL, "rejected": "No."},
    {"instruction": "Hi", "input": "", "chosen": GULL, "rejected": "No."},
    {"Prompt": "Hi", "Chosen": GULL, "Rejected": "No."},
    {"prompt": "Hi", "pref": GULL, "unpref": "No."},
    {"question": "Hi", "response_j": GULL, "response_k": "No."},
    {"prompt": "Hi", "accepted": GULL, "rejected": "No."},
]


@pytest.mark.parametrize("row", PAIRS)
def test_the_columns_of_a_message_read_the_better_answers(row):
    with pytest.raises(DataError, match="^<list>: these are preference pairs, a better and a worse answer") as caught:
        load_records([row] * 3)
    columns = ast.literal_eval(re.search(r"columns=(\{.*\})", str(caught.value))[1])
    assert load_records([row] * 3, columns=columns).records == [Record("Hi", "", GULL)] * 3


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
        {"chosen": messages("Hi", "Ho"), "rejected": messages("Hi", "No.")},
        {"prompt": messages("Hi"), "chosen": messages("Hi", "Ho")[1:], "rejected": messages("Hi", "No.")[1:]},
    ],
)
def test_whole_dialogues_that_were_compared_are_named(row):
    for read in (lint, load_records):
        with pytest.raises(DataError, match="^<list>: these are preference pairs") as caught:
            read([row] * 3)
        last = str(caught.value).splitlines()[-1]
        assert last.startswith("To train on both answers, set objective=dpo, or orpo. To take the better ones alone,")


@pytest.mark.parametrize("keys", [("response_0", "response_1"), ("answer_1", "answer_2"), ("output_A", "output_B")])
def test_two_answers_are_preference_pairs(keys):
    rows = [{"prompt": "Hi", keys[0]: GULL, keys[1]: "No.", "better_response_id": n % 2} for n in range(3)]
    with pytest.raises(DataError, match=f"the better of '{keys[0]}' and '{keys[1]}'") as caught:
        load_records(rows)
    assert str(caught.value).startswith("<list>: these are preference pairs, two answers to each prompt")


def test_rows_with_an_answer_of_their_own_leave_both_out():
    rows = [{"instruction": f"Hi {n}", "input": "", "output": "Tom", "chosen": GULL, "rejected": "No."} for n in "12"]
    with pytest.raises(DataError, match="these are preference pairs") as caught:
        load_records(rows)
    assert str(caught.value).endswith("leave both out with columns={'chosen': None, 'rejected': None}.")
    assert len(load_records(rows, columns={"chosen": None, "rejected": None})) == 2
