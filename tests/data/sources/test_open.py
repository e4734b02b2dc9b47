"""What `data` may be: files, folders, hub ids, data sets, and the ways to get it wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shlex
import sqlite3
import subprocess
import sys
import zipfile
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


def test_a_link_to_nothing_is_called_that(tmp_path):
    (tmp_path / "l.json").symlink_to("gone.json")
    with pytest.raises(DataError, match="l.json: this is a link to gone.json, which is not there"):
        load_records(tmp_path / "l.json")


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
    with pytest.raises(DataError, match=r"data is a DataFrame; .* Pass json.loads\(df.to_json\(orient='records'\)\)"):
        load_records(pandas.DataFrame(ROWS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xfd7zXZ\0", r"the file is compressed \(xz\). Unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"this is a Git LFS pointer"),
        (
            b"instruction,output\na,b\n",
            r"this is CSV, with the columns 'instruction', 'output'. .*rename it to 'data.csv'",
        ),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    (tmp_path / "data.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_records(tmp_path / "data.txt")


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what", "advice"),
    [
        ("x.json", b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page", "Download the file itself"),
        ("x.csv", b"<html>x</html>", "a web page", "Download the file itself"),
        ("x.jsonl", b'{"error": "Repository not found"}', 'a server\'s answer, not data: {"error": "Repos', "Download"),
        ("x.json", b'{\n "detail": [{"msg": "no"}], "status": 404\n}', "the key 'detail'", "dump(data['detail']"),
        (
            "x.json",
            b'{"message": "API rate limit exceeded", "url": "x"}',
            "a server's answer, not data: {\"mess",
            "Down",
        ),
        (
            "x.json",
            b"404: Not Found",
            "the text '404: Not Found', perhaps a server's answer",
            "Download the file itself",
        ),
        ("x.json", b"Entry not found\n", "the text 'Entry not found'", "Download the file itself"),
        ("x.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook (.xlsx)", "as CSV UTF-8"),
        ("x.csv", zipped("xl/workbook.xml"), "an Excel workbook (.xlsx)", "as CSV UTF-8"),
        ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "an Excel workbook (.xls)", "as CSV UTF-8"),
        ("x.ods", zipped("mimetype", "content.xml"), "an OpenDocument file", "as CSV UTF-8"),
        ("x.docx", zipped("word/document.xml"), "a Word document", "Export the records"),
        ("x.pt", zipped("archive/data.pkl"), "a PyTorch checkpoint", "where a model is asked for"),
        ("x.zip", zipped("a.json"), "compressed (zip)", "Unpack it"),
        ("x.pdf", b"%PDF-1.7", "a PDF document", "Export the records"),
        ("x.safetensors", b"\x40" + b"\0" * 7 + b'{"__metadata__":{}}', "weights (safetensors)", "where a model"),
        ("x.png", b"\x89PNG\r\n", "an image (PNG)", "Name the file with the records"),
        ("x.ipynb", b'{"cells": [{"cell_type": "code"}], "nbformat": 4}', "a Jupyter notebook", "json.dump"),
        (
            "x.json",
            b"instruction\tinput\toutput\na\t\tb\n",
            "this is CSV, with the columns 'instruction',",
            "to 'x.csv'",
        ),
        ("x.jsonl", b'"question";"answer"\na;b\n' * 40, "this is CSV, with the columns 'question',", "to 'x.csv'"),
        ("x.csv", b"{\\rtf1\\ansi instruction,output}", "a rich text document (RTF)", "a plain text editor"),
        ("x.json", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n[]", "a server's answer with its headers", "the body alone"),
        ("x.md", b"| instruction | output |\n|---|:-:|\n| a | b |\n", "a table in Markdown", "Export the records"),
        ("x.json", b'const data = [{"a": 1}];', "JavaScript code", "JSON.stringify"),
        ("x.log", b'begin\n{"instruction": "a", "output": "b"}\n', "it begins with 'begin", "Data comes as"),
        ("x.py", b"import json\nrows = []\n", "Python code", "json.dump"),
        ("x.json", b"data = [{'instruction': 'a'}]", "Python code", "json.dump"),
    ],
)
def test_files_that_are_not_data(tmp_path, name, content, what, advice):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_records(tmp_path / name)
    message = str(caught.value)
    assert what in message.split(". ")[0], message
    assert advice in message


def test_a_record_about_errors_is_a_record(tmp_path):
    row = {"instruction": "Explain.", "error": "404", "message": "x", "output": "b"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    assert len(load_records(tmp_path / "x.jsonl")) == 1


def write_kind(path, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps(ROWS))
    elif kind == "yaml":
        path.write_text("- instruction: a\n  input: ''\n  output: b\n- {instruction: c, input: d, output: e}\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.Table.from_pylist(ROWS)
        make = pyarrow.ipc.new_stream if kind == "arrow" else pyarrow.ipc.new_file
        with make(str(path), table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("name", ["my rows", "$it's `mine`"])
@pytest.mark.parametrize("kind", ["pickle", "yaml", "arrow", "feather"])
def test_the_command_that_a_message_ends_with_makes_records(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.{kind}")
    write_kind(path, kind)
    with pytest.raises(DataError, match=": this is ") as caught:
        load_records(str(path))
    command = re.search(r'python( -c ".*")$', str(caught.value), re.DOTALL)[1]
    subprocess.run(["sh", "-c", f"{shlex.quote(sys.executable)}{command}"], check=True)
    assert load_records(f"{name}.records.json").records == RECORDS


def test_a_csv_file_of_code_is_no_code_fence(tmp_path):
    (tmp_path / "x.csv").write_text('instruction,output\n"Print:\n```json\n{}\n```",b\n')
    assert load_records(tmp_path / "x.csv").records == [Record("Print:\n```json\n{}\n```", "", "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\x1e{"instruction": "a", "output": "b"}\n', "a sequence of JSON texts .*Remove the separators"),
        ("Here they are:\n\n```json\n[]\n```\nThat is all.\n", "inside a code fence. Save what stands inside"),
        ("```\n[]\n```", "inside a code fence"),
    ],
)
def test_dressed_json_is_named(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_records(tmp_path / "x.json")


def test_a_database(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("create table rows (instruction)")
    with pytest.raises(DataError, match="this is an SQLite database. Export"):
        load_records(tmp_path / "x.db")


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(DataError, match="this is a named pipe, not a file. Write the records to a file first"):
        load_records(tmp_path / "x.json")
    with pytest.raises(DataError, match="this is a device, not a file"):
        load_records("/dev/zero")


def test_a_data_frame_as_its_message_says():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([*ROWS, {"instruction": "x", "output": "y", "score": 1.5}])
    assert load_records(json.loads(frame.to_json(orient="records"))).records == [*RECORDS, Record("x", "", "y")]
