"""One row to one record: keys, types, conversations and column mappings."""

from __future__ import annotations

import json
from datetime import date

import pytest

from alpaca_lora.data.record import FIELDS, Conversation, Record
from alpaca_lora.data.records import load_records
from alpaca_lora.data.records.reader import RowReader
from alpaca_lora.data.records.row_problem import RowProblem
from alpaca_lora.data.sources import Rows
from alpaca_lora.errors import ConfigError, DataError, a, counted


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


@pytest.mark.parametrize("extra", [{}, {"input": None}, {"input": ""}])
def test_absent_or_null_input_is_empty(extra):
    assert RowReader().read({"instruction": "a", "output": "b", **extra}) == Record("a", "", "b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instrution": "a", "output": "b"}, r"'instruction' is missing. Did you mean 'instrution'\? Keys .*'output'"),
        ({"instruction": "a", "Output": "b"}, r"'output' is missing. Did you mean 'Output'\?"),
        ({"instruction": "a", "answer": "b"}, r"'output' is missing.*Rename the key, or pass columns=\{'output':"),
        (
            {"instruction": "a", "inputs": "c", "output": "b"},
            r"no key 'input', but there is 'inputs'. Did you mean 'inp",
        ),
        ({"instruction": 5, "output": "b"}, r"'instruction' is 5 \(int\), not a string; write it as text"),
        ({"instruction": "a", "output": ["b"]}, r"'output' is \['b'\] \(list\), not a string"),
        ({"instruction": "a", "output": date(2024, 1, 31)}, r"'output' is .*2024.* \(date\), not a string"),
        ({"instruction": "a", "output": "ok \ud83d"}, r"'output' holds the lone surrogate \\ud83d at character 4"),
        (["a", "b"], r"a list, not an object"),
        ("a", r"'a', a str, not an object"),
        (None, r"None, a NoneType, not an object"),
    ],
)
def test_rows_that_are_no_records(row, message):
    with pytest.raises(RowProblem, match=message):
        RowReader().read(row)


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [human("Hi"), gpt("Hello")]},
        {"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}], "id": "x"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ],
)
def test_one_exchange_is_a_record(row):
    assert RowReader().read(row) == Record("Hi", "", "Hello")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([gpt("a"), human("b"), gpt("c")], r"the assistant begins this conversation, so there is nothing its first"),
        ([human("a"), human("b")], r"nobody answers \(turns: user\)"),
        ([], r"nobody answers \(turns: nobody\)"),
        ([{"from": "system", "value": "Be kind."}], r"nobody answers \(turns: system\)"),
        ([{"from": "critic", "value": "x"}], r"turn 1 is from 'critic'; known are 'human', 'user', 'gpt'"),
        ([{"from": 3, "value": "x"}], r"turn 1 is from 3; known are"),
        ([human("a"), {**gpt("b"), "weight": 0.5}], r"'weight' of turn 2 is 0.5; a turn is learned \(1\) or not \(0\)"),
        ([human("a"), {**gpt("b"), "train": False}], r"no turn of the assistant is to be learned"),
        (
            [human("a"), {"from": "function_call", "value": "f(x)"}],
            r"turn 2 is a function call, but its text is no JSON",
        ),
        ([human([{"type": "image"}]), gpt("b")], r"'conversations\[0\].value' holds an image part, which a text model"),
        ([human("a"), {"from": "gpt", "text": "b"}], r"turn 2 has no 'value'; its keys are 'from', 'text'"),
        ([human("a"), gpt(7)], r"'conversations\[1\].value' is 7 \(int\), not a string"),
        ("Hi", r"it should be a list of turns"),
    ],
)
def test_conversations_that_cannot_be_read(turns, message):
    with pytest.raises(RowProblem, match=message):
        RowReader().read({"conversations": turns})


def messages(*texts, system=""):
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + turns


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}


