"""Starts real runs and injects faults into them; the tests here do a few, this program many:

python tests/faults/harness.py --base FOLDER --kills 100 --terms 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca_lora.data.records import load_records

SETTINGS = {
    "val_set_size": 20,
    "cutoff_len": 128,
    "batch_size": 8,
    "max_tokens": 300,
    "max_steps": 12,
    "learning_rate": 0.01,
    "lora_dropout": 0.1,
    "eval_steps": 3,
    "save_steps": 2,
    "resume": "auto",
}
STOPPED_EARLY = {"keep": "best", "early_stopping_patience": 2}
SHARDED_TOO = {**STOPPED_EARLY, "fsdp": "true"}


@dataclass(frozen=True)
class Ended:
    """How a run's last rank ended: exit code (-9 where it was killed), what it printed, seconds it ran."""

    code: int
    printed: str
    seconds: float


class Zygote:
    """Starts runs; see zygote.py."""

    def __init__(self, scratch: Path) -> None:
        self.log = scratch / "log.txt"
        program = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(
        self,
        argv: list[str],
        after: float | Callable[[], bool] | None = None,
        number: int = signal.SIGKILL,
        ranks: int = 1,
        fsdp: bool = False,
    ) -> Ended:
        """A run to its end.

        Args:
            argv: The command line, faults first.
            after: After so many seconds, or once that is so, its last rank gets the signal, if it is still there.
            number: The signal.
            ranks: Processes.
            fsdp: Let them shard.
        """
        assert self.process.stdout
        self.log.write_text("", encoding="utf-8")
        pids, started = self._start(argv, ranks=ranks, fsdp=fsdp, port=free_port(), apart=False), time.monotonic()
        over = threading.Event()
        if after is not None:
            threading.Thread(target=_send, args=(pids[-1], number, after, over), daemon=True).start()
        codes = json.loads(self.process.stdout.readline())
        over.set()
        return Ended(codes[-1], self.log.read_text(encoding="utf-8"), time.monotonic() - started)

    def twice(self, argv: list[str]) -> list[Ended]:
        """The same command, started twice at the same moment; the one with the lower exit code first."""
        logs = [Path(f"{self.log}.{number}") for number in range(2)]
        for log in logs:
            log.unlink(missing_ok=True)
        self._start(argv, ranks=2, fsdp=False, port=0, apart=True)
        assert self.process.stdout
        codes = json.loads(self.process.stdout.readline())
        both = [Ended(code, log.read_text(encoding="utf-8"), 0) for code, log in zip(codes, logs, strict=True)]
        return sorted(both, key=lambda ended: ended.code)

    def _start(self, argv: list[str], **how: Any) -> list[int]:
        """The pids of a command's processes."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps({"argv": argv, "log": str(self.log), **how}), file=self.process.stdin, flush=True)
        pids: list[int] = json.loads(self.process.stdout.readline())
        return pids

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(600)


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _send(pid: int, number: int, after: float | Callable[[], bool], over: threading.Event) -> None:
    if callable(after):
        while not after():
            if over.wait(0.01):
                return
    elif over.wait(after):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@contextlib.contextmanager
def zygote() -> Iterator[tuple[Zygote, Path]]:
    """A zygote and a scratch folder."""
    with tempfile.TemporaryDirectory() as scratch:
        started = Zygote(Path(scratch))
        try:
            yield started, Path(scratch)
        finally:
            started.close()


def arguments(base: str, out: Path, **changed: Any) -> list[str]:
    """The command line of a run."""
    settings = {**SETTINGS, "data": _short_seeds(base), "base_model": base, "output_dir": str(out), **changed}
    return ["finetune", *(f"--{key}={value}" for key, value in settings.items())]


def _short_seeds(base: str) -> str:
    """The packaged seeds whose prompts fit into `cutoff_len`, in a file beside the base."""
    path = Path(base).with_name("short_seeds.json")
    if not path.exists():
        rows = [one._asdict() for one in load_records("seeds").records if len(one.instruction + one.input) <= 120]
        path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def curve(out: Path) -> list[tuple[int, float | None, float | None]]:
    """(step, loss, validation loss) of each line of a history."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["step"], line.get("loss"), line.get("eval_loss")) for line in lines]


