"""What `data` may be: files, folders, hub ids, data sets, and the ways to get it wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.errors import DataError

ROWS = [{"instruction": "a", "input": "", "output": "b"}, {"instruction": "c", "input": "d", "output": "e"}]
RECORDS = [Record("a", "", "b"), Record("c", "d", "e")]


@pytest.mark.parametrize("name", ["./x", "missing/x.json", "x.json", "x.CSV", "/nowhere/x", "a/b/c", "x.tar.gz"])
def test_missing_file_does_not_ask_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r": no such file \(looked in .*Check the path") as caught:
        load_records(name)
    assert "hub" not in str(caught.value)


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "alpaca_data.json").touch()
    with pytest.raises(DataError, match=r"no such file .*Did you mean 'alpaca_data.json'\?"):
        load_records(tmp_path / "alpaca_dta.json")


def test_unreachable_hub_says_both(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_records("nobody-at-all/no-such-data")
    message = str(caught.value)
    assert f"nobody-at-all/no-such-data: there is no such file or folder (looked in {Path.cwd()})" in message
    assert "could not be loaded from the Hugging Face hub either" in message


def test_folder_of_save_to_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "splits")
    for name in ("plain", "splits"):
        found = load_records(tmp_path / name)
        assert found.records == RECORDS and found.source == str(tmp_path / name)
    (tmp_path / "plain" / "dataset_info.json").unlink()
    with pytest.raises(DataError, match=r"load_from_disk cannot read this folder: .*Save it again"):
        load_records(tmp_path / "plain")


def test_other_folder(tmp_path):
    (tmp_path / "train.json").touch()
    with pytest.raises(DataError, match=r"train.json: the file is empty"):
        load_records(str(tmp_path))


def test_dataset_objects():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    found = load_records(data)
    assert found.records == RECORDS and found.source == "<dataset>"
    assert load_records(data.with_format("numpy").select([1])).records == RECORDS[1:]
    assert load_records(datasets.DatasetDict(train=data)).records == RECORDS
    with pytest.raises(DataError, match=r"<dataset>: no split 'train'; there are 'test'"):
        load_records(datasets.DatasetDict(test=data))
    assert load_records(data.to_iterable_dataset()).records == RECORDS


def test_seeds():
    found = load_records("seeds")
    assert found.source == "seeds" and len(found) > 0 and not found.dropped


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"data": ROWS}, r"data is a dict: the records are inside the key 'data'"),
        ({"instruction": ["a"], "output": ["b"]}, r"data is a dict: this is a dict of lists"),
        (ROWS[0], r"data is a dict: pass a list of dicts, also for a single record"),
        (None, r"data is a NoneType; it should be a path, a hub id"),
        ("", r"data is ''; name a file, a hub id or 'seeds'"),
        ('[{"instruction": "a"}]', r"data is JSON text, .* pass json.loads"),
        ("https://example.com/x.json", r"addresses are not opened; download the file first"),
    ],
)
def test_what_is_no_source(data, message):
    with pytest.raises(DataError, match=message):
        load_records(data)


def test_data_frame():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match=r"data is a DataFrame; .* Pass df.to_dict\('records'\)"):
        load_records(pandas.DataFrame(ROWS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"[]", mtime=0), r"the file is compressed \(gzip\). Unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"this is a Git LFS pointer"),
        (
            b"instruction,output\na,b\n",
            r"begins with 'instruction,output\\na', .*a CSV file needs a name that ends in .csv",
        ),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    (tmp_path / "data.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_records(tmp_path / "data.txt")
