"""An OpenAI-compatible server: /v1/models, /v1/completions, /v1/chat/completions, streamed or whole.

    client -> guard (host, origin, token, size) -> protocol -> moderation -> engine (queue, batches) -> moderation

A chat's last user turn becomes the instruction of the template that the adapter was trained with. A full queue is
answered with 429, a body that cannot be honoured with 400 and the reason; a client that leaves frees its place.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from ..errors import AlpacaLoraError, DataError, did_you_mean
from ..generation.batching import Answer
from ..generation.model import TooLong
from ..generation.moderation import Moderation, refusal
from .engine import Asked, Engine, QueueFull, TooManyRows
from .protocol import BaseRequest, ChatRequest, CompletionRequest, Refused, explained
from .responses import ChatReply, CompletionReply, Reply, event, usage

_READ = ["GET", "HEAD"]
_EARLIER = "earlier turns are not part of the prompt: the template has one instruction and one input"


def make_app(engine: Engine, moderation: Moderation | None = None) -> FastAPI:
    """The application, without its guard.

    Args:
        engine: Answers. It is closed when the application shuts down.
        moderation: Looks at prompts and answers; streamed answers then come in one piece, once looked at.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title="alpaca_lora", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    prompt_formats, started = engine.model.prompt_formats, int(time.time())

    def known(name: str | None) -> str:
        name = name or engine.model.name
        if name not in prompt_formats:
            near = did_you_mean(name, prompt_formats)
            message = f"model: {name!r} is not served.{near} Served: {', '.join(prompt_formats)}."
            raise Refused(404, message, "model", "model_not_found")
        return name

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "alpaca_lora"}

    @app.api_route("/health", methods=_READ)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/v1/models", methods=_READ)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described(name) for name in prompt_formats]}

    @app.api_route("/v1/models/{name}", methods=_READ)
    async def model(name: str) -> dict[str, Any]:
        return described(known(name))

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        name = known(body.model)
        try:
            engine.check_rows(len(body.prompts) * (body.n or 1))
        except TooManyRows as error:
            raise Refused(400, str(error), "n" if len(body.prompts) == 1 else body.about) from error
        for prompt in body.prompts:
            await _look(moderation, prompt, "prompt")

        def encode() -> list[list[int]]:
            return [prompt_formats[name].encoder.text_ids(prompt) for prompt in body.prompts]

        return await _reply(engine, moderation, CompletionReply(), name, body, encode, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        name, instruction = known(body.model), body.instruction()
        await _look(moderation, f"{instruction}\n{body.input}".strip(), "messages")

        def encode() -> list[list[int]]:
            return [prompt_formats[name].encoder.prompt_ids(instruction, body.input)]

        response = await _reply(engine, moderation, ChatReply(), name, body, encode, request)
        if len(body.messages) > 1:
            response.headers["X-Alpaca-Lora-Note"] = _EARLIER
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _json(error.body, error.status, {"Retry-After": "1"} if error.status == 429 else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        for problem in error.errors():
            if problem["type"] == "json_invalid":
                return _json(Refused(400, f"the body is not valid JSON: {problem['ctx']['error']}.").body, 400)
            if problem["loc"] == ("body",) and problem["type"] == "missing":
                return _json(Refused(400, "the body is empty; send a JSON object.").body, 400)
        return _json(Refused(400, "; ".join(explained(error.errors())) + ".").body, 400)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        hint = " The API is below /v1: a client's base_url ends in /v1." if error.status_code == 404 else ""
        refusal = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}.{hint}")
        return _json(refusal.body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _json(Refused(500, "the server failed; its log says why.").body, 500)

    return app


async def _reply(
    engine: Engine,
    moderation: Moderation | None,
    reply: Reply,
    name: str,
    body: BaseRequest,
    encode: Callable[[], list[list[int]]],
    request: Request,
) -> Response:
    """Queue a request's answers, and write them, as they grow or when they are whole."""
    sampling = body.sampling()
    try:
        prompts = await asyncio.to_thread(encode)  # a prompt of 1 MB takes seconds, in which others are answered
        rows = [(prompt, k) for prompt in prompts for k in range(body.n or 1)]
        seeds = [sampling.seed if sampling.seed is None else (sampling.seed + k) % 2**63 for _, k in rows]
        asked = engine.ask([prompt for prompt, _ in rows], [replace(sampling, seed=seed) for seed in seeds], name)
    except QueueFull as error:
        raise Refused(429, str(error), code="queue_full") from error
    except TooManyRows as error:
        raise Refused(400, str(error), "n") from error
    except DataError as error:
        code = "context_length_exceeded" if isinstance(error, TooLong) else None
        raise Refused(400, f"{body.about}: {error}", body.about, code) from error
    head = {"id": f"{reply.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = _events(asked, moderation, reply, {**head, "object": reply.chunk}, with_usage)
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
    choices = [
        {"index": index, **reply.whole(*await _looked_at(moderation, answer))}
        for index, answer in enumerate(asked.answers)
    ]
    return _json({**head, "object": reply.kind, "choices": choices, "usage": usage(asked.answers)})


async def _events(
    asked: Asked, moderation: Moderation | None, reply: Reply, head: dict[str, Any], with_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events: pieces of text as they become certain, the reason each answer ended, usage, [DONE]."""
    if with_usage:
        head = {**head, "usage": None}

    def choice(index: int, content: Mapping[str, Any]) -> str:
        return event({**head, "choices": [{"index": index, **content}]})

    shown = [0] * len(asked.answers)
    ended: set[int] = set()
    try:
        async with aclosing(asked.growth()) as growth:
            if reply.opening:
                for index in range(len(asked.answers)):
                    yield choice(index, reply.opening)
            async for _ in growth:
                for index, answer in enumerate(asked.answers):
                    over = answer.finish_reason is not None
                    if index in ended or (moderation and not over):
                        continue
                    text, reason = (await _looked_at(moderation, answer)) if over else (_text(answer), "")
                    if len(text) > shown[index]:
                        yield choice(index, reply.piece(text[shown[index] :]))
                        shown[index] = len(text)
                    if reason:
                        ended.add(index)
                        yield choice(index, reply.end(reason))
    except AlpacaLoraError as error:  # too late for a status; and no [DONE], which would call the answer whole
        yield event(Refused(500, str(error)).body)
        return
    if with_usage:
        yield event({**head, "choices": [], "usage": usage(asked.answers)})
    yield "data: [DONE]\n\n"


async def _look(moderation: Moderation | None, text: str, param: str) -> None:
    if reason := await refusal(moderation, text):
        raise Refused(400, f"the request is refused by this server's moderation: {reason}.", param, "content_filter")


async def _looked_at(moderation: Moderation | None, answer: Answer) -> tuple[str, str]:
    """An answer's text and why it ended; nothing of it where moderation refuses it."""
    if await refusal(moderation, _text(answer)):
        return "", "content_filter"
    return _text(answer), "length" if answer.finish_reason == "length" else "stop"


def _text(answer: Answer) -> str:
    assert answer.text is not None  # what the engine makes has one
    return answer.text.certain


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # In ASCII, because half a surrogate pair, which a client can send and an error repeat, has no UTF-8.
    return Response(json.dumps(content), status, headers, "application/json")
