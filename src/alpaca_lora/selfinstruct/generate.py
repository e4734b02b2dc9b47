"""Self-instruct: requests with a few seeds in context are sent; answers are journaled, parsed and judged.

    seeds ──> prompt ──> writer ──> journal: done ──> parse, filters ──> journal: judged ──> records.jsonl
              as many in flight as there are slots    one after the other, in the journal's order

Request n shows the seeds drawn from (seed, n), whatever came before it, so one that a dead process left is the same
when it is sent again. In memory: the accepted records and the compressed answers.
"""

from __future__ import annotations

import asyncio
import bisect
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

from ..data.records import Record
from ..errors import RunInterrupted
from ..generation.completion import Completion
from ..llm.endpoint_errors import EndpointError
from ..llm.job import GO_ON, Job, Question
from ..llm.journal import Journal
from ..llm.journal_state import completion_of
from ..llm.model_ref import Writer
from ..llm.reply import FIRST_REPLIES, REMEDIES, sample_of
from .prompt import Brief, build_prompt
from .request import draw, request_text
from .run_summary import Ended, Summary
from .task_pool import TaskPool

BARREN_ANSWERS = 50  # after so many in a row without a record accepted, a run ends


class Generation(Job):
    """One process's part of a run, which continues where the journal ends.

    After `num_records` accepted records, those in flight are taken too, so that nothing paid for is lost.
    """

    unit = "record"

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
        self.settings = journal.state.head["settings"]
        super().__init__(
            journal,
            lambda: writer,
            concurrency,
            max_new_tokens=self.settings["max_new_tokens"],
            temperature=self.settings["temperature"],
            total=num_records,
        )
        self.folder, self.seeds, self.brief, self.spending = journal.path.parent, seeds, brief, writer.spending
        self.pool = TaskPool(seeds, self.settings, self.state.head["filters"])
        self.to_send = self.state.unfinished()  # ends in the first number never used
        self.barren = 0
        self.useful = any(line["parsed"] for line in self.state.judged.values())
        self.ended: Ended | None = None
        self.detail = ""

    def run(self) -> Summary:
        """Send requests until there are enough records, the budget is used up, no progress is made, or a signal comes.

        Returns:
            The outcome of the whole run; also in report.json.

        Raises:
            EndpointError: the server does not answer, or none of its first answers holds a record. What it answered
                before is kept.
            RunInterrupted: SIGTERM or Ctrl-C. Requests in flight were given up; everything else is kept.
        """
        self.pool.restore(self.state)
        self.pool.write(self.folder)
        self.ask()
        if self.signal:
            name = signal.Signals(self.signal).name
            self.end("signal", f"Stopped by {name}; requests in flight were given up.")
        elif self.over_budget:
            self.end("budget", f"The budget allows no further request. {self.over_budget}")
        elif self.error:
            self.end("error", "The server does not answer as it should.")
        ended = self.ended or "num_records"
        summary = Summary.of(self.folder, self.state, self.spending.budget, ended, self.detail)
        summary.write(self.state.samples)
        if self.error:
            raise EndpointError(f"{self.error}\n{summary}\n{GO_ON}") from None
        if self.signal:
            raise RunInterrupted(f"{summary}\n{GO_ON}", self.signal)
        return summary

    def end(self, ended: Ended, detail: str) -> None:
        """Say why the run ended; the first reason given is the one reported."""
        if self.ended is None:
            self.ended, self.detail = ended, detail

    def next_question(self) -> int | None:
        """The next request, if more records are needed than those in flight should give."""
        unjudged = len(self._unjudged())
        # Records to be expected from one answer: as many as were asked for, until the run itself tells.
        rate = self.state.accepted / len(self.state.judged) if self.state.judged else self.brief.count
        expected = self.state.accepted + rate * (self.in_flight + unjudged)
        if expected >= self.total or unjudged > self.slots:
            return None
        number = self.to_send.pop(0)
        if not self.to_send:
            self.to_send.append(number + 1)
        return number

    def put_back(self, number: int) -> None:
        """It is sent again in its place."""
        bisect.insort(self.to_send, number)

    def question(self, number: int) -> Question:
        """The request with this number: its seeds follow from (seed, number), whatever came before it."""
        prompt = build_prompt(draw(self.seeds, self.settings["seed"], number), self.brief)
        chat = self.writer.kind == "chat"
        text = request_text(prompt, chat)
        asked = [{"role": "user", "content": text}] if chat else text
        return Question(asked, () if chat else prompt.stops, {"first": prompt.first})

    def take(self, number: int, answer: Completion) -> None:
        """It waits to be judged."""

    def refused(self, number: int) -> None:
        """It gave no record."""
        self._note_barren(True)

    def is_settled(self) -> bool:
        """Judging ends the run: as long as it goes on, more may be needed."""
        return False

    def progress(self) -> tuple[int, str]:
        """Accepted records; what was rejected, and the cost."""
        rejected, cost = self.state.rejected.total(), self.spending.budget.cost(self.state.spent)
        spent = f"{self.state.spent.tokens:,} tokens" if cost is None else f"cost {cost:.4f}"
        return self.state.accepted, f"{rejected:,} rejected, {spent}, {self.in_flight} in flight"

    def beside(self) -> list[Coroutine[Any, Any, None]]:
        """Judging, one answer after the other, in the journal's order."""
        return [self._judge()]

    async def begin(self) -> None:
        """What a dead process left is judged first."""
        await self._judge_waiting()

    async def _judge(self) -> None:
        while not all(task.done() for task in self.tasks) or self._unjudged():
            if self._unjudged():
                await self._judge_waiting()
            else:
                await self.wait()

    async def _judge_waiting(self) -> None:
        first = len(self.pool.records)
        for answer in self._unjudged():
            judged = await asyncio.to_thread(self.pool.judge, answer)
            self.journal.append("judged", **judged)
            self.useful = self.useful or judged["parsed"] > 0
            self._note_barren(not judged["accepted"])
        await asyncio.to_thread(self.journal.sync)
        await asyncio.to_thread(self.pool.extend, self.folder, first)
        if self.state.accepted >= self.total:
            self._end_now("num_records", f"{self.total:,} records were asked for, and are there.")
        if not self.useful and self.answered >= FIRST_REPLIES and not self._unjudged():
            self._give_up()
        self.changed()

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
        self._end_now("error", "No answer can be read.")

    def _unjudged(self) -> list[dict[str, Any]]:
        return self.state.answers[len(self.state.judged) :]

    def _note_barren(self, barren: bool) -> None:
        self.barren = self.barren + 1 if barren else 0
        if self.barren >= BARREN_ANSWERS:
            self._end_now(
                "no progress",
                f"{self.barren} requests in a row gave no record that could be accepted. The samples in report.json "
                "show what came instead; another model, brief or temperature may help.",
            )

    def _end_now(self, ended: Ended, detail: str) -> None:
        if not self.over:
            self.end(ended, detail)
        self.stop()
