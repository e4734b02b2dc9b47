"""Compressed files are read as what is inside; damaged ones are errors, and nothing is lost."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from pathlib import Path

import pyarrow
import pytest

from alpaca_lora.data.records import load_records
from alpaca_lora.errors import DataError

LINES = b"".join(b'{"instruction": "Say %d", "output": "%d"}\n' % (n, n) for n in range(3000))


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


KINDS = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_json_lines_an_array_and_csv(tmp_path, kind):
    for name, content in (("a.jsonl", LINES), ("b.json", b'[{"instruction": "x", "output": "y"}]')):
        (path := tmp_path / f"{name}.{kind}").write_bytes(KINDS[kind](content))
        (plain := tmp_path / name).write_bytes(content)
        assert load_records(path).records == load_records(plain).records
        plain.unlink()
    (tmp_path / f"c.csv.{kind}").write_bytes(KINDS[kind](b"instruction,output\nSay c,c\n"))
    assert load_records(tmp_path / f"c.csv.{kind}").records[0].output == "c"
    found = load_records(tmp_path)  # a folder of mixed files
    assert [Path(name).name for name, _ in found.parts] == [f"a.jsonl.{kind}", f"b.json.{kind}", f"c.csv.{kind}"]
    assert len(found) == 3002


def test_two_members_of_gzip_are_both_read(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES) + gzip.compress(b'{"instruction": "x", "output": "y"}'))
    assert len(load_records(tmp_path / "a.jsonl.gz")) == 3001


@each_kind
def test_a_file_that_was_cut_or_changed_is_an_error(tmp_path, kind):
    path, whole = tmp_path / f"a.jsonl.{kind}", KINDS[kind](LINES)
    for content in (whole[: len(whole) // 2], whole[:-3], whole[:40] + b"\x00\xff\x00" + whole[43:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a.jsonl.\w+: the file is compressed .* and damaged or cut short"):
            load_records(path)


def test_problems_inside_name_record_and_line(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES + b'{"instruction": "x", "output": 3}\n'))
    with pytest.raises(DataError, match=r"a.jsonl.gz, record 3001 \(line 3001\): 'output' is 3"):
        load_records(tmp_path / "a.jsonl.gz")


def test_what_is_no_text_inside(tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jsonl"), io.BytesIO())
    for name, content, message in (
        ("a.tar.gz", gzip.compress(archive.getvalue()), r"the file is an archive \(tar\)"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES)), "compressed twice"),
        ("b.jsonl.gz", gzip.compress(b"PAR1" + bytes(100)), "compressed twice"),
        ("c.jsonl.gz", gzip.compress(b""), "the file is empty"),
        ("bomb.jsonl.gz", gzip.compress(bytes(1 << 29), 9), "200 times larger inside"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_records(tmp_path / name)


def test_the_same_rows_in_two_forms_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    with pytest.raises(DataError, match=r"a.jsonl' and '.*b.jsonl.gz' hold the same rows.*count twice"):
        load_records([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"])
