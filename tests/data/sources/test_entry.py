"""Sources of which more is said than a name: columns of their own, splits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpaca_lora import FinetuneConfig, lint
from alpaca_lora.cli.command_line import canonical
from alpaca_lora.data.records import load_records
from alpaca_lora.data.sources.entry import source_entries
from alpaca_lora.errors import ConfigError, DataError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"instruction": "Say a", "output": "a"}\n')
    Path("b.csv").write_text("question,answer,notes\nSay b,b,long ago\nSay c,c,now\n")
    return tmp_path


def outputs(data, **options):
    return [record.output for record in load_records(data, **options).records]


B = {"path": "b.csv", "columns": {"instruction": "question", "output": "answer"}}


def test_each_source_may_have_columns_of_its_own(here):
    assert outputs(["a.jsonl", B]) == ["a", "b", "c"]
    assert outputs(B) == ["b", "c"]
    assert outputs(["a.jsonl", {"path": "b.csv"}][1:], columns=B["columns"]) == ["b", "c"]
    Path("c.jsonl").write_text('{"frage": "Sag d", "output": "d"}\n')
    assert outputs(["c.jsonl", B], columns={"instruction": "frage"}) == ["d", "b", "c"]
    with pytest.raises(ConfigError, match="each source of data names its own"):
        load_records([B], columns={"instruction": "frage"})


def test_problems_name_the_source_and_the_record_whose_columns_are_wrong(here):
    Path("b.csv").write_text("question,reply\nSay b,b\n")
    with pytest.raises(
        DataError, match=r"^b.csv, record 1 \(line 2\): columns reads 'output' from 'answer', which is not there"
    ):
        load_records(["a.jsonl", B])
    with pytest.raises(DataError, match=r"columns leaves out 'nots', which no record has.* first record: 'question'"):
        load_records(["a.jsonl", {"path": "b.csv", "columns": {**B["columns"], "output": "reply", "nots": None}}])
    with pytest.raises(ConfigError, match="'outputs' is no field of a record"):
        load_records([{"path": "b.csv", "columns": {"outputs": "answer"}}])


def test_lint_reads_and_mends_each_source_by_its_own_columns(here):
    Path("b.csv").write_text("question,answer,notes\nSay b, b ,long ago\nSay a,a,now\n")
    report = lint(["a.jsonl", B], fix="out.jsonl")
    assert [one.record for one in report.by_check["duplicate"]] == [3]
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == [
        {"instruction": "Say a", "input": "", "output": "a"},
        {"instruction": "Say b", "input": "", "output": "b", "notes": "long ago"},
    ]


def test_a_split_of_a_saved_data_set(here):
    datasets = pytest.importorskip("datasets")
    rows = [{"instruction": "Say t", "output": "t"}]
    test = datasets.Dataset.from_list([{**rows[0], "output": "u"}])
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows), test=test).save_to_disk("saved")
    test.save_to_disk("plain")
    assert outputs(["saved"]) == ["t"]
    assert outputs({"path": "saved", "split": "test"}) == ["u"]
    assert outputs([{"path": "saved", "split": "test"}, {"path": "saved", "split": "train"}]) == ["u", "t"]
    with pytest.raises(DataError, match="saved: no split 'dev'; there are 'train', 'test'"):
        load_records({"path": "saved", "split": "dev"})
    with pytest.raises(DataError, match="plain: split is 'test', but this folder has no splits"):
        load_records({"path": "plain", "split": "test"})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"wieght": 2}, r"'wieght' is no key of a source. Did you mean 'weight'\?"),
        ({"weight": 0}, "weight is 0, and must be a number above 0"),
        ({"weight": True}, "weight is True"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"count": 1.5}, "count is 1.5, and must be a whole number"),
        ({"count": 0}, "count is 0"),
        ({"count": 1, "weight": 1}, "Give one"),
        ({"columns": "answer"}, "columns is 'answer'"),
        ({"split": ""}, "split is '', and must be a name"),
        ({"split": "test"}, "a.jsonl: split is for data sets of the hub"),
        ({"revision": "main"}, "a.jsonl: revision is for data sets"),
        ({"config": "en"}, "a.jsonl: config is for data sets"),
    ],
)
def test_what_cannot_be_said_of_a_source(here, entry, message):
    for data in ({"path": "a.jsonl", **entry}, ["b.csv", {"path": "a.jsonl", **entry}]):
        with pytest.raises(DataError, match=message):
            load_records(data)


@pytest.mark.parametrize("entry", [{"weight": 3}, {"path": ["a.jsonl", "b.csv"], "weight": 1}, {"path": 3}])
def test_a_source_has_one_path(here, entry):
    for data in (entry, [entry], ["b.csv", entry]):
        with pytest.raises(DataError, match="A source is told where it is by one name"):
            load_records(data)


def test_rows_with_a_path_are_rows(here):
    assert source_entries([{"path": "x.png", "instruction": "Say a", "output": "a"}]) is None
    assert source_entries([{"path": "x.png", "question": "Say a", "answer": "a"}]) is None
    assert len(source_entries([{"path": "a.jsonl"}, Path("b.csv")])) == 2


def test_the_seeds_and_a_named_twice_source(here):
    assert len(load_records([{"path": "seeds", "weight": 2}, {"path": "a.jsonl", "weight": 1}])) == 176
    with pytest.raises(DataError, match="named 2 times.*with a weight"):
        load_records([{"path": "a.jsonl", "weight": 2}, "a.jsonl"])


def test_settings_and_command_line_take_mappings(here):
    asked = [{"path": "a.jsonl", "weight": 2}, {"path": "b.csv", "columns": {"output": "answer"}, "weight": 1}]
    config = FinetuneConfig(base_model="demo", data=[asked[0], {**asked[1], "path": Path("b.csv")}], output_dir="out")
    assert config.to_dict()["data"] == asked and config.data_name == "a.jsonl + b.csv"
    words = ["--data", "{path: a.jsonl, weight: 2}", "--data", "b.csv"]
    (word,) = canonical(words, {"data": Any})
    assert json.loads(word.removeprefix("--data=")) == [asked[0], "b.csv"]
    (word,) = canonical(words[:2], {"data": Any})
    assert json.loads(word.removeprefix("--data=")) == [asked[0]]


def test_what_is_typed_as_a_mapping_and_is_none_is_told(here):
    for words in (["--data", "{path: a.jsonl, weight: 3"], ["{path: a.jsonl"]):
        with pytest.raises(
            ConfigError, match="data: '{path: a.jsonl.* cannot be read. Write {path: a.json, weight: 3}"
        ):
            canonical(words, {"data": Any}, ["data"])
    (word,) = canonical(["{path: a.jsonl, weight: 2}"], {"data": Any}, ["data"])
    assert json.loads(word) == [{"path": "a.jsonl", "weight": 2}]
