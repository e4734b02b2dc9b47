"""What an OpenAI-compatible server answers: whole, or as server-sent events.

    chat, streamed    {role, ""}  {"To"}  {"m."}  {} stop  [usage]  [DONE]

Clients put the pieces of a stream together, the role too, so it is in the first one only.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from ..errors import AlpacaLoraError, DataError
from ..generation.batching import Answer
from ..generation.model import TooLong
from ..generation.moderation import Moderation, refusal
from ..generation.token_texts import TokenTexts
from .engine import Engine, PendingAnswers, QueueFull, TooManyRows, text_of
from .protocol import BaseRequest
from .refusals import Refused
from .replies import Reply
from .token_entries import TokenEntries, TokenEntry

MAX_LOGPROBS = 2_000_000
"""Of the prompts of one reply; a hundred megabytes of JSON."""


@dataclass
class Choice:
    """One answer on its way to a client."""

    answer: Answer
    echoed: str
    """The prompt's text, where the reply begins with it."""
    entries: TokenEntries | None
    """Its log-probabilities, where they are asked for."""
    shown: int = 0
    """Characters that were sent."""

    @property
    def text(self) -> str:
        """What can be sent so far."""
        return self.echoed + text_of(self.answer)

    @property
    def begun(self) -> bool:
        """Whether all that belongs to the echoed prompt is there."""
        logprobs = self.answer.logprobs
        return not (logprobs and logprobs.of_prompt and not logprobs.prompt)

    def rest(self) -> list[TokenEntry] | None:
        """The entries that were not sent, of an answer that has ended; none of what a stop text cut off."""
        stopped = self.answer.text and self.answer.text.stopped
        return self._new(len(self.text) if stopped else None)

    def piece(self, text: str) -> tuple[str, list[TokenEntry] | None]:
        """What of a text was not sent yet, with the entries that belong to it; both count as sent."""
        new, self.shown = text[self.shown :], max(self.shown, len(text))
        return new, self._new(self.shown) if new else None

    def _new(self, shown: int | None) -> list[TokenEntry] | None:
        return None if self.entries is None else self.entries.new(shown)

    async def looked_at(self, moderation: Moderation | None) -> tuple[str, str]:
        """The text and why it ended; no text, and then no entries either, if moderation refuses it."""
        text = text_of(self.answer)
        if await refusal(moderation, text):
            self.entries = None
            return "", "content_filter"
        return self.echoed + text, "length" if self.answer.finish_reason == "length" else "stop"


def event(content: Any) -> str:
    r"""A server-sent event.

    In ASCII, so that a client that reads each packet of the network as a text of its own finds no half of a character,
    and one that splits lines where Unicode does finds no line within an answer.

    Example:
        >>> event({"text": "é"})
        'data: {"text": "\\u00e9"}\n\n'
    """
    return f"data: {json.dumps(content)}\n\n"


