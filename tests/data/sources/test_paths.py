"""Several sources as one: lists, patterns and folders, their order, their places, and the ways to get them wrong."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from alpaca_lora import FinetuneConfig, lint
from alpaca_lora.data.records import load_records
from alpaca_lora.data.sources import Rows
from alpaca_lora.data.sources.entry import SourceEntry
from alpaca_lora.data.sources.paths import list_sources
from alpaca_lora.errors import ConfigError, DataError


def write(path: Path, *outputs: str, **extra: str) -> Path:
    rows = [{"instruction": f"Say {output}", "output": output, **extra} for output in outputs]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("b.jsonl"), "b1", "b2")
    write(Path("a.jsonl"), "a1")
    write(Path("many") / "two.jsonl", "m2")
    write(Path("many") / "one.jsonl", "m1")
    return tmp_path


def outputs(data):
    return [record.output for record in load_records(data).records]


def test_sources_are_read_one_after_the_other_in_the_order_given(here):
    assert outputs(["b.jsonl", Path("a.jsonl")]) == ["b1", "b2", "a1"]
    assert outputs(["a.jsonl", "b.jsonl"]) == ["a1", "b1", "b2"]
    assert outputs("*.jsonl") == outputs(Path("*.jsonl")) == ["a1", "b1", "b2"]
    assert outputs("many") == outputs([Path("many")]) == ["m1", "m2"]
    assert outputs(["many", "a.jsonl"]) == ["m1", "m2", "a1"]
    assert outputs(["a.jsonl"]) == ["a1"] and load_records(["a.jsonl"]).source == "a.jsonl"
    assert outputs("**/o*.jsonl") == ["m1"]
    assert len(load_records(["seeds", "a.jsonl"])) == len(load_records("seeds")) + 1


def test_one_source_in_a_list_or_two_halves_have_the_same_fingerprint(here):
    write(Path("whole.jsonl"), "b1", "b2", "a1")
    assert load_records(["b.jsonl", "a.jsonl"]).fingerprint == load_records("whole.jsonl").fingerprint


def test_a_record_is_named_by_its_source_and_its_number_there(here):
    Path("bad.jsonl").write_text('{"instruction": "x", "output": "y"}\n{"instruction": "x", "output": 3}\n')
    with pytest.raises(DataError, match=r"^bad.jsonl, record 2 \(line 2\): 'output' is 3 \(int\)"):
        load_records(["b.jsonl", "bad.jsonl", "a.jsonl"])
    found = load_records(["b.jsonl", "a.jsonl"])
    assert found.source == "b.jsonl + a.jsonl" and found.parts == (("b.jsonl", 2), ("a.jsonl", 1))
    assert found.numbers == [1, 2, 3] and found.subset([2]).parts == found.parts
    rows = Rows.joined([Rows([1, 2], "<list>"), Rows([3], "x.json", [7])])
    assert [rows.where(index) for index in range(3)] == [
        "<list>, record 1", "<list>, record 2", "x.json, record 1 (line 7)"
    ]  # fmt: skip
    write(Path("c.jsonl"), "c1", "")
    with pytest.raises(DataError, match=r"\(25.0%; numbers c.jsonl 2\)"):
        load_records(["b.jsonl", "c.jsonl"])


def test_lint_names_the_source_of_each_finding(here):
    write(Path("c.jsonl"), "c1", "b1")
    report = lint(["b.jsonl", "c.jsonl"])
    assert [one.record for one in report.by_check["duplicate"]] == [4]
    assert "c.jsonl 2\n" in str(report) and "record c.jsonl 2, instruction" in str(report)


def test_the_same_file_twice_is_an_error_however_it_is_named(here):
    for data in (["a.jsonl", "a.jsonl"], ["a.jsonl", "./a.jsonl"], ["a.jsonl", "*.jsonl"], ["many", "many/one.jsonl"]):
        with pytest.raises(DataError, match=r"is named 2 times.*Name it once"):
            load_records(data)
    Path("link.jsonl").symlink_to("a.jsonl")
    with pytest.raises(DataError, match="is named 2 times"):
        load_records(["a.jsonl", "link.jsonl"])
    with pytest.raises(DataError, match="'seeds' is named 2 times"):
        load_records(["seeds", "seeds"])


def test_copies_are_an_error_whatever_they_are_called(here):
    Path("a (1).jsonl").write_bytes(Path("a.jsonl").read_bytes())
    for data in (["a.jsonl", "a (1).jsonl"], "*.jsonl"):
        with pytest.raises(DataError, match=r"'a.jsonl' .*are copies, the same byte for byte.*count twice. Remove one"):
            load_records(data)
    Path("many/copy.jsonl").write_bytes(Path("many/two.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"'many/copy.jsonl' and 'many/two.jsonl' are copies"):
        load_records("many")
    write(Path("c.jsonl"), "a2")  # of the same size
    assert outputs(["a.jsonl", "c.jsonl"]) == ["a1", "a2"]


PARTS = ["train-00000-of-00003.jsonl", "train-00001-of-00003.jsonl", "train-00002-of-00003.jsonl"]


def test_a_part_is_refused_where_others_lie_beside_it_and_the_pattern_reads_them_all(here, monkeypatch):
    folder = Path("in [parts]")
    for number, name in enumerate([*PARTS, "test-00000-of-00003.jsonl"]):
        write(folder / name, f"p{number}")
    for data in (folder / PARTS[0], [folder / PARTS[0], folder / PARTS[1]], f"./{folder}/{PARTS[0]}"):
        with pytest.raises(DataError, match=r"part of a data set in 3 parts, of which [12] (is|are) named") as caught:
            load_records(data)
        assert f"'{PARTS[2]}'" in str(caught.value) and "test-" not in str(caught.value)
        pattern = str(caught.value).split("pass the pattern '")[1].split("'.")[0]
        assert outputs(pattern) == ["p0", "p1", "p2"]
    assert outputs([folder / name for name in PARTS]) == ["p0", "p1", "p2"]
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match=r"pass the pattern 'train-\[0-9\]\*-of-00003.jsonl'"):
        load_records(PARTS[0])
    write(Path("one.jsonl"), "p0")
    assert outputs("one.jsonl") == ["p0"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (PARTS[:1], r"in 3 parts, of which 1 is there \(missing: 00001, 00002\)"),
        (PARTS[:2], r"in 3 parts, of which 2 are there \(missing: 00002\)"),
        (PARTS[1:2], r"in 3 parts, of which 1 is there\. "),
        (["x part 2 of 12.jsonl"], r"in 12 parts, of which 1 is there\. "),
        (["x_2of2.jsonl"], r"in 2 parts, of which 1 is there \(missing: 1\)"),
        (
            [f"train-0000{number}-of-00003-0123456789abcde{number}.jsonl" for number in range(2)],
            r"of which 2 are there \(missing: 00002\)",
        ),
    ],
)
def test_missing_parts_are_told(tmp_path, names, said):
    for name in names:
        write(tmp_path / name, name)
    with pytest.warns(UserWarning, match=said) as caught:
        assert len(load_records(tmp_path)) == len(names)
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match=said):
        load_records([tmp_path / name for name in names])


def test_what_is_whole_or_no_part_is_silent(tmp_path):
    for name in [*PARTS, "train-00000-of-00001-0123456789abcdef.jsonl", "best-9-of-5.jsonl", "2 of 2024.jsonl"]:
        write(tmp_path / name, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_records(tmp_path)) == 6


@pytest.mark.parametrize("name", ["~$my.json", "~backup-of-nobody.jsonl", "~.json"])
def test_a_name_that_begins_with_a_tilde_and_names_no_user_is_a_file(here, name):
    with pytest.raises(DataError, match=r": no such file \(looked in"):
        load_records(name)
    write(Path(name), "t")
    assert outputs(name) == outputs(Path(name)) == outputs([name]) == ["t"]
    Path(name).write_bytes(b'[{"instruction": "a", "output": NaN}]')
    with pytest.raises(DataError, match="NaN is not JSON"):
        load_records(name)
    Path(name).write_bytes("é".encode("utf-16"))
    with pytest.raises(DataError, match="encoded in UTF-16"):
        load_records(name)


def test_a_pattern_without_a_match_lists_what_is_there(here):
    with pytest.raises(
        DataError, match=r"^\*.json: the pattern matches no file; .* holds 'a.jsonl', 'b.jsonl', 'many'"
    ):
        load_records("*.json")
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        load_records("nowhere/*.json")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"holds no data files. Name a JSON"),
        (["notes.txt"], r"holds no data files, but 'notes.txt'"),
        (
            ["a.jsonl", "notes.txt"],
            r"holds 'a.jsonl', and what is not read: 'notes.txt'. Name the files, or a pattern:",
        ),
        (["a.jsonl", "b.jsonl.zip"], r"what is not read: 'b.jsonl.zip'"),
        (["a.json", "a.csv", "b.csv"], r"files of one name and different kinds, maybe .*: 'a.csv', 'a.json'"),
        (["train.jsonl", "test.jsonl"], r"set aside for testing: 'test.jsonl', beside"),
        (["train-0.jsonl", "valid_0.jsonl"], r"set aside for testing: 'valid_0.jsonl'"),
    ],
)
def test_folders_that_are_no_source(tmp_path, names, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        write(folder / name, name)
    with pytest.raises(DataError, match=message):
        load_records(folder)


@pytest.mark.parametrize(
    "names",
    [
        ["train.json", "val.json"],
        ["a.json", "test.json", "train.json", "notes.txt"],
        ["train.jsonl", "test.json", "test.jsonl"],
    ],
)
def test_files_set_aside_for_testing_are_in_no_advice(tmp_path, names):
    for name in names:
        write(tmp_path / name, name)
    with pytest.raises(DataError) as caught:
        load_records(tmp_path)
    advice = str(caught.value).partition("Name the files to train on: ")[2]
    named = [name for name in names if name.startswith(("a", "train"))]
    assert advice == ", ".join(repr(str(tmp_path / name)) for name in named)
    assert len(load_records([tmp_path / name for name in named])) > 0


def test_what_goes_with_data_in_a_folder_is_passed_over(tmp_path):
    for name in ("latest.jsonl", "README.md", "LICENSE", ".hidden", "latest.lint.json"):
        write(tmp_path / name, "x")
    assert [Path(source.name).name for source in list_sources([SourceEntry(tmp_path)])] == ["latest.jsonl"]


def test_lists_that_are_neither_are_errors(here):
    row = {"instruction": "a", "output": "b"}
    for data in ([row, "a.jsonl"], ["a.jsonl", row], ["a.jsonl", None], ["a.jsonl", " "]):
        with pytest.raises(DataError, match=r"data: entry \d of the list is .*Give either a list of files"):
            load_records(data)
    with pytest.raises(DataError, match=r"^missing.json: no such file"):
        load_records(["a.jsonl", "missing.json"])
    write(Path("empty.jsonl"))
    Path("none.json").write_text("[]")
    with pytest.raises(DataError, match=r"^none.json: the source holds no records \(0 rows\)"):
        load_records(["a.jsonl", "none.json"])


def test_the_settings_keep_the_list():
    config = FinetuneConfig(base_model="demo", data=["a.json", Path("b.json")], output_dir="out")
    assert config.to_dict()["data"] == ["a.json", "b.json"] and config.data_name == "a.json + b.json"
    assert FinetuneConfig(**config.to_dict()).to_dict() == config.to_dict()
    assert FinetuneConfig(base_model="demo", data=[{"a": 1}], output_dir="out").to_dict()["data"] == "<list>"
    with pytest.raises(ConfigError, match=r"data: \[\] must be a file, a folder"):
        FinetuneConfig(base_model="demo", data=[], output_dir="out")
