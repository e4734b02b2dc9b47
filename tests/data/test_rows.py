"""One row to one record: keys, types, ShareGPT exchanges and column mappings."""

from __future__ import annotations

from datetime import date

import pytest

from alpaca_lora.data.records import load_records
from alpaca_lora.data.rows import FIELDS, Record, RowProblem, RowReader, Rows
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
        ([human("a"), gpt("b"), human("c"), gpt("d")], r"4 turns \(human, gpt, human, gpt\).*Split it"),
        ([gpt("a"), human("b")], r"2 turns \(gpt, human\); a record is a single exchange"),
        ([], r"0 turns \(none\)"),
        ([{"from": "system", "value": "Be kind."}, human("a"), gpt("b")], r"has a system turn.*move its text"),
        ([{"from": "tool", "value": "x"}], r"turn 1 is from 'tool'; known are 'human', 'user', 'gpt'"),
        ([human("a"), {"from": "gpt", "text": "b"}], r"turn 2 has no 'value'; its keys are 'from', 'text'"),
        ([human("a"), gpt(7)], r"'conversations\[1\].value' is 7 \(int\), not a string"),
        ("Hi", r"it should be a list of turns"),
    ],
)
def test_conversations_that_are_no_single_exchange(turns, message):
    with pytest.raises(RowProblem, match=message):
        RowReader().read({"conversations": turns})


def test_a_system_text_beside_the_turns_is_not_lost():
    with pytest.raises(RowProblem, match="system turn"):
        RowReader().read({"system": "Be kind.", "conversations": [human("a"), gpt("b")]})


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
