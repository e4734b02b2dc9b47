"""Files that hold no records: the first line says what they are, the last what to do; bad rows are counted by kind."""

from __future__ import annotations

import pytest

from alpaca_lora import lint
from alpaca_lora.data.records import load_records
from alpaca_lora.errors import DataError

GOOD = {"instruction": "Name a cat.", "input": "", "output": "Tom"}


def turns(count):
    return [{"from": ("human", "gpt")[n % 2], "value": f"text {n}"} for n in range(count)]


@pytest.mark.parametrize(
    ("row", "first", "last"),
    [
        ({"conversations": turns(4)}, "conversations of several turns", "split each into one record an exchange"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "preference pairs", "'output': 'chosen'}"),
        ({"prompt": "Hi", "completion": "a", "label": True}, "answers marked good or bad", "'output': 'completion'}"),
        ({"message_tree_id": "1", "prompt": {"text": "Hi", "replies": []}}, "conversation trees of Op", "best reply"),
        ({"message_id": "2", "parent_id": "1", "text": "Hi"}, "messages of OpenAssistant", "best reply"),
        ({"question_id": 81, "turns": ["a", "b"]}, "questions of MT-bench", "alpaca-lora answer MODEL"),
        ({"prompt": "Why?"}, "instructions or questions without answers", "alpaca-lora answer MODEL"),
        ({"Instruction": "Why?"}, "instructions or questions without answers", "alpaca-lora answer MODEL"),
        ({"text": "Once upon a time"}, "texts, each in a single key", "split each text"),
        (
            {"instruction": "a", "output_1": "x", "output_2": "y", "preference": 1},
            "annotations of AlpacaEval",
            "compare",
        ),
        ({**GOOD, "generator": "gpt4", "dataset": "koala"}, "answers of a model to an evaluation set", "compare"),
        ({"prompt": "Hi", "instruction": "Hi", "input": "", "response": "a", "target": "b"}, "predictions", "compare"),
        ({"id": "1", "instruction": "Hi", "instances": []}, "Self-Instruct seed tasks", "for every instance"),
    ],
)
def test_files_of_another_shape_are_called_by_their_name(row, first, last):
    for read in (load_records, lint):
        with pytest.raises(DataError) as caught:
            read([row] * 3)
        lines = str(caught.value).splitlines()
        assert lines[0].startswith(f"<list>: these are {first}"), lines[0]
        assert last in lines[-1]


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
        load_records([GOOD] * 5 + [{"conversations": turns(6)}] * 2)
    lines = str(caught.value).splitlines()
    assert lines[0] == "<list>: 2 of 7 rows are conversations of several turns, or with a system text."
    assert "2 rows: this conversation is no single exchange" in lines[1] and "first record 6" in lines[1]


def test_bad_rows_lost_keys_and_empty_outputs_are_said_together():
    rows = [{**GOOD, "system": "Be kind."}, {**GOOD, "output": ""}, {"instruction": "a"}]
    with pytest.raises(DataError) as caught:
        load_records(rows)
    assert all(
        part in str(caught.value) for part in ("1 row: the key 'output'", "'system' is not read", "empty output")
    )
