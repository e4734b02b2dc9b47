"""Ends commands at random moments and starts them again; the tests here do a few, this program many:

python tests/faults/kills.py --base FOLDER --terms 50 --kills 50 --twice 20

After each end: what a command leaves behind is what its next start uses, or names and removes; what was paid for or
voted is there. In the end: the bytes of a run that nobody ended. The same for two that are started at once.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from harness import Ended, Zygote, arguments, same_run, zygote
from jobs import ITEMS, Job, Rating, SteadyServer, jobs

SAID = ("another process is writing", "another run is at work in", "exists and is not an empty folder")


def moment(job: Job, place: Path, seconds: float, dice: random.Random, aimed: bool) -> float | Callable[[], bool]:
    """When to end a command that takes `seconds`: at any time, or, aimed, while something half made is there."""
    if not (aimed and job.at_once):
        return dice.uniform(0, seconds)
    half_made, seen, wait = place / f".{job.out}.unfinished" / job.out, [], dice.uniform(0, 0.2 * seconds)

    def after() -> bool:
        if not seen and half_made.exists():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + wait

    return after


def end_again_and_again(
    run: Zygote, job: Job, scratch: Path, number: int, count: int, dice: random.Random
) -> tuple[int, int, int]:
    """End a command so often, at random moments, start it again until it is done, and check; then anew, elsewhere.

    Returns:
        How often it was ended, the starts, and the leftovers that were told and removed.
    """
    rating = isinstance(job, Rating)
    whole, last = scratch / "whole", signal.SIGTERM if rating else number
    job.begin(whole)
    took = job.run(run, whole, None, last)
    assert took.code == 0, took.printed
    job.check(whole, left=False)
    expected, place = job.made(whole), scratch / "place"
    hits = starts = told = 0
    while hits < count:
        job.begin(place)
        done = False
        while not done:
            left = [path for path in place.glob(".*.unfinished/*") if path.name != ".lock"]
            starts += 1
            ending = hits < count
            after = moment(job, place, took.seconds, dice, aimed=hits % 2 == 1) if ending else None
            ended = job.run(run, place, after, number if ending else last)
            done = ended.code == 0 and not (rating and len(job.confirmed) < ITEMS)
            if ended.code or not done:
                # 143: it heard the signal, and said how far it came; a page that heard it ended as it should
                codes = {-number} if number == signal.SIGKILL else {-number, 143, *([0] if rating else [])}
                assert ended.code in codes, (ended.code, ended.printed)
                hits += 1
            if left and not list(place.glob(".*.unfinished/*")):
                assert "a process that was killed left" in ended.printed, ended.printed
                told += 1
            job.check(place, left=number == signal.SIGKILL and not done)
            if job.at_once and (place / job.out).exists():  # ended after all was made: it is refused, and tidied
                again = ended if ended.code == 0 else run.run(job.argv(place))
                assert again is ended or "exists and is not an empty folder" in again.printed, again.printed
                job.check(place, left=False)
                done = True
        assert job.made(place) == expected, job.made(place)
        shutil.rmtree(place)
    shutil.rmtree(whole)
    return hits, starts, told


def start_twice(run: Zygote, job: Job, scratch: Path, count: int) -> int:
    """Start a command twice at the same moment, so often: one works, and the other says so.

    Returns:
        How often it did; a machine that has much to do may start the second once the first is done.
    """
    whole, place = scratch / "whole", scratch / "place"
    job.begin(whole)
    assert job.run(run, whole, None, signal.SIGKILL).code == 0
    paid, refused = job.paid_since(whole), 0
    for _ in range(count):
        job.begin(place)
        refused += _one_works(run.twice(job.argv(place)), "records were asked for, and are there", ": 40 answers of")
        job.check(place, left=False)
        assert job.made(place) == job.made(whole), job.made(place)
        assert job.paid_since(place) == paid, "paid twice"
        shutil.rmtree(place)
    shutil.rmtree(whole)
    return refused


def train_twice(run: Zygote, scratch: Path, base: str, count: int) -> int:
    """The same for a run of training."""
    assert run.run(arguments(base, scratch / "whole")).code == 0
    refused = 0
    for _ in range(count):
        refused += _one_works(run.twice(arguments(base, scratch / "place")), "finished; nothing is left to do")
        assert same_run(scratch / "place", scratch / "whole")
        names = [
            {str(path.relative_to(scratch / folder)) for path in (scratch / folder).rglob("*")}
            for folder in ("whole", "place")
        ]
        assert names[0] == names[1]
        shutil.rmtree(scratch / "place")
    shutil.rmtree(scratch / "whole")
    return refused


def _one_works(both: list[Ended], *late: str) -> bool:
    """Whether the second was refused, in one sentence; False where it found, `late`, that all is done."""
    first, second = both
    assert first.code == 0, first.printed
    if second.code == 0:
        assert any(words in ended.printed for words in late for ended in both), second.printed
        return False
    said = [line for line in second.printed.splitlines() if any(words in line for words in SAID)]
    assert second.code == 1 and len(said) == 1 and "Traceback" not in second.printed, second.printed
    return True


def main() -> None:
    """The long version of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of a small base model")
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--twice", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="of the commands in jobs.py, and finetune, these")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    with SteadyServer() as server, zygote() as (run, scratch):
        if chosen.twice and "finetune" in (chosen.only or ["finetune"]):
            refused = train_twice(run, scratch, chosen.base, chosen.twice)
            print(f"finetune: started twice at once {chosen.twice} times; {refused} were refused", flush=True)
        for name, job in jobs(run, scratch, chosen.base, server).items():
            if name not in (chosen.only or [name]):
                continue
            for number, count in ((signal.SIGTERM, chosen.terms), (signal.SIGKILL, chosen.kills)):
                if not count:
                    continue
                started = time.monotonic()
                hits, starts, told = end_again_and_again(run, job, scratch, number, count, dice)
                print(
                    f"{name}: {number.name} {hits} times in {starts} starts, {told} leftovers told and removed, "
                    f"{time.monotonic() - started:.0f} s",
                    flush=True,
                )
            if chosen.twice and not isinstance(job, Rating):
                refused = start_twice(run, job, scratch, chosen.twice)
                print(f"{name}: started twice at once {chosen.twice} times; {refused} were refused", flush=True)


if __name__ == "__main__":
    main()
