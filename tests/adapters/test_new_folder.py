"""Folders that become what they are called, or go: processes ended by real signals, and two that write the same."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from alpaca_lora.errors import AdapterError
from alpaca_lora.models.shards import new_folder

WRITER = """
import sys
from alpaca_lora.models.shards import new_folder

with new_folder(sys.argv[1]) as part:
    (part / "weights").write_bytes(b"0" * 5_000_000)
    (part / "files").mkdir()
    (part / "files" / "more").touch()
    print("half written", flush=True)
    input()
"""


@contextmanager
def writing(out):
    """A process that has begun to write a folder, and waits for a line."""
    program = [sys.executable, "-c", WRITER, str(out)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half written\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_that_is_told_to_end_leaves_nothing(tmp_path, number):
    with writing(tmp_path / "out") as process:
        process.send_signal(number)
        assert process.wait(600) == -number
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_told_and_removed(tmp_path, recwarn):
    with writing(tmp_path / "out") as process:
        process.kill()
        process.wait(600)
    left = tmp_path / ".out.unfinished"
    assert list(tmp_path.iterdir()) == [left]
    with new_folder(tmp_path / "out") as part:
        (part / "mine").touch()
        assert not list(left.rglob("weights"))
    assert [str(warning.message) for warning in recwarn] == [
        f"{left}: a process that was killed left 0.005 GB there; removed."
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_of_two_that_write_one_folder_one_says_so(tmp_path, recwarn):
    with writing(tmp_path / "out") as process:
        wanted = r"out: another process is writing it\. Wait for it, or name another"
        with pytest.raises(AdapterError, match=wanted), new_folder(tmp_path / "out"):
            pass
        with new_folder(tmp_path / "other"):  # beside it
            pass
        process.communicate(b"\n", timeout=600)
        assert process.returncode == 0
    assert (tmp_path / "out" / "weights").stat().st_size == 5_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]
    assert not recwarn.list


def test_an_empty_folder_is_taken_and_an_error_leaves_it(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as part:
        (part / "weights").write_bytes(b"0" * (1 // 0))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with new_folder(tmp_path / "out") as part:
        (part / "weights").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "weights"]
