"""Stopping a run before its end, with a checkpoint: after the step in which SIGTERM or Ctrl-C came, or a given one."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState

from ..errors import RunInterrupted
from ..models.distributed import processes
from .callbacks import NothingLeft

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(TrainerCallback):
    """While it is entered, the first SIGTERM or SIGINT asks for an end after this step, and a second acts at once.

    All ranks stop after the same step, whichever of them was told.

    Args:
        after: Optimizer steps to stop after in any case; None for none.

    Attributes:
        received: The signal's number, 0 where there was none.
    """

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.received = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *error: Any) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()  # a second signal does what it always did
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: stopping after this step, with a checkpoint; again to stop at once.\n".encode())

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.is_reached(state.global_step):
            raise NothingLeft  # for now

    def is_reached(self, step: int) -> bool:
        """Whether the step to stop after is done."""
        return self.after is not None and step >= self.after

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.told() or self.is_reached(state.global_step):
            control.should_save = control.should_training_stop = True  # an evaluation that is due is not left out

    def raise_if_stopped(self, state: TrainerState) -> None:
        """Raise RunInterrupted if the run ended before its last step because it was told to."""
        step, last = state.global_step, state.max_steps
        if not (self.received or self.is_reached(step)) or step >= last:
            return
        by = signal.Signals(self.received).name if self.received else "stop_after"
        where = f"after step {step} of {last}, with a checkpoint" if step else "before its first step"
        raise RunInterrupted(
            f"stopped by {by} {where}; the same {'' if self.received else 'without stop_after, '}with --resume auto "
            "(resume='auto') goes on.",
            self.received,
        )

    def told(self) -> bool:
        """Whether any rank was told to stop; all must call this."""
        state = processes()
        if state.num_processes > 1:
            heard = torch.tensor(self.received, device=state.device)
            torch.distributed.all_reduce(heard, torch.distributed.ReduceOp.MAX)
            self.received = int(heard)
        return self.received > 0
