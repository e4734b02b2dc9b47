"""Many questions to a model: several at once, each answer journaled before it is used, nothing paid twice.

    next_question ──> question ──> model ──> journal: done ──> take
          ^      as many in flight as there are slots             │
          └────────── wait for a change, or end <─────────────────┘

A question is a number from 0, so one that a dead process left is the same when it is asked again. Until one answer
is useful, no more than FIRST_REPLIES are paid for. A process that dies leaves its journal, and the next one continues
from there: only answers in flight are lost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..generation.completion import Completion
from .budget import BudgetReached, Usage
from .endpoint_errors import EndpointError
from .journal import Journal
from .journal_state import fields_of
from .loop import run_in_a_loop
from .model_ref import Prompt, Writer
from .reply import FIRST_REPLIES

GO_ON = "The same command goes on from here."
RAISE_IT = "With a larger max_cost or token_budget the same command goes on from here."


class Question(NamedTuple):
    """What a model is asked, and what its journal keeps beside the answer."""

    prompt: Prompt
    stop: Sequence[str] = ()
    kept: Mapping[str, Any] | None = None


class Job(ABC):
    """One process's part of many questions; a subclass says what is asked, and why."""

    unit = "question"
    writer: Writer
    _change: asyncio.Event
    _bar: Any

    def __init__(
        self,
        journal: Journal,
        load: Callable[[], Writer],
        slots: int,
        *,
        max_new_tokens: int,
        temperature: float,
        total: int,
    ) -> None:
        self.journal, self.state, self._load = journal, journal.state, load
        self.slots, self.max_new_tokens, self.temperature, self.total = slots, max_new_tokens, temperature, total
        self.useful = False  # whether an answer was of use
        self.answered = self.in_flight = self.signal = 0
        self.over = False
        self.over_budget = ""
        self.error: EndpointError | None = None
        self.tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    def next_question(self) -> int | None:
        """The question to ask next, taken off those that wait; None if none is to be asked now."""

    @abstractmethod
    def put_back(self, number: int) -> None:
        """A question was not asked, and waits again."""

    @abstractmethod
    def question(self, number: int) -> Question | str:
        """What is asked, or why it cannot be."""

    @abstractmethod
    def take(self, number: int, answer: Completion) -> None:
        """An answer came, and is in the journal."""

    @abstractmethod
    def progress(self) -> tuple[int, str]:
        """For the bar: how much of the total is done, and what stands beside it."""

    @abstractmethod
    def refused(self, number: int) -> None:
        """A question was refused for good."""

    def is_settled(self) -> bool:
        """Whether nothing that is under way can make another question."""
        return not self.in_flight

    async def begin(self) -> None:  # noqa: B027
        """Run before the first question."""

    def beside(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside the questions."""
        return []

    def ask(self) -> None:
        """Ask until nothing is left to ask, the budget is reached, the server fails, or a signal comes."""
        self.writer = self._load()
        run_in_a_loop(self._work, self._interrupt)

    def stop(self) -> None:
        """Ask no more; what is in flight may end."""
        self.over = True
        self.changed()

    def changed(self) -> None:
        """Wake everyone who waits for something to change."""
        self._change.set()
        self._change = asyncio.Event()
        done, text = self.progress()
        self._bar.n = min(done, self.total)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(0)

    async def wait(self) -> None:
        """Until something changes."""
        await self._change.wait()

    def _interrupt(self, number: int) -> None:
        self.signal = number
        self.stop()
        for task in self.tasks:
            task.cancel()

    async def _work(self) -> None:
        from tqdm import tqdm

        self._change = asyncio.Event()
        every = 0.5 if sys.stderr.isatty() else 10.0  # seconds
        done = self.progress()[0]
        async with self.writer:
            with tqdm(
                total=self.total, initial=done, unit=self.unit, mininterval=every, dynamic_ncols=True
            ) as self._bar:
                await self.begin()
                self.tasks = [asyncio.create_task(self._ask_in_turn()) for _ in range(self.slots)]
                for task in self.tasks:
                    task.add_done_callback(lambda _: self.changed())
                everything = [*self.tasks, *map(asyncio.create_task, self.beside())]
                try:
                    await asyncio.gather(*everything)
                finally:  # a failure of ours, such as a full disk, ends all of them
                    self.over = True  # before: a cancellation is lost if an answer comes at that moment
                    for task in everything:
                        task.cancel()
                    await asyncio.gather(*everything, return_exceptions=True)

    async def _ask_in_turn(self) -> None:
        with suppress(asyncio.CancelledError):
            while (number := await self._next()) is not None:
                self.in_flight += 1
                wait = False
                try:
                    await self._ask(number)
                except BudgetReached as error:
                    self.put_back(number)
                    if self.writer.spending.held.tokens:  # an answer in flight may take less than its worst case
                        wait = True
                    else:
                        self.over_budget = str(error)
                        self.stop()
                except EndpointError as error:
                    if error.this_request_only and self.state.answers:
                        self.journal.append("failed", request=number, problem=str(error))
                        self.refused(number)
                    else:
                        self.put_back(number)
                        self.error = self.error or error
                        self.stop()
                finally:
                    self.in_flight -= 1
                if wait:
                    await self.wait()
                else:
                    self.changed()

    async def _next(self) -> int | None:
        """The next question, once it may be paid for; None when there will be none."""
        while not self.over:
            if self.useful or self.answered + self.in_flight < FIRST_REPLIES:
                number = self.next_question()
                if number is not None:
                    return number
            if self.is_settled():
                return None
            await self.wait()
        return None

    async def _ask(self, number: int) -> None:
        asked = self.question(number)
        if isinstance(asked, str):
            self.journal.append("failed", request=number, problem=asked)
            self.refused(number)
            return
        started = time.monotonic()
        answer = await self.writer.complete(
            asked.prompt,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop=asked.stop,
            on_attempt=lambda kind, worst: self.journal.append(kind, request=number, **vars(worst)),
        )
        cost = self.writer.spending.budget.cost(Usage(answer.prompt_tokens, answer.completion_tokens))
        seconds = round(time.monotonic() - started, 3)
        self.journal.append(
            "done", request=number, **fields_of(answer), **(asked.kept or {}), cost=cost, seconds=seconds
        )
        self.answered += 1
        self.take(number, answer)
