"""A part of kills.py: commands that are ended by real signals, and started twice at once."""

from __future__ import annotations

import random
import shutil
import signal

import pytest
from harness import zygote
from jobs import SteadyServer, jobs
from kills import end_again_and_again, start_twice, train_twice

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started(short_base):
    with SteadyServer() as server, zygote() as (run, scratch):
        yield run, jobs(run, scratch, short_base, server)


@pytest.fixture
def commands(started, tmp_path):
    run, made = started
    return run, tmp_path, made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "name", ["merge", "diff apply", "export gguf-q8_0", "self-instruct", "answer, a server's", "compare --rate"]
)
def test_a_command_that_is_ended_loses_nothing(commands, name, number):
    run, scratch, made = commands
    hits, starts, _ = end_again_and_again(run, made[name], scratch, number, 2, random.Random(1))
    assert hits == 2 and starts > 2


def test_what_a_killed_merge_left_is_told(commands):
    """The second of two ends is aimed at the moment when something half made is there."""
    run, scratch, made = commands
    told = 0
    for seed in range(5):  # a kill that is aimed may still come too late
        told += end_again_and_again(run, made["merge"], scratch, signal.SIGKILL, 2, random.Random(seed))[2]
        if told:
            return
    raise AssertionError("no leftover was ever told")


@pytest.mark.parametrize("name", ["self-instruct", "answer, a server's"])
def test_a_journal_that_the_disk_does_not_take(commands, name):
    run, scratch, made = commands
    job, whole, place = made[name], scratch / "whole", scratch / "place"
    job.begin(whole)
    assert run.run(job.argv(whole)).code == 0
    size = next(whole.rglob("journal.jsonl")).stat().st_size
    job.begin(place)
    for share in (0.02, 0.3, 0.7):
        ended = run.run(["--most_bytes", str(round(share * size)), *job.argv(place)])
        said = [line for line in ended.printed.splitlines() if line.startswith("alpaca-lora: ")]
        assert ended.code == 1 and "Traceback" not in ended.printed, ended.printed
        assert len(said) == 1 and "cannot be written: File too large. Make room; the same command goes on" in said[0]
        job.check(place, left=True)
    assert run.run(job.argv(place)).code == 0
    job.check(place, left=False)
    assert job.made(place) == job.made(whole)
    for folder in (whole, place):
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["merge", "export chat-template", "self-instruct", "answer, a server's"])
def test_of_two_that_start_at_once_one_works(commands, name):
    run, scratch, made = commands
    start_twice(run, made[name], scratch, 2)


def test_of_two_runs_that_start_at_once_one_trains(commands, short_base):
    run, scratch, _ = commands
    train_twice(run, scratch, short_base, 2)
