"""A fixed number of questions to a model: a file of instructions, or the pairs that a judge compares."""

from __future__ import annotations

import signal
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ..errors import RunInterrupted
from ..generation.completion import Completion
from .endpoint_errors import EndpointError
from .job import GO_ON, Job, Question
from .journal import Journal
from .journal_state import State, completion_of
from .model_ref import ModelRef, Prompt
from .reply import sample_of

Replies = Sequence[Completion]


class Questions(Job):
    """A fixed number of questions, each asked up to `attempts` times while its replies are of no use.

    Args:
        journal: As for `Job`.
        model: What answers; loaded only if a question is left.
        count: Number of questions.
        prompt: The question with this number, after these replies.
        problem: Why a reply cannot be used, and what to do about it; "" if it can.
        attempts: Maximum number of replies to a question while none can be used.
        before: Question -> the one whose reply it waits for: the turn before it.
        unit: What a question is called in the progress bar.
    """

    def __init__(
        self,
        journal: Journal,
        model: ModelRef,
        count: int,
        prompt: Callable[[int, Replies], Prompt],
        problem: Callable[[Completion], str],
        *,
        attempts: int,
        max_new_tokens: int,
        temperature: float,
        unit: str,
        before: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(
            journal, lambda: model.writer, 0, max_new_tokens=max_new_tokens, temperature=temperature, total=count
        )
        self.model, self.count, self.unit = model, count, unit
        self.prompt, self.problem, self.attempts = prompt, problem, attempts
        self.replies = replies_of(self.state)
        self.usable = {n for n, replies in self.replies.items() if any(not problem(reply) for reply in replies)}
        # If no reply could be used, something was wrong with all: once that is fixed, all questions are asked again.
        self.anew = {} if self.usable else {number: len(replies) for number, replies in self.replies.items()}
        self.done = {number for number in range(count) if self._is_over(number)}
        self.after: defaultdict[int, list[int]] = defaultdict(list)  # question -> those that wait for its reply
        self.waiting: deque[int] = deque()
        for number in range(count):
            if number not in self.done:
                first = (before or {}).get(number)
                (self.waiting if first is None or self._has_reply(first) else self.after[first]).append(number)
        self.slots = min(model.slots, len(self.waiting))
        spending = model.spending
        spending.spent, spending.lost = self.state.spent, self.state.unanswered

    def run(self) -> Literal["all", "budget"]:
        """Ask until every question is settled or the budget allows no other.

        Raises:
            EndpointError: the server does not answer, or no reply can be used. What it answered before is kept.
            RunInterrupted: SIGTERM or Ctrl-C; questions in flight were given up, everything else is kept.
        """
        if self.waiting:
            self.ask()
        if self.error:
            raise EndpointError(f"{self.error}\n{self.told()} {GO_ON}") from None
        if self.answered and not self.usable and not self.signal:
            newest = completion_of(self.state.answers[-1])
            raise EndpointError(
                f"{self.model.name}: none of its first {self.answered} replies can be used, so no more are paid for. "
                f"The newest: {sample_of(newest.text)}. {self.problem(newest)}\n{self.told()} {GO_ON}"
            )
        if self.signal:
            raise RunInterrupted(f"Stopped by {signal.Signals(self.signal).name}. {self.told()} {GO_ON}", self.signal)
        return "budget" if self.over_budget else "all"

    def told(self) -> str:
        """How far it came, and what that cost, in a sentence; questions that will be asked anew are not done."""
        done = self.done if self.usable else self.state.failed
        return f"{len(done):,} of {self.count:,} {self.unit}s are done ({spent_text(self.model, self.state)})."

    def next_question(self) -> int | None:
        """The first that waits."""
        return self.waiting.popleft() if self.waiting else None

    def put_back(self, number: int) -> None:
        """It waits behind the others."""
        self.waiting.append(number)

    def question(self, number: int) -> Question | str:
        """What is asked after the replies so far."""
        prompt = self.prompt(number, self.replies[number])
        return self.model.refusal(prompt) or Question(prompt)

    def take(self, number: int, answer: Completion) -> None:
        """Keep a reply; if it is of no use, ask again at once."""
        # Without leaving the loop: replies that came together are asked after together, as one batch.
        self.journal.sync()
        self.replies[number].append(answer)
        if not self.problem(answer):
            self.useful = True
            self.usable.add(number)
        if self._is_over(number):
            self.done.add(number)
            self.waiting.extend(self.after.pop(number, ()))
        else:
            self.waiting.appendleft(number)

    def refused(self, number: int) -> None:
        """It is over."""
        self.done.add(number)

    def progress(self) -> tuple[int, str]:
        """Questions that are over."""
        return len(self.done), ""

    def _has_reply(self, number: int) -> bool:
        return number in self.done and number not in self.state.failed

    def _is_over(self, number: int) -> bool:
        asked = len(self.replies[number]) - self.anew.get(number, 0)
        return number in self.state.failed or number in self.usable or asked >= self.attempts


def replies_of(state: State) -> defaultdict[int, list[Completion]]:
    """The replies a journal holds to each question."""
    found: defaultdict[int, list[Completion]] = defaultdict(list)
    for answer in state.answers:
        found[answer["request"]].append(completion_of(answer))
    return found


def spent_text(model: ModelRef, state: State) -> str:
    """What the replies in a journal cost, in words."""
    text = f"{state.spent.tokens:,} tokens"
    if (cost := model.budget.cost(state.spent)) is not None:
        text += f", cost {cost:.4f}"
    if state.unanswered.tokens:
        text += f"; up to {state.unanswered.tokens:,} more tokens for requests without an answer"
    return text
