"""Self-instruct: requests with a few seeds in context are sent; their answers are journaled, parsed, judged, pooled.

    seeds ──> prompt ──> writer ──> journal: done ──> parse, filters ──> journal: judged ──> records.jsonl
              as many in flight as there are slots    one after the other, in the journal's order

Request n shows the seeds drawn from (seed, n), whatever came before it, so one that a dead process left is the same
when it is sent again. In memory: the accepted records and the compressed answers.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..data.records import Record
from ..errors import ConfigError, RunInterrupted
from ..llm.budget import Budget, BudgetReached, Usage
from ..llm.client import PROMPT_MARGIN, EndpointError
from ..llm.journal import Journal, completion_of, fields_of
from ..llm.loop import run_in_a_loop
from ..llm.model_ref import Writer
from ..llm.reply import FIRST_REPLIES, REMEDIES, sample_of
from .pool import Pool
from .prompt import Brief, Prompt, build_prompt
from .summary import Ended, Summary

SEEDS_A_REQUEST = 3
BARREN_ANSWERS = 50  # after so many in a row without a record accepted, a run ends


def draw(seeds: Sequence[Record], seed: int, request: int) -> list[Record]:
    """The seeds that request number `request` shows; the same on every platform and version of Python."""
    generator = random.Random(f"{seed}/{request}")  # only its `random()` is promised to repeat across versions
    chosen: list[int] = []
    while len(chosen) < min(SEEDS_A_REQUEST, len(seeds)):
        index = int(generator.random() * len(seeds))
        if index not in chosen:
            chosen.append(index)
    return [seeds[index] for index in chosen]


def check_budget(
    budget: Budget, seeds: Sequence[Record], brief: Brief, *, chat: bool, seed: int, max_new_tokens: int
) -> None:
    """Raise ConfigError, naming the least that would do, where a budget does not allow even the first request."""
    text = _request_text(build_prompt(draw(seeds, seed, 0), brief), chat)
    worst = Usage(len(text.encode()) + PROMPT_MARGIN, max_new_tokens)
    problems = []
    if budget.max_tokens is not None and worst.tokens > budget.max_tokens:
        problems.append(
            f"max_tokens: {budget.max_tokens:,} allows no request; the first may take {worst.tokens:,}. Give at least "
            f"{worst.tokens}, or lower max_new_tokens ({max_new_tokens:,} of them)."
        )
    cost = budget.cost(worst)
    if budget.max_cost is not None and cost is not None and cost > budget.max_cost:
        least = math.ceil(cost * 1e4) / 1e4
        problems.append(
            f"max_cost: {budget.max_cost:g} allows no request; the first may cost {least:.4f}. Give at least that, or "
            f"lower max_new_tokens ({max_new_tokens:,})."
        )
    if problems:
        raise ConfigError(problems)


class Bootstrap:
    """One process's part of a run, which goes on where the journal ends.

    Args:
        journal: Open; its settings say what requests are made from.
        seeds: The records they show.
        brief: What they ask for.
        writer: Answers them; its meter knows what the journal says was spent.
        num_records: Enough accepted records. Those in flight are taken too, so that nothing paid for is lost.
        concurrency: Most requests in flight.
    """

    def __init__(
        self,
        journal: Journal,
        seeds: Sequence[Record],
        brief: Brief,
        writer: Writer,
        *,
        num_records: int,
        concurrency: int,
    ) -> None:
        self.journal, self.state, self.folder = journal, journal.state, journal.path.parent
        self.settings = self.state.head["settings"]
        self.seeds, self.brief, self.writer = seeds, brief, writer
        self.num_records, self.concurrency = num_records, concurrency
        self.pool = Pool(seeds, self.settings, self.state.head["filters"])
        self.to_send = self.state.unfinished()  # ends in the first number never used
        self.in_flight = self.barren = self.signal = 0
        self.answered = 0  # by this process, before the first that records were found in
        self.readable = any(line["parsed"] for line in self.state.judged.values())
        self.ended: Ended | None = None
        self.detail = ""
        self.error: EndpointError | None = None
        self.senders: list[asyncio.Task[None]] = []

    def run(self) -> Summary:
        """Send requests until there are enough records, or the budget, the model's ideas or the user's patience end.

        Returns:
            What the whole run came to; also in report.json.

        Raises:
            EndpointError: the server does not answer, or none of its first answers holds a record. What it answered
                before is kept.
            RunInterrupted: SIGTERM or Ctrl-C. Requests in flight were given up; everything else is kept.
        """
        self.pool.restore(self.state)
        self.pool.write(self.folder)
        run_in_a_loop(self.work, self.interrupt)
        ended = self.ended or "num_records"
        summary = Summary.of(self.folder, self.state, self.writer.meter.budget, ended, self.detail)
        summary.write(self.state.samples)
        if self.error:
            raise EndpointError(f"{self.error}\n{summary}\nThe same command goes on from here.") from None
        if self.signal:
            raise RunInterrupted(f"{summary}\nThe same command goes on from here.", self.signal)
        return summary

    def stop(self, ended: Ended, detail: str) -> None:
        """Send no more requests; the first reason given is the one reported."""
        if self.ended is None:
            self.ended, self.detail = ended, detail
        self._changed()

    def interrupt(self, number: int) -> None:
        """Give up the requests in flight as well, as a signal asks."""
        self.signal = number
        self.stop("signal", f"Stopped by {signal.Signals(number).name}; requests in flight were given up.")
        for task in self.senders:
            task.cancel()

    async def work(self) -> None:
        """Send and judge side by side until both are done."""
        self.change = asyncio.Event()
        async with self.writer:
            with _bar(self) as self.bar:
                await self._judge_waiting()  # what a dead process left
                self.senders = [asyncio.create_task(self._send()) for _ in range(self.concurrency)]
                for sender in self.senders:
                    sender.add_done_callback(lambda _: self._changed())
                tasks = [*self.senders, asyncio.create_task(self._judge())]
                try:
                    await asyncio.gather(*tasks)
                finally:  # a failure of ours, such as a full disk, ends all of them
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        with suppress(asyncio.CancelledError):
            while await self._may_send():
                number = self.to_send.pop(0)
                if not self.to_send:
                    self.to_send.append(number + 1)
                self.in_flight += 1
                over: BudgetReached | None = None
                try:
                    await self._ask(number)
                except BudgetReached as error:
                    over = error
                except EndpointError as error:
                    self._note_failure(number, error)
                finally:
                    self.in_flight -= 1
                if over is None:
                    self._changed()
                    continue
                bisect.insort(self.to_send, number)
                if self.writer.meter.held.tokens:  # an answer in flight may take less than its worst case
                    await self._wait()
                else:
                    self.stop("budget", f"The budget allows no further request. {over}")

    async def _ask(self, number: int) -> None:
        prompt = build_prompt(draw(self.seeds, self.settings["seed"], number), self.brief)
        chat = self.writer.kind == "chat"
        text = _request_text(prompt, chat)
        started = time.monotonic()
        completion = await self.writer.complete(
            [{"role": "user", "content": text}] if chat else text,
            max_new_tokens=self.settings["max_new_tokens"],
            temperature=self.settings["temperature"],
            stop=() if chat else prompt.stops,
            on_attempt=lambda kind, worst: self.journal.append(kind, request=number, **vars(worst)),
        )
        self.journal.append(
            "done",
            request=number,
            **fields_of(completion),
            first=prompt.first,
            cost=self.writer.meter.budget.cost(Usage(completion.prompt_tokens, completion.completion_tokens)),
            seconds=round(time.monotonic() - started, 3),
        )
        self.answered += 1

    async def _may_send(self) -> bool:
        """Wait for a reason to send another request; False when there will be none."""
        while self.ended is None:
            unjudged = len(self._unjudged())
            # Records to be expected from one answer: as many as were asked for, until the run itself tells.
            rate = self.state.accepted / len(self.state.judged) if self.state.judged else self.brief.count
            expected = self.state.accepted + rate * (self.in_flight + unjudged)
            sure = self.readable or self.answered + self.in_flight < FIRST_REPLIES
            if sure and expected < self.num_records and unjudged <= self.concurrency:
                return True
            await self._wait()
        return False

    async def _judge(self) -> None:
        while not all(sender.done() for sender in self.senders) or self._unjudged():
            if self._unjudged():
                await self._judge_waiting()
            else:
                await self._wait()

    async def _judge_waiting(self) -> None:
        first = len(self.pool.records)
        for answer in self._unjudged():
            judged = await asyncio.to_thread(self.pool.judge, answer)
            self.journal.append("judged", **judged)
            self.readable = self.readable or judged["parsed"] > 0
            self._note_barren(not judged["accepted"])
        await asyncio.to_thread(self.journal.sync)
        await asyncio.to_thread(self.pool.extend, self.folder, first)
        self._check_enough()
        if not self.readable and self.answered >= FIRST_REPLIES and not self._unjudged():
            self._give_up()
        self._changed()

    def _give_up(self) -> None:
        reason = next(iter(self.state.judged[self.state.answers[-1]["request"]]["rejected"]), "malformed")
        remedy = REMEDIES.get(reason) or (
            "Its answers end before the first record does: allow more new tokens (max_new_tokens)."
            if reason == "truncated"
            else "Another model, or the other form of answers (mode), may do better."
        )
        self.error = self.error or EndpointError(
            f"{self.settings['model']}: none of its first {self.answered} answers holds a record, so no more are paid "
            f"for. The newest ({reason}): {sample_of(completion_of(self.state.answers[-1]).text)}. {remedy}"
        )
        self.stop("error", "No answer can be read.")

    def _unjudged(self) -> list[dict[str, Any]]:
        return self.state.answers[len(self.state.judged) :]

    def _check_enough(self) -> None:
        if self.state.accepted >= self.num_records:
            self.stop("num_records", f"{self.num_records:,} records were asked for, and are there.")

    def _note_barren(self, barren: bool) -> None:
        self.barren = self.barren + 1 if barren else 0
        if self.barren >= BARREN_ANSWERS:
            self.stop(
                "no progress",
                f"{self.barren} requests in a row gave no record that could be accepted. The samples in report.json "
                "show what came instead; another model, brief or temperature may help.",
            )

    def _note_failure(self, number: int, error: EndpointError) -> None:
        if error.this_request_only and self.state.answers:
            self.journal.append("failed", request=number, problem=str(error))
            self._note_barren(True)
            return
        bisect.insort(self.to_send, number)
        self.error = self.error or error
        self.stop("error", "The server does not answer as it should.")

    def _changed(self) -> None:
        """Wake everyone who waits for something to change."""
        self.change.set()
        self.change = asyncio.Event()
        self.bar.n = min(self.state.accepted, self.bar.total)
        rejected, cost = self.state.rejected.total(), self.writer.meter.budget.cost(self.state.spent)
        spent = f"{self.state.spent.tokens:,} tokens" if cost is None else f"cost {cost:.4f}"
        self.bar.set_postfix_str(f"{rejected:,} rejected, {spent}, {self.in_flight} in flight", refresh=False)
        self.bar.update(0)

    async def _wait(self) -> None:
        await self.change.wait()


def _request_text(prompt: Prompt, chat: bool) -> str:
    # One message of the user: the templates of many models have no place for a system message and refuse it.
    return f"{prompt.system}\n\n{prompt.user}" if chat else prompt.text


def _bar(run: Bootstrap) -> Any:
    from tqdm import tqdm

    every = 0.5 if sys.stderr.isatty() else 10.0  # seconds
    return tqdm(total=run.num_records, initial=run.state.accepted, unit="record", mininterval=every, dynamic_ncols=True)
