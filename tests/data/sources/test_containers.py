"""Objects that hold all the rows are named, and what the message says to run gives the records."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from alpaca_lora.data.records import load_records
from alpaca_lora.data.sources.containers import unwrapping
from alpaca_lora.errors import DataError

RECORDS = [{"instruction": f"Add {n} to {n}.", "input": "", "output": f"{2 * n}"} for n in range(3)]
OTHER = [{"instruction": "Held out.", "input": "", "output": "Yes"}]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"version": 1, "data": RECORDS}, "inside the key 'data'"),
        ({"schema": {"fields": [{"name": "output"}]}, "data": RECORDS}, "inside the key 'data'"),
        ({"data": {"train": RECORDS}}, "inside the key 'train'"),
        ({"meta": {"by": "us"}, "result": {"items": RECORDS}}, "inside the key 'items'"),
        ({"authors": [{"name": "us"}], "examples": RECORDS}, "inside the key 'examples'"),
        ({"math": RECORDS[:1], "code": RECORDS[1:]}, "inside several keys, 'math', 'code'"),
        (
            {"test": OTHER, "train": RECORDS},
            "several splits: 'test' with 1 rows, 'train' with 3 rows; train on 'train'",
        ),
        ({"data": {"validation": OTHER, "train": RECORDS}}, "train on 'train' alone"),
        ({str(n): row for n, row in enumerate(RECORDS)}, "a dict of records, each under a key of its own"),
        ({key: {str(n): row[key] for n, row in enumerate(RECORDS)} for key in RECORDS[0]}, "a dict of columns"),
        ({key: [row[key] for row in RECORDS] for key in RECORDS[0]}, "a dict of lists"),
    ],
)
def test_the_rows_come_out_with_what_the_message_says(tmp_path, value, what):
    with pytest.raises(DataError) as caught:
        load_records(value)
    assert what in str(caught.value)
    expression = re.search(r"rows = (.*)", str(caught.value))[1]
    assert eval(expression, {"data": value}) == RECORDS  # the very code that a user is told to run
    path = tmp_path / "a b.json"
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_records(path)
    assert what in str(caught.value).splitlines()[0]
    code = re.search(r'python -c "(.*)"$', str(caught.value))[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert load_records(tmp_path / "a b.records.json").records == load_records(RECORDS).records


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"test": OTHER, "validation": OTHER}, "Name one: rows = data[<its name>]"),
        ({"instruction": ["a", "b"], "output": ["b"]}, "lists of different lengths"),
        ({"a": {"b": "c"}}, "none of them looks like a record"),
    ],
)
def test_where_no_code_is_right_none_is_given(value, what):
    assert what in unwrapping(value) and "python -c" not in unwrapping(value, "x.json")


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "output": "b", "tags": [{}]},
        {"question": "a", "answer": "b", "sources": [{"name": "c"}]},
        {"conversations": [{"from": "human", "value": "a"}]},
        {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}]},
        {"id": 7},
    ],
)
def test_a_row_is_no_unwrapping(row):
    assert unwrapping(row) == ""


def test_a_key_without_rows_is_named():
    assert "inside the key 'rows'" in unwrapping({"rows": []})


@pytest.mark.parametrize("name", ["it's.json", "a $HOME `b`.json", 'a "b".json'])
def test_the_command_is_right_in_a_shell_whatever_the_file_is_called(tmp_path, name):
    if os.name == "nt":
        pytest.skip("names and quoting of a POSIX shell")
    (tmp_path / name).write_text(json.dumps({"data": RECORDS}), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_records(tmp_path / name)
    command = "python -c " + str(caught.value).partition("python -c ")[2]
    command = command.replace("python", shlex.quote(sys.executable), 1)
    subprocess.run(["sh", "-c", command], check=True)
    assert len(load_records(tmp_path / name.replace(".json", ".records.json"))) == len(RECORDS)