@pytest.mark.parametrize(
    ("row", "expected", "learned", "tools"),
    [
        ({"conversations": [human("a"), gpt("b"), human("c"), gpt("d")]}, messages("a", "b", "c", "d"), (1, 3), ()),
        ({"messages": messages("a", "b", system="Be kind.")}, messages("a", "b", system="Be kind."), (2,), ()),
        (
            {"conversations": [{"from": "system", "value": "Be kind."}, human("a"), gpt("b")]},
            messages("a", "b", system="Be kind."),
            (2,),
            (),
        ),
        (
            {"system": "Be kind.", "conversations": [human("a"), gpt("b")]},
            messages("a", "b", system="Be kind."),
            (2,),
            (),
        ),
        (
            {"system": "Be kind.", "history": [["a", "b"]], "instruction": "c", "input": "d", "output": "e"},
            messages("a", "b", "c\n\nd", "e", system="Be kind."),
            (2, 4),
            (),
        ),
        ({"instruction": "c", "output": "d", "system": "Be kind."}, messages("c", "d", system="Be kind."), (2,), ()),
        ({"instruction": "c", "output": "d", "history": [("a", "b")]}, messages("a", "b", "c", "d"), (1, 3), ()),
        ({"instruction": "c", "output": "d", "tools": TOOLS}, messages("c", "d"), (1,), tuple(TOOLS)),
        (
            {"conversations": [human("a"), gpt("b")], "tools": json.dumps(TOOLS)},
            messages("a", "b"),
            (1,),
            tuple(TOOLS),
        ),
        (
            {"messages": [*messages("a"), {"role": "assistant", "content": "b", "train": False}, *messages("c", "d")]},
            messages("a", "b", "c", "d"),
            (3,),
            (),
        ),
        (
            {"conversations": [human("a"), {**gpt("b"), "loss_weight": 1.0}, human("c"), {**gpt("d"), "weight": 1}]},
            messages("a", "b", "c", "d"),
            (1, 3),
            (),
        ),
        (
            {"messages": [*messages("a"), {"role": "assistant", "content": None, "tool_calls": [CALL]},
                          {"role": "tool", "content": "5", "tool_call_id": "x"}, messages("", "b")[1]]},
            [*messages("a"), {"role": "assistant", "content": "", "tool_calls": [CALL]},
             {"role": "tool", "content": "5", "tool_call_id": "x"}, messages("", "b")[1]],
            (1, 3),
            (),
        ),
        (
            {"conversations": [human("a"), {"from": "function_call", "value": json.dumps(CALL["function"])},
                               {"from": "observation", "value": "5"}, gpt("b")]},
            [*messages("a"), {"role": "assistant", "content": "", "tool_calls": [CALL]},
             {"role": "tool", "content": "5"}, messages("", "b")[1]],
            (1, 3),
            (),
        ),
        (
            {"messages": [*messages("a"), {"role": "assistant", "content": "b", "reasoning_content": "hm"}]},
            [*messages("a"), {"role": "assistant", "content": "b", "reasoning_content": "hm"}],
            (1,),
            (),
        ),
    ],
)  # fmt: skip
def test_conversations_are_read_whole(row, expected, learned, tools):
    assert RowReader().read(row) == Conversation(tuple(expected), learned, tools)


@pytest.mark.parametrize("more", [[human("c")], [human("c"), {**gpt("d"), "train": False}]])
def test_what_follows_the_last_answer_to_learn_is_not_kept(more):
    assert RowReader().read({"conversations": [human("a"), gpt("b"), *more]}) == Record("a", "", "b")


@pytest.mark.parametrize("key", ["text", "value"])
def test_texts_in_parts_are_joined(key):
    parts = [{"type": "text", key: "Hi, "}, {"type": "text", key: "you."}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": ["H", "o"]}]}
    assert RowReader().read(row) == Record("Hi, you.", "", "Ho")


@pytest.mark.parametrize("extra", [{"system": ""}, {"system": None, "history": []}, {"history": None, "tools": "[]"}])
def test_what_says_nothing_leaves_a_record(extra):
    assert RowReader().read({"instruction": "a", "output": "b", **extra}) == Record("a", "", "b")
    assert RowReader({key: None for key in extra}).read({"instruction": "a", "output": "b", **extra})


def test_system_history_and_tools_are_left_out_on_purpose():
    row = {"instruction": "a", "output": "b", "system": "x", "history": [["c", "d"]], "tools": TOOLS}
    assert RowReader({"system": None, "history": None, "tools": None}).read(row) == Record("a", "", "b")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"history": "Hi"}, r"'history' is 'Hi'; it should be a list of pairs"),
        ({"history": [["a"]]}, r"'history' is \[\['a'\]\]; it should be a list of pairs"),
        ({"history": [["a", 3]]}, r"'history' is 3 \(int\), not a string"),
        ({"tools": "add(a, b)"}, r"'tools' is 'add\(a, b\)'; it should be a list of JSON schemas"),
        ({"system": 5}, r"'system' is 5 \(int\), not a string"),
    ],
)
def test_system_history_and_tools_of_another_kind(extra, message):
    with pytest.raises(RowProblem, match=message):
        RowReader().read({"instruction": "a", "output": "b", **extra})


