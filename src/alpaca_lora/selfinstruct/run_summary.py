"""The outcome of a self-instruct run: counts, tokens, money, and what 52,000 records would cost at this rate."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import counted
from ..files import explained, write_atomically
from ..llm.budget import Budget, Usage
from ..llm.journal import MAKE_ROOM
from ..llm.journal_state import State
from ..llm.reply import whole_characters

NAME = "report.json"
ALPACA_RECORDS = 52_000

Ended = Literal["num_records", "budget", "no progress", "signal", "error", "refilter"]


@dataclass(frozen=True)
class Summary:
    """Counts over the whole journal, all processes that wrote it together."""

    folder: str
    """Where records.jsonl, journal.jsonl and report.json are."""
    ended: Ended | None
    """Why it ended; None if only the journal was read; the run may be going on."""
    detail: str
    """That in words."""
    accepted: int
    """Records in records.jsonl."""
    rejected: dict[str, int]
    """Candidates and fragments not accepted, by reason, the most frequent first."""
    answers: int
    """Requests answered."""
    failed: int
    """Requests the server does not take."""
    thoughts: int
    """Answers before which the model thought aloud; its thoughts were left out."""
    left_out: list[str]
    """Settings that the model refused, and was asked without."""
    attempts: int
    """Attempts sent, retries included."""
    refused: int
    """Attempts refused at no cost."""
    unanswered: int
    """Attempts without an answer: timeouts, cut connections, killed processes."""
    torn: int
    """Journal lines that a process left unfinished."""
    prompt_tokens: int
    """Counted by the server."""
    completion_tokens: int
    """Counted by the server."""
    unanswered_tokens: int
    """Upper bound on the tokens of attempts without an answer."""
    cost: float | None
    """Cost of the counted tokens; None without prices."""
    unanswered_cost: float | None
    """Upper bound on the cost of attempts without an answer."""
    projected_cost: float | None
    """Cost of 52,000 accepted records at this rate; later records are rejected more often, so it will be more."""

    @classmethod
    def of(cls, folder: Path, state: State, budget: Budget, ended: Ended | None = None, detail: str = "") -> Summary:
        """The summary of a journal's state.

        Costs are those at which the answers were journaled, and today's prices for what has none.
        """
        cost: float | None = 0.0
        for answer in state.answers:
            own = answer["cost"]
            if own is None:
                own = budget.cost(Usage(answer["prompt_tokens"], answer["completion_tokens"]))
            cost = None if cost is None or own is None else cost + own
        return cls(
            folder=str(folder),
            ended=ended,
            detail=detail,
            accepted=state.accepted,
            rejected=dict(state.rejected.most_common()),
            answers=len(state.answers),
            failed=len(state.failed),
            thoughts=state.thoughts,
            left_out=state.left_out,
            attempts=state.attempts["sent"],
            refused=state.attempts["refused"],
            unanswered=state.attempts["sent"] - state.attempts["refused"] - state.attempts["done"],
            torn=state.torn,
            prompt_tokens=state.spent.prompt_tokens,
            completion_tokens=state.spent.completion_tokens,
            unanswered_tokens=state.unanswered.tokens,
            cost=cost,
            unanswered_cost=budget.cost(state.unanswered),
            projected_cost=cost / state.accepted * ALPACA_RECORDS if cost is not None and state.accepted else None,
        )

    def write(self, samples: dict[str, list[dict[str, str]]]) -> None:
        """Write report.json, with the samples of what was rejected."""
        content: dict[str, Any] = {**asdict(self), "samples": samples}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        path = Path(self.folder) / NAME
        with explained(path, MAKE_ROOM):
            write_atomically(path, whole_characters(text))

    def __str__(self) -> str:
        candidates = self.accepted + sum(self.rejected.values())
        share = f" ({self.accepted / candidates:.0%} of {candidates:,})" if candidates else ""
        lines = [
            self.detail,
            f"{counted(self.accepted, 'record')} accepted{share}: {Path(self.folder) / 'records.jsonl'}",
        ]
        if self.rejected:
            lines.append("rejected: " + ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.items()))
        requests = f"{counted(self.answers, 'request')} answered"
        for count, what in (
            (self.refused, "attempts refused"),
            (self.unanswered, "attempts without an answer"),
            (self.failed, "requests the server does not take"),
            (self.torn, "journal lines cut off"),
            (self.thoughts, "with thoughts, which were left out"),
        ):
            requests += f", {count:,} {what}" if count else ""
        lines.append(requests)
        if self.left_out:
            lines.append(f"sent without {', '.join(self.left_out)}, which the model refuses")
        tokens = f"tokens: {self.prompt_tokens:,} of prompts, {self.completion_tokens:,} of answers"
        if self.unanswered:
            tokens += f"; at most {self.unanswered_tokens:,} more for attempts without an answer"
        lines.append(tokens)
        if self.cost is None:
            lines.append("cost: unknown (price_in and price_out tell it)")
        else:
            cost = f"cost: {self.cost:,.4f}"
            if self.unanswered_cost:
                cost += f", at most {self.unanswered_cost:,.4f} more for attempts without an answer"
            if self.projected_cost is not None:
                cost += f"; {ALPACA_RECORDS:,} records at this rate: {self.projected_cost:,.2f}"
            lines.append(cost)
        return "\n".join(lines)