def usage(answers: list[Answer]) -> dict[str, int]:
    """Tokens read and made; a prompt that several answers share is counted once."""
    prompt = sum({id(answer.prompt): len(answer.prompt) for answer in answers}.values())
    completion = sum(len(answer.ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def to_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    # In ASCII, because half a surrogate pair, which a client can send and an error repeat, has no UTF-8.
    return Response(json.dumps(content), status, headers, "application/json")


async def respond(
    engine: Engine,
    moderation: Moderation | None,
    reply: Reply,
    name: str,
    body: BaseRequest,
    encode: Callable[[], list[list[int]]],
    request: Request,
    texts: TokenTexts,
    said: Sequence[str] = (),
) -> Response:
    """Queue a request's answers, and write them, as they grow or when they are whole.

    Args:
        engine: Answers.
        moderation: Looks at answers.
        reply: How they are written.
        name: Who answers.
        body: What is asked.
        encode: Gives the prompts' ids.
        request: Tells whether the client is still there.
        texts: Of the tokens.
        said: The prompts' texts, which `echo` repeats.
    """
    sampling = body.sampling()
    try:
        prompts = await asyncio.to_thread(encode)  # a prompt of 1 MB takes seconds, in which others are answered
        _check_size(body, prompts)
        rows = [(place, k) for place in range(len(prompts)) for k in range(body.n or 1)]
        seeds = [sampling.seed if sampling.seed is None else (sampling.seed + k) % 2**63 for _, k in rows]
        samplings = [replace(sampling, seed=seed) for seed in seeds]
        asked = engine.ask([prompts[place] for place, _ in rows], samplings, name, body.new_logprobs, body.prompt_only)
    except QueueFull as error:
        raise Refused(429, str(error), code="queue_full") from error
    except TooManyRows as error:
        raise Refused(400, str(error), "n") from error
    except DataError as error:
        code = "context_length_exceeded" if isinstance(error, TooLong) else None
        raise Refused(400, f"{body.about}: {error}", body.about, code) from error
    choices = []
    for answer, (place, _) in zip(asked.answers, rows, strict=True):
        echoed = said[place] if body.echoes else None
        entries = TokenEntries(answer, texts, echoed, reply.with_end) if answer.logprobs else None
        choices.append(Choice(answer, echoed or "", entries))
    head = {"id": f"{reply.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = _events(asked, choices, moderation, reply, {**head, "object": reply.chunk}, with_usage)
        # A proxy such as nginx would else keep the pieces until there are many.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
    try:
        async with aclosing(asked.growth()) as growth:
            async for _ in growth:
                if await request.is_disconnected():
                    return Response(status_code=499)
    except AlpacaLoraError as error:
        raise Refused(500, str(error)) from error
    seen = [await choice.looked_at(moderation) for choice in choices]

    def written() -> Response:
        whole = [
            {"index": index, **reply.whole(text, reason, choice.rest())}
            for index, (choice, (text, reason)) in enumerate(zip(choices, seen, strict=True))
        ]
        return to_json({**head, "object": reply.kind, "choices": whole, "usage": usage(asked.answers)})

    return await asyncio.to_thread(written) if body.top is not None else written()


def _check_size(body: BaseRequest, prompts: Sequence[list[int]]) -> None:
    """Refuse echoed log-probabilities whose reply would take all the memory."""
    tokens = sum(map(len, prompts)) * (body.n or 1)
    if body.echoes and body.top is not None and tokens * (body.top + 1) > MAX_LOGPROBS:
        raise Refused(
            400,
            f"logprobs: {tokens:,} tokens of prompts with {body.top + 1} each are more than the {MAX_LOGPROBS:,} "
            "log-probabilities of a reply. Ask for fewer prompts at once.",
            "logprobs",
        )


async def _events(
    asked: PendingAnswers,
    choices: Sequence[Choice],
    moderation: Moderation | None,
    reply: Reply,
    head: dict[str, Any],
    with_usage: bool,
) -> AsyncIterator[str]:
    """Server-sent events: pieces of text as they become certain, the reason each answer ended, usage, [DONE]."""
    if with_usage:
        head = {**head, "usage": None}

    def of(index: int, content: Mapping[str, Any]) -> str:
        return event({**head, "choices": [{"index": index, **content}]})

    ended: set[int] = set()
    try:
        async with aclosing(asked.growth()) as growth:
            if reply.opening:
                for index in range(len(choices)):
                    yield of(index, reply.opening)
            async for _ in growth:
                for index, choice in enumerate(choices):
                    over = choice.answer.finish_reason is not None
                    if index in ended or not choice.begun or (moderation and not over):
                        continue
                    text, reason = (await choice.looked_at(moderation)) if over else (choice.text, "")
                    new, entries = choice.piece(text)
                    if new:
                        yield of(index, reply.piece(new, entries))
                    if reason:
                        ended.add(index)
                        yield of(index, reply.end(reason, choice.rest() or None))
    except AlpacaLoraError as error:  # too late for a status; and no [DONE], which would call the answer whole
        yield event(Refused(500, str(error)).body)
        return
    if with_usage:
        yield event({**head, "choices": [], "usage": usage(asked.answers)})
    yield "data: [DONE]\n\n"