def test_a_missing_mapped_column_names_those_present():
    reader = RowReader({"instruction": "question", "output": "answer"})
    with pytest.raises(
        RowProblem, match=r"reads 'output' from 'answer'.*Did you mean 'answers'\? Keys.*'question', 'ans"
    ):
        reader.read({"question": "q", "answers": "a"})


def test_their_input_may_be_our_instruction():
    reader = RowReader({"instruction": "input"})
    assert reader.read({"input": "q", "output": "a"}) == Record("q", "", "a")
    assert reader.missing_column() == ""


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"instrution": "q"}, r"'instrution' is no field of a record. Did you mean 'instruction'\?"),
        ({"output": 3}, r"'output' is mapped to 3, an int"),
        ({"instruction": "q", "output": "q"}, r"'instruction', 'output' all read the key 'q'"),
        ({"input": "instruction"}, r"'instruction', 'input' all read the key 'instruction'"),
        ("question", r"'question' is no mapping"),
    ],
)
def test_columns_are_checked(columns, message):
    with pytest.raises(ConfigError, match=message):
        RowReader(columns)


@pytest.mark.parametrize("typo", ["inputs", "Input", "inptu", "input "])
def test_an_input_with_a_slip_is_advised_as_the_input(typo):
    row = {"instruction": "Add.", typo: "2, 3", "output": "5"}
    with pytest.raises(RowProblem) as caught:
        RowReader().read(row)
    assert f"pass columns={{'input': {typo!r}}}; if it is something else, columns={{{typo!r}: None}}" in str(
        caught.value
    )
    assert RowReader({"input": typo}).read(row) == Record("Add.", "2, 3", "5")


@pytest.mark.parametrize(
    ("keys", "near", "columns"),
    [
        (("instuction", "input", "output"), "instuction", {"instruction": "instuction"}),
        (("instruction", "input", "ouput"), "ouput", {"output": "ouput"}),
        (("Instruction", "Input", "Output"), "Instruction", {field: field.title() for field in FIELDS}),
        (("INSTRUCTION", "outputs"), "INSTRUCTION", {"instruction": "INSTRUCTION", "output": "outputs"}),
        ((" instruction", "output"), " instruction", {"instruction": " instruction"}),
        (("inputs", "targets"), "", {"instruction": "inputs", "output": "targets"}),
        (("input", "output"), "", {"instruction": "input"}),
        (("input", "output", "prompt"), "", {"instruction": "prompt"}),
        (("human", "gpt"), "", {"instruction": "human", "output": "gpt"}),
        (("instruction", "output_1"), "", {"output": "<its name here>"}),
    ],
)
def test_missing_keys_are_found_under_slips_and_other_cases(keys, near, columns):
    row = {key: f"text {place}" for place, key in enumerate(keys)}
    with pytest.raises(RowProblem) as caught:
        RowReader().read(row)
    message = str(caught.value)
    assert (f"Did you mean {near!r}?" in message) == bool(near)
    assert message.endswith(f"pass columns={columns}.".replace("'<", "<").replace(">'", ">"))
    if "<" not in message:
        texts = {field: row.get(columns.get(field, field), "") for field in FIELDS}
        texts["input"] = (
            "" if columns["instruction" if "instruction" in columns else "output"] == "input" else texts["input"]
        )
        assert RowReader(columns).read(row) == Record(**texts)


def test_where():
    assert Rows([1, 2], "x.json", [1, 12]).where(1) == "x.json, record 2 (line 12)"
    assert Rows([1, 2], "<list>").where(1) == "<list>, record 2"


def test_numbers_and_words_agree():
    assert [a(word) for word in ("int", "object", "str", "uint8")] == ["an int", "an object", "a str", "a uint8"]
    assert [counted(number, "row") for number in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    with pytest.raises(DataError, match=r"'output' is an int, not a string"):
        load_records([{"instruction": "a", "output": 3}] * 2)
    with pytest.raises(DataError, match=r"this is 3, an int, not an object"):
        load_records([3])
