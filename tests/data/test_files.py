"""Files written whole or not at all: several writers, full disks, killed processes, signals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import threading

import pytest

from alpaca_lora.files import locked, unfinished, write_atomically


def _write_again_and_again(path, text, failures):
    try:
        for _ in range(100):
            write_atomically(path, text)
    except BaseException as error:
        failures.put(repr(error))
    failures.put("")


def test_many_write_one_file_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    path, failures = tmp_path / "file", context.Queue()
    texts = [letter * size for letter, size in (("a", 10), ("b", 200_000), ("c", 3))]
    writers = [context.Process(target=_write_again_and_again, args=(path, text, failures)) for text in texts]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert [failures.get(timeout=600) for _ in writers] == ["", "", ""]
    assert seen <= set(texts) and path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_not_in_the_next(tmp_path):
    (tmp_path / ".file.part").write_text("much more than what comes")
    write_atomically(tmp_path / "file", "short")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "short")]


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_lock_is_on_the_file_that_is_there(tmp_path):
    """Whoever waited for a file that was then renamed must not hold that one."""
    path, got = tmp_path / "lock", []
    with locked(path):
        with pytest.raises(BlockingIOError):
            locked(path)
        waiting = threading.Thread(target=lambda: got.append(locked(path, wait=True)))
        waiting.start()
        waiting.join(0.2)
        assert not got
        path.rename(tmp_path / "moved")
    waiting.join(300)
    with got[0]:
        assert os.path.samestat(os.fstat(got[0].fileno()), path.stat())


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="its file system knows no locks. Let only one process at a time write there."):
        write_atomically(tmp_path / "file", "text")
    with pytest.warns(UserWarning, match="knows no locks"), unfinished(tmp_path / "out") as part:
        part.touch()
        part.rename(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_second_maker_waits_for_the_first(tmp_path):
    out, order = tmp_path / "out", []

    def second():
        with unfinished(out, wait=True) as part:
            order.append("second")
            assert not part.exists()

    with unfinished(out) as part:
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        part.write_text("made")
        part.rename(out)
        order.append("first")
    waiting.join(300)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == [out]


def _forked(work):
    """How a process ends that does this."""
    if not (pid := os.fork()):
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_what_is_half_made_and_ends_the_process(tmp_path, number):
    def work():
        with unfinished(tmp_path / "out") as part:
            part.mkdir()
            (part / "weights").write_bytes(b"0" * 1000)
            signal.raise_signal(number)

    assert _forked(work) == -number
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_a_file_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: signal.raise_signal(signal.SIGTERM))
    assert _forked(lambda: write_atomically(tmp_path / "file", "text")) == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_is_ended_leaves_its_parents_alone(tmp_path):
    with unfinished(tmp_path / "out") as part:
        part.mkdir()
        assert _forked(lambda: signal.raise_signal(signal.SIGTERM)) == -signal.SIGTERM
        assert part.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_who_handles_sigterm_goes_on_doing_so(tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        write_atomically(tmp_path / "file", "text")
        with unfinished(tmp_path / "out"):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM] * 2


def test_the_signals_are_again_what_they_were(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    write_atomically(tmp_path / "file", "text")
    with unfinished(tmp_path / "out"):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_other_threads_may_make_things_too(tmp_path):
    made = []

    def make():
        with unfinished(tmp_path / "out") as part:
            part.touch()
            made.append(part)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert made and list(tmp_path.iterdir()) == []
