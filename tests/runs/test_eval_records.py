"""eval_records.jsonl: what is written is read back, copies go on, and damage is one sentence."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from alpaca_lora.data.record import Conversation, Record, content_of
from alpaca_lora.data.records import RecordSet
from alpaca_lora.data.tokens import Examples
from alpaca_lora.errors import DataError
from alpaca_lora.runs.eval_records import NAME, EvalRecords, append_losses, read_eval_records

CHAT = Conversation(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}), (1,))
SOURCE = RecordSet([Record("a", "", "b"), CHAT, Record("c", "d", "e")], [4, 9, 12], "<test>")


@pytest.fixture
def known():
    """Record 9 is a conversation of two sequences, 12 an instruction; 4 is for training."""
    rows = [[1, 5, 6, 2], [1, 5, 6, 2, 7, 8, 9, 2], [1, 3, 3, 2]]
    numbers = np.asarray([9, 9, 12], np.int32)
    return EvalRecords.of(SOURCE, Examples.from_lists(rows, [2, 6, 1], record_numbers=numbers))


def test_records_hashes_and_tokens(known):
    assert known.records == [9, 12]
    assert known.tokens.tolist() == [4, 3]  # of all of a conversation's sequences
    assert known.hashes == [hashlib.sha256(content_of(record)).hexdigest()[:16] for record in SOURCE.records[1:]]


def test_records_that_differ_only_in_where_a_text_ends_have_other_hashes():
    assert content_of(Record("ab", "c", "")) != content_of(Record("a", "bc", ""))


def test_what_is_written_is_read(known, tmp_path):
    assert read_eval_records(tmp_path) is None
    known.begin(tmp_path, None)
    append_losses(tmp_path, 0, np.asarray([8.12345678, 3e-9]))
    append_losses(tmp_path, 5, np.asarray([4.0, 3.0]))
    with (tmp_path / NAME).open("a") as file:
        file.write('{"step": 10, "los')  # the run was killed
    found = read_eval_records(tmp_path)
    assert (found.records, found.hashes, found.tokens.tolist()) == (known.records, known.hashes, [4, 3])
    assert {step: losses.tolist() for step, losses in found.losses.items()} == {0: [8.123457, 3e-9], 5: [4, 3]}
    assert found.mean(5) == 1


def test_a_copy_is_taken_up(known, tmp_path):
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    known.begin(checkpoint, None)
    append_losses(checkpoint, 0, np.asarray([4.0, 3.0]))
    (tmp_path / NAME).write_text("anything\n")
    known.begin(tmp_path, checkpoint)
    assert (tmp_path / NAME).read_bytes() == (checkpoint / NAME).read_bytes()
    (checkpoint / NAME).unlink()  # saved by a version that kept none
    known.begin(tmp_path, checkpoint)
    assert read_eval_records(tmp_path).losses == {}


FIRST = {"records": [4, 9], "hashes": ["0" * 16, "1" * 16], "tokens": [2, 3]}


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["x"], 1),
        ([{**FIRST, "tokens": [2]}], 1),
        ([{**FIRST, "tokens": [2, 0]}], 1),
        ([{**FIRST, "tokens": 5}], 1),
        ([{**FIRST, "records": ["4", "9"]}], 1),
        ([{**FIRST, "hashes": "ab"}], 1),
        ([FIRST, {"step": 0, "losses": [1.0]}], 2),
        ([FIRST, {"step": 0, "losses": [1.0, None]}], 2),
        ([FIRST, {"step": 0, "losses": [1.0, float("nan")]}], 2),
        ([FIRST, {"step": "0", "losses": [1.0, 2.0]}], 2),
        ([FIRST, {"step": 0, "losses": [1.0, 2.0]}, {"losses": [1.0, 2.0]}], 3),
    ],
)
def test_damage_is_named(tmp_path, lines, number):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (tmp_path / NAME).write_text(text)
    with pytest.raises(DataError, match=f"{NAME}: line {number} is not a line of .* copy the newest one here"):
        read_eval_records(tmp_path)
