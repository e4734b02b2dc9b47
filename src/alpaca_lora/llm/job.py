"""Puts many questions to a model: several at once, each answer journaled before the next question, nothing paid twice.

A question is a number from 0; what it says may depend on the replies it had so far, so that one whose reply cannot be
used is put again. While no reply can be used, no more than FIRST_REPLIES are paid for. A process that dies leaves its
journal, and the next one goes on from there: what it does not find is at most the replies that were on their way.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Literal

from ..errors import RunInterrupted
from ..generation.completion import Completion
from .budget import BudgetReached, Usage
from .client import EndpointError
from .journal import Journal, State, completion_of, fields_of
from .loop import run_in_a_loop
from .model_ref import Prompt, Respondent
from .reply import FIRST_REPLIES, sample_of

Replies = Sequence[Completion]
GO_ON = "The same command goes on from here."


def replies_of(state: State) -> defaultdict[int, list[Completion]]:
    """The replies a journal holds to each question."""
    found: defaultdict[int, list[Completion]] = defaultdict(list)
    for answer in state.answers:
        found[answer["request"]].append(completion_of(answer))
    return found


class Asking:
    """One process's part of the questions.

    Args:
        journal: Open, of this process alone.
        respondent: Who is asked; loaded only if a question is left.
        count: How many questions there are.
        prompt: The question with this number, after these replies.
        problem: Why a reply cannot be used, and what to do about it; "" where it can.
        attempts: Most replies to a question while none can be used.
        max_new_tokens: Most tokens of a reply.
        temperature: 0 takes the likeliest token each time.
        unit: What a question is called in the progress bar.
    """

    def __init__(
        self,
        journal: Journal,
        respondent: Respondent,
        count: int,
        prompt: Callable[[int, Replies], Prompt],
        problem: Callable[[Completion], str],
        *,
        attempts: int,
        max_new_tokens: int,
        temperature: float,
        unit: str,
    ) -> None:
        self.journal, self.respondent, self.count, self.unit = journal, respondent, count, unit
        self.prompt, self.problem, self.attempts = prompt, problem, attempts
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.replies = replies_of(journal.state)
        self.usable = {n for n, replies in self.replies.items() if any(not problem(reply) for reply in replies)}
        # Where no reply could be used, something was wrong with all: once that is mended, all are asked for anew.
        self.anew = {} if self.usable else {number: len(replies) for number, replies in self.replies.items()}
        self.proven = False  # whether this process had a reply that can be used
        self.answered = self.in_flight = 0
        self.waiting = deque(number for number in range(count) if not self._over(number))
        self.tasks: list[asyncio.Task[None]] = []
        self.over_budget = ""
        self.error: EndpointError | None = None
        self.signal = 0
        meter, state = respondent.meter, journal.state
        meter.spent, meter.lost = state.spent, state.unanswered

    def run(self) -> Literal["all", "budget"]:
        """Ask until every question is settled or the budget allows no other.

        Raises:
            EndpointError: the server does not answer, or no reply can be used. What it answered before is kept.
            RunInterrupted: SIGTERM or Ctrl-C; questions in flight were given up, everything else is kept.
        """
        if self.waiting:
            self.writer = self.respondent.writer
            run_in_a_loop(self._work, self._interrupt)
        if self.error:
            raise EndpointError(f"{self.error}\n{self.progress()} {GO_ON}") from None
        if self.answered and not self.usable and not self.signal:
            raise EndpointError(self._nothing_usable())
        if self.signal:
            raise RunInterrupted(
                f"Stopped by {signal.Signals(self.signal).name}. {self.progress()} {GO_ON}", self.signal
            )
        return "budget" if self.over_budget else "all"

    def progress(self) -> str:
        """How far it came, and what that cost, in a sentence."""
        over = sum(map(self._over, range(self.count)))
        return f"{over:,} of {self.count:,} {self.unit}s are done ({spent_text(self.respondent, self.journal.state)})."

    def _over(self, number: int) -> bool:
        return number in self.journal.state.failed or self._settled(number)

    def _settled(self, number: int) -> bool:
        asked = len(self.replies[number]) - self.anew.get(number, 0)
        return number in self.usable or asked >= self.attempts

    def _nothing_usable(self) -> str:
        newest = completion_of(self.journal.state.answers[-1])
        return (
            f"{self.respondent.name}: none of its first {self.answered} replies can be used, so no more are paid for. "
            f"The newest: {sample_of(newest.text)}. {self.problem(newest)}\n{self.progress()} {GO_ON}"
        )

    def _interrupt(self, number: int) -> None:
        self.signal = number
        self._stop()

    def _stop(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def _work(self) -> None:
        from tqdm import tqdm

        self.changed = asyncio.Event()  # set, and replaced, whenever less may be held
        slots = min(self.respondent.slots, len(self.waiting))
        every = 0.5 if sys.stderr.isatty() else 10.0  # seconds
        done = self.count - len(self.waiting)
        async with self.writer:
            with tqdm(
                total=self.count, initial=done, unit=self.unit, mininterval=every, dynamic_ncols=True
            ) as self.bar:
                self.tasks = [asyncio.create_task(self._ask_in_turn()) for _ in range(slots)]
                try:
                    for ended in await asyncio.gather(*self.tasks, return_exceptions=True):
                        if isinstance(ended, Exception):  # ours, such as a full disk
                            raise ended
                finally:
                    self._stop()

    async def _ask_in_turn(self) -> None:
        while await self._may_ask():
            number = self.waiting.popleft()
            try:
                await self._settle(number)
            except BudgetReached as error:
                self.waiting.append(number)
                if self.respondent.meter.held.tokens:  # a reply in flight may take less than its worst case
                    await self.changed.wait()
                else:
                    self.over_budget = str(error)
                continue
            except EndpointError as error:
                if not (error.this_request_only and self.journal.state.answers):
                    self.error = self.error or error
                    self._stop()
                    return
                self.journal.append("failed", request=number, problem=str(error))
            except Exception:
                self._stop()
                raise
            self.bar.update()
            self._changed()

    async def _may_ask(self) -> bool:
        """Wait until another question may be asked; False where none will be."""
        while self.waiting and not self.over_budget:
            if self._is_sure():
                return True
            if not self.in_flight:
                return False
            await self.changed.wait()
        return False

    def _is_sure(self) -> bool:
        """Whether one more reply may be paid for."""
        return self.proven or self.answered + self.in_flight < FIRST_REPLIES

    def _changed(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _settle(self, number: int) -> None:
        replies = self.replies[number]
        while not self._settled(number):
            prompt = self.prompt(number, replies)
            if refusal := self.respondent.refusal(prompt):
                self.journal.append("failed", request=number, problem=refusal)
                return
            while not self._is_sure():
                if not self.in_flight:
                    return
                await self.changed.wait()
            started = time.monotonic()
            self.in_flight += 1
            try:
                reply = await self.writer.complete(
                    prompt,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    stop=(),
                    on_attempt=lambda kind, worst: self.journal.append(kind, request=number, **vars(worst)),
                )
            finally:
                self.in_flight -= 1
            used = Usage(reply.prompt_tokens, reply.completion_tokens)
            cost, seconds = self.respondent.budget.cost(used), round(time.monotonic() - started, 3)
            self.journal.append("done", request=number, **fields_of(reply), cost=cost, seconds=seconds)
            # Without leaving the loop: replies that came together are asked after together, as one batch.
            self.journal.sync()
            replies.append(reply)
            self.answered += 1
            if not self.problem(reply):
                self.proven = True
                self.usable.add(number)
            self._changed()


def spent_text(respondent: Respondent, state: State) -> str:
    """What the replies in a journal cost, in words."""
    text = f"{state.spent.tokens:,} tokens"
    if (cost := respondent.budget.cost(state.spent)) is not None:
        text += f", cost {cost:.4f}"
    if state.unanswered.tokens:
        text += f"; up to {state.unanswered.tokens:,} more tokens for requests without an answer"
    return text
