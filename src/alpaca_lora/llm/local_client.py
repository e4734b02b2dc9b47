"""The model on this machine behind the interface of an endpoint: single prompts in, answered in batches.

Prompts that wait at the same time run as one batch, so that callers need not know whether a server or this process
answers them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..generation.completion import Completion
from .budget import Spending, Usage
from .client import PROMPT_MARGIN, OnAttempt

if TYPE_CHECKING:
    from ..generation.model import LocalModel
    from ..generation.sampling import Sampling
    from .model_ref import Prompt


class LocalEndpoint:
    """A `LocalModel` that answers as `Endpoint` does, of the kind "completions"; an async context manager."""

    kind = "completions"

    def __init__(self, model: LocalModel, *, concurrency: int = 8, spending: Spending | None = None) -> None:
        self.model, self.concurrency, self.spending = model, concurrency, spending or Spending()
        self._waiting: list[tuple[Prompt, Sampling, tuple[str, ...], asyncio.Future[Completion]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LocalEndpoint:
        return self

    async def __aexit__(self, *error: Any) -> None:
        if self._running:
            await self._running

    async def complete(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        on_attempt: OnAttempt | None = None,
    ) -> Completion:
        """The model's answer to one prompt; see `Endpoint.complete`."""
        from ..generation.sampling import Sampling

        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
        worst = Usage(len(text.encode()) + PROMPT_MARGIN, max_new_tokens)
        note = on_attempt or (lambda event, usage: None)
        self.spending.hold(worst)
        note("sent", worst)
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, sampling, tuple(stop), answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        try:
            completion = await answer
        except BaseException:
            self.spending.release(worst)
            note("refused", worst)
            raise
        self.spending.settle(worst, Usage(completion.prompt_tokens, completion.completion_tokens))
        return completion

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)  # those who got an answer ask again
            self._waiting = [call for call in self._waiting if not call[-1].done()]  # some were cancelled
            if not self._waiting:
                return
            _, sampling, stop, _ = self._waiting[0]
            batch = [call for call in self._waiting if call[1:3] == (sampling, stop)][: self.concurrency]
            self._waiting = [call for call in self._waiting if call not in batch]
            prompts, answers = [call[0] for call in batch], [call[-1] for call in batch]
            try:
                completions = await asyncio.to_thread(self.model.complete, prompts, sampling, stop)
            except Exception as error:  # raised where the answers are awaited
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for answer, completion in zip(answers, completions, strict=True):
                    if not answer.done():
                        answer.set_result(completion)
