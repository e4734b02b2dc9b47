"""Many requests, one model: a thread that owns it, a bounded queue in front, and answers made together.

    ask -> waiting (at most `max_waiting`) -> joins the batch of its adapter -> grows -> finished

Requests join answers that are already going on; whoever is cancelled leaves at the next token.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import AlpacaLoraError
from ..generation.batching import Answer
from ..generation.logprobs import Logprobs
from ..generation.model import MAX_ROWS, LocalModel
from ..generation.sampling import Sampling


class QueueFull(AlpacaLoraError):
    """The request queue is full; try again later."""


class TooManyRows(AlpacaLoraError):
    """More answers are requested at once than the queue holds; trying again is no use."""


@dataclass(eq=False)
class Queued:
    """An answer in the queue, who gives it, and whom to tell, at once, that it has grown or ended."""

    answer: Answer
    adapter: str
    tell: Callable[[], None]


@dataclass(frozen=True, eq=False)
class PendingAnswers:
    """Answers that grow: `text.certain` is what is there, `finish_reason` is set at the end."""

    answers: list[Answer]
    grown: asyncio.Event

    async def growth(self) -> AsyncGenerator[None, None]:
        """Whenever an answer may have grown, at least once a second, until all have ended; leaving cancels them.

        Raises:
            AlpacaLoraError: the model failed, or the engine was closed.
        """
        try:
            while True:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.grown.wait(), 1)
                self.grown.clear()
                if error := next((answer.error for answer in self.answers if answer.error), None):
                    raise AlpacaLoraError(f"no answer: {error}") from error
                ended = all(answer.finish_reason for answer in self.answers)
                yield
                if ended:
                    return
        finally:
            for answer in self.answers:
                answer.cancel()


class Engine:
    """Answers requests from any thread."""

    def __init__(self, model: LocalModel, *, max_rows: int = MAX_ROWS, max_waiting: int = 64) -> None:
        self.model, self.max_rows, self.max_waiting = model, max_rows, max_waiting
        self._scheduler = model.scheduler(max_rows)
        self._waiting: deque[Queued] = deque()
        self._going: list[Queued] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ask(
        self,
        prompts: Sequence[list[int]],
        samplings: Sequence[Sampling],
        adapter: str | None,
        logprobs: Callable[[], Logprobs | None] = lambda: None,
        prompt_only: bool = False,
    ) -> PendingAnswers:
        """Ask for several answers at once, from an event loop: all are accepted or none.

        Args:
            prompts: Ids of the prompts.
            samplings: How each answer's tokens are chosen.
            adapter: Who answers.
            logprobs: Makes what keeps an answer's log-probabilities.
            prompt_only: Make no token.

        Raises:
            QueueFull: too many wait already; try again later.
            TooManyRows: more than may ever wait.
            DataError: a prompt is longer than what the model reads.
        """
        self.check_rows(len(prompts))
        loop, grown = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(grown.set)

        answers = [
            self.model.begin(*one, adapter, logprobs=logprobs(), prompt_only=prompt_only)
            for one in zip(prompts, samplings, strict=True)
        ]
        self._queue([Queued(answer, adapter or self.model.name, tell) for answer in answers])
        return PendingAnswers(answers, grown)

    def check_rows(self, rows: int) -> None:
        """Refuse what may never wait, before anything is done for it.

        Raises:
            TooManyRows: it is.
        """
        if rows > self.max_waiting:
            raise TooManyRows(
                f"{rows:,} answers at once are more than may wait here, {self.max_waiting}. Ask for fewer "
                "(prompts times n), or start the server with a larger --max_waiting."
            )

    def _queue(self, jobs: list[Queued]) -> None:
        with self._changed:
            if self._closed:
                raise QueueFull("the server is shutting down.")
            if len(self._waiting) + len(jobs) > self.max_waiting:
                raise QueueFull(f"{len(self._waiting)} requests wait already; try again in a moment.")
            self._waiting += jobs
            self._changed.notify()

    def close(self) -> None:
        """Cancel what goes on and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._going or self._closed):
                    self._changed.wait()
                if self._closed:
                    break
                joining = self._next()
            try:
                if joining:
                    self._going += joining
                    self._scheduler.join(joining[0].adapter, [job.answer for job in joining])
                self._scheduler.step()
            except Exception as error:  # for example no memory: those who wait are told, and the next may succeed
                self._scheduler.batches.clear()
                for job in self._going:
                    job.answer.error = error
                    job.answer.cancel()
            self._tell()
        self._going += self._waiting
        for job in self._going:
            if not job.answer.finish_reason:
                job.answer.error = AlpacaLoraError("the server is shutting down")
                job.answer.cancel()
        self._tell()

    def _next(self) -> list[Queued]:
        """Take from the queue those who can join now: the first, and those behind it who ask the same adapter."""
        gone = [job for job in self._waiting if job.answer.finish_reason]
        for job in gone:
            self._waiting.remove(job)
        if not self._waiting:
            return []
        first = self._waiting[0].adapter
        same = [job for job in self._waiting if job.adapter == first]
        joining = same[: self._scheduler.has_room([job.answer for job in same])]
        for job in joining:
            self._waiting.remove(job)
        return joining

    def _tell(self) -> None:
        for job in self._going:
            try:
                job.tell()
            except RuntimeError:  # its event loop is closed
                job.answer.cancel()
        self._going = [job for job in self._going if not job.answer.finish_reason]
        if not self._going:
            self._scheduler.batches.clear()  # their keys and values would stay until somebody asks again


def text_of(answer: Answer) -> str:
    """An answer's text so far, as far as later tokens cannot change it."""
    assert answer.text is not None  # what the engine makes has one
    return answer.text.certain