def steps_done(out: Path) -> int:
    """Optimizer steps in a run's history."""
    return len([loss for _, loss, _ in curve(out) if loss is not None]) if (out / "history.jsonl").exists() else 0


def same_run(out: Path, whole: Path) -> bool:
    """Whether two runs have the same history, losses by record, metrics and adapter, bit for bit; but for seconds."""
    files = [name for name in ("adapter_model.safetensors", "eval_records.jsonl") if (whole / name).exists()]
    return _numbers(out) == _numbers(whole) and all(
        (out / name).exists() and (out / name).read_bytes() == (whole / name).read_bytes() for name in files
    )


def _numbers(out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))["metrics"]
    return [{**line, "seconds": 0} for line in lines], {**metrics, "train_seconds": 0}


def kill_until_done(
    run: Zygote, argv: list[str], seconds: float, dice: random.Random, kills: int, **how: Any
) -> tuple[int, int]:
    """Run the same command, killed at random moments, until it ends by itself.

    Args:
        run: Starts it.
        argv: The command.
        seconds: How long an uninterrupted run takes: kills fall anywhere within that.
        dice: Chooses the moments.
        kills: Most kills; then it is left alone.
        **how: `ranks` and `fsdp`, for `Zygote.run`.

    Returns:
        Kills that hit, and starts.
    """
    hits = starts = 0
    while True:
        starts += 1
        ended = run.run(argv, after=dice.uniform(0, seconds) if hits < kills else None, **how)
        if ended.code == 0:
            return hits, starts
        assert ended.code == -signal.SIGKILL, ended.printed
        hits += 1


def main() -> None:
    """The long version of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of a small base model")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--only", help="of the kinds of runs that are killed, those with these words in their name")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    with zygote() as (run, scratch):
        whole = scratch / "whole"
        took = run.run(arguments(chosen.base, whole))
        assert took.code == 0, took.printed
        for name, share, how, settings in (
            ("one process", 0.6, {}, {}),
            ("2 ranks", 0.2, {"ranks": 2}, {}),
            ("2 ranks, sharded", 0.2, {"ranks": 2, "fsdp": True}, {"fsdp": "true"}),
            ("stopped early, the best kept", 0.2, {}, STOPPED_EARLY),
            ("2 ranks, sharded, stopped early, the best kept", 0.05, {"ranks": 2, "fsdp": True}, SHARDED_TOO),
        ):
            if chosen.only and chosen.only not in name:
                continue
            faults = ["--worse_after", "5"] if "keep" in settings else []
            expected, kills = scratch / f"whole {name}", round(share * chosen.kills)
            whole_run = run.run([*faults, *arguments(chosen.base, expected, **settings)], **how)
            assert whole_run.code == 0, whole_run.printed
            hits = runs = starts = 0
            while hits < kills:
                out = scratch / f"run-{runs}"
                argv = [*faults, *arguments(chosen.base, out, **settings)]
                more, began = kill_until_done(run, argv, whole_run.seconds, dice, kills - hits, **how)
                assert same_run(out, expected), out
                hits, runs, starts = hits + more, runs + 1, starts + began
                shutil.rmtree(out)
            print(
                f"{name}: a run takes {whole_run.seconds:.1f} s; killed {hits} times in {runs} runs ({starts} starts);"
                " every run ended bit-identical",
                flush=True,
            )
        stopped = 0
        while stopped < chosen.terms:
            out = scratch / f"term-{stopped}"
            ended = run.run(arguments(chosen.base, out), after=dice.uniform(0, took.seconds), number=signal.SIGTERM)
            if ended.code == 0:
                continue
            if ended.code == 143:
                assert "with a checkpoint" in ended.printed, ended.printed
                assert list((out / "checkpoints").glob("checkpoint-*/manifest.json"))
            else:
                assert ended.code == -signal.SIGTERM, (ended.code, ended.printed)  # before or after training
            stopped += ended.code == 143
            again = run.run(arguments(chosen.base, out))
            assert again.code == 0 and same_run(out, whole), again.printed
            shutil.rmtree(out)
        print(
            f"SIGTERM during training {stopped} times: exit code 143, a valid checkpoint, bit-identical after resuming"
        )


if __name__ == "__main__":
    main()
