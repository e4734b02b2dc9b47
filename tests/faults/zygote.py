"""Runs of the real command line as processes of their own, started fast: imported once, forked for each run.

    python tests/faults/zygote.py        reads a request a line, answers with its ranks' pids, then their exit codes

A child is a process like any other: it has its own session, gets real signals, and can be killed. Faults it is told to
have (`--nan_at 3`, `--oom_above 300`) come before the command's own arguments.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any


def faulty(argv: list[str]) -> list[str]:
    """Take the faults off the arguments and build them in; returns the rest."""
    while argv[0].startswith("--"):
        fault, value, *argv = argv
        faults = {"--nan_at": nan_at, "--oom_above": oom_above, "--held_at": held_at, "--most_bytes": most_bytes}
        faults |= {"--oom_on_last_above": oom_on_last_above, "--worse_after": worse_after}
        faults[fault](int(value))
    return argv


def nan_at(step: int) -> None:
    """One gradient of step `step` (from 1) becomes NaN, as a bad kernel or a broken card would make it."""
    from alpaca_lora.training.preference_trainer import PreferenceTrainer
    from alpaca_lora.training.trainer import AlpacaTrainer

    def poisoned(plain: Any) -> Any:
        def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
            loss = plain(self, *args, **kwargs)
            return loss * float("nan") if self.state.global_step == step - 1 else loss

        return compute_loss

    for trainer in (AlpacaTrainer, PreferenceTrainer):
        trainer.compute_loss = poisoned(trainer.compute_loss)  # type: ignore[method-assign]


def oom_above(tokens: int) -> None:
    """A micro-batch of more tokens than this runs out of memory in the middle of its backward pass."""
    import torch

    from alpaca_lora.training import preference_trainer, trainer

    def starved(plain: Any) -> Any:
        def pack_loss(model: Any, inputs: dict[str, Any], *args: Any) -> Any:
            loss, outputs = plain(model, inputs, *args)
            if inputs["input_ids"].numel() > tokens:
                if loss.requires_grad:
                    loss.sum().backward()  # gradients of the whole pack are there: they must not be counted twice
                raise torch.OutOfMemoryError("simulated")
            return loss, outputs

        return pack_loss

    trainer.pack_loss = starved(trainer.pack_loss)
    preference_trainer.target_losses = starved(preference_trainer.target_losses)


def oom_on_last_above(tokens: int) -> None:
    """The same on the last rank only."""
    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        oom_above(tokens)


def worse_after(step: int) -> None:
    """Validation losses after step `step` are 100 higher than they are, those by record not: the best is no later."""
    from alpaca_lora.training.trainer import AlpacaTrainer

    plain = AlpacaTrainer._loss_sum

    def _loss_sum(self: Any, model: Any, batch: Any, planner: Any, losses: Any) -> float:
        found = plain(self, model, batch, planner, losses)
        worse = 100 * int(planner.examples.supervised[batch.members].sum())
        return found + worse if self.state.global_step > step else found

    AlpacaTrainer._loss_sum = _loss_sum  # type: ignore[method-assign]


def held_at(step: int) -> None:
    """Step `step` (from 1) waits for a signal to stop, so that none comes too late, however fast the machine is."""
    from alpaca_lora.training.interrupt import StopOnSignal

    plain = StopOnSignal.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> Any:
        while state.global_step == step and not self.received:
            time.sleep(0.01)
        return plain(self, args, state, *rest, **kwargs)

    StopOnSignal.on_step_end = on_step_end  # type: ignore[method-assign]


def most_bytes(count: int) -> None:
    """No file takes more than so many bytes: the rest of one that is longer is refused, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))


def serve() -> None:
    """Answer requests until the input ends."""
    import peft  # noqa: F401
    import torch
    import transformers.trainer  # noqa: F401

    from alpaca_lora.adapters import weight_diff as diff  # noqa: F401
    from alpaca_lora.evaluation import answers  # noqa: F401
    from alpaca_lora.evaluation.people import rating_page  # noqa: F401
    from alpaca_lora.evaluation.report import build  # noqa: F401
    from alpaca_lora.generation import model as local  # noqa: F401
    from alpaca_lora.selfinstruct import generate  # noqa: F401
    from alpaca_lora.training import pipeline  # noqa: F401

    torch.set_num_threads(1)  # a thread pool does not survive a fork
    for line in sys.stdin:
        request = json.loads(line)
        pids = [start(request, rank) for rank in range(request["ranks"])]
        print(json.dumps(pids), flush=True)
        codes: dict[int, int] = {}
        while len(codes) < len(pids):
            pid, status = os.wait()
            codes[pid] = os.waitstatus_to_exitcode(status)
            if codes[pid] and not request["apart"]:  # torchrun ends the others too
                for other in set(pids) - codes.keys():
                    os.kill(other, signal.SIGKILL)
        print(json.dumps([codes[pid] for pid in pids]), flush=True)


def start(request: dict[str, Any], rank: int) -> int:
    """Fork one rank of a run; its pid."""
    from alpaca_lora.cli import main

    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    log = os.open(request["log"] + (f".{rank}" if request["apart"] else ""), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if (request["ranks"] > 1 and not request["apart"]) or request["fsdp"]:
        places = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": request["ranks"],
            "LOCAL_WORLD_SIZE": request["ranks"],
        }
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": request["port"]}
        os.environ.update({key: str(value) for key, value in {**places, **rendezvous}.items()})
    if request["fsdp"]:
        open_fsdp()
    code = 0
    try:
        main(faulty(request["argv"]))
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def open_fsdp() -> None:
    """Have accelerate take its real FSDP2 path on a CPU, over gloo.

    accelerate 1.15 shards for GPU-like distributed types only. Told once that several CPU processes are several GPUs,
    it makes parameters DTensors and writes checkpoints in shards.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    made = PartialState.__init__

    def told_otherwise(self: PartialState, *args: object, **kwargs: object) -> None:
        known = bool(PartialState._shared_state)
        made(self, *args, **kwargs)
        if not known and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = told_otherwise  # type: ignore[method-assign]


if __name__ == "__main__":
    serve()
