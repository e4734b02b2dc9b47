"""JSON files that anyone may have damaged: what they say, or one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alpaca_lora.errors import DataError
from alpaca_lora.textfiles import read_json_file


def read(path, content, **limits):
    path.write_bytes(content)
    return read_json_file(path, DataError, "Try again.", **limits)


def test_what_it_says(tmp_path):
    assert read(tmp_path / "a.json", b'{"a": [1, null]}') == {"a": [1, None]}
    assert read(tmp_path / "a.json", b'\xef\xbb\xbf{"a": "\xc3\xa9"}\r\n') == {"a": "é"}  # a byte-order mark


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged: not JSON (line 1, column 1: Expecting value)"),
        (b'{"a": 1,\n "b" 2}', "damaged: not JSON (line 2, column 6: Expecting ':' delimiter)"),
        (b'{"a": "\xe9"}', "damaged: not UTF-8 text: byte 8 is 0xe9"),
        (b"\xff\xfe{\0}\0", "damaged: not UTF-8 text: byte 1 is 0xff"),
        (b"[1]", "damaged: holds a list, not an object"),
        (b"null", "damaged: holds a NoneType, not an object"),
        (b'{"a": 1, "b": 2, "a": 1}', "damaged: the key 'a' stands twice"),
        (b'{"a": ' * 100_000, "damaged: nested too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "damaged: nested too deep"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "damaged: Exceeds the limit (4300 digits) for integer string conversion"),
    ],
    ids=["empty", "cut", "latin-1", "utf-16", "list", "null", "twice", "objects", "lists", "digits"],
)
def test_one_sentence(tmp_path, content, reason):
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.json", content)
    told = str(caught.value)
    if "digits" in reason:
        told = told.replace(" of 5000 digits", "").partition(":  value has")[0]
    assert told.startswith(f"{tmp_path}/a.json: {reason}")
    assert str(caught.value).endswith(". Try again.")
    assert "\n" not in str(caught.value)


def test_too_large(tmp_path):
    with pytest.raises(DataError, match="a.json: has 12 bytes; at most 11 are read. Try again."):
        read(tmp_path / "a.json", b'{"a": "bcd"}', limit_bytes=11)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer, forever
    for path, reason in (
        (tmp_path / "pipe", "is a pipe or a device, not a file"),
        (Path("/dev/zero"), "is a pipe or a device, not a file"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "none", "is missing"),
        (tmp_path / "none" / "none", "is missing"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(DataError) as caught:
            read_json_file(path, DataError, "Try again.")
        assert str(caught.value) == f"{path}: {reason}. Try again."
