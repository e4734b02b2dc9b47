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
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from ..errors import AlpacaLoraError, DataError, did_you_mean
from .batch import Answer
from .engine import Asked, Engine, QueueFull
from .moderation import Moderation
from .protocol import Asking, ChatReply, ChatRequest, CompletionReply, CompletionRequest, Refused

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
    voices, started = engine.model.voices, int(time.time())

    def known(name: str | None) -> str:
        name = name or engine.model.name
        if name not in voices:
            near = did_you_mean(name, voices)
            message = f"model: {name!r} is not served.{near} Served: {', '.join(voices)}."
            raise Refused(404, message, "model", "model_not_found")
        return name

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "alpaca_lora"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described(name) for name in voices]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        return described(known(name))

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        name = known(body.model)
        for prompt in body.prompts:
            await _look(moderation, prompt, "prompt")
        prompts = [voices[name].encoder.text_ids(prompt) for prompt in body.prompts]
        return await _reply(engine, moderation, CompletionReply(), name, body, prompts, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        name, instruction = known(body.model), body.instruction()
        await _look(moderation, f"{instruction}\n{body.input}".strip(), "messages")
        prompt = voices[name].encoder.prompt_ids(instruction, body.input)
        response = await _reply(engine, moderation, ChatReply(), name, body, [prompt], request)
        if len(body.messages) > 1:
            response.headers["X-Alpaca-Lora-Note"] = _EARLIER
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 429 else None
        return JSONResponse(error.body, error.status, headers)

    @app.exception_handler(DataError)
    async def unusable(request: Request, error: DataError) -> JSONResponse:
        return JSONResponse(Refused(400, str(error)).body, 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(_explained(error).body, 400)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        refusal = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}.")
        return JSONResponse(refusal.body, error.status_code, error.headers)

    return app


Reply = CompletionReply | ChatReply


async def _reply(
    engine: Engine,
    moderation: Moderation | None,
    reply: Reply,
    name: str,
    body: Asking,
    prompts: list[list[int]],
    request: Request,
) -> Response:
    """Queue a request's answers, and write them, as they grow or when they are whole."""
    sampling = body.sampling()
    rows = [(prompt, k) for prompt in prompts for k in range(body.n or 1)]
    seeds = [sampling.seed if sampling.seed is None else (sampling.seed + k) % 2**63 for _, k in rows]
    try:
        asked = engine.ask([prompt for prompt, _ in rows], [replace(sampling, seed=seed) for seed in seeds], name)
    except QueueFull as error:
        raise Refused(429, str(error), code="queue_full") from error
    except DataError as error:
        raise Refused(400, str(error), code="context_length_exceeded") from error
    head = {"id": f"{reply.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = _events(asked, moderation, reply, {**head, "object": reply.chunk}, with_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
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
    return JSONResponse({**head, "object": reply.kind, "choices": choices, "usage": _usage(asked.answers)})


async def _events(
    asked: Asked, moderation: Moderation | None, reply: Reply, head: dict[str, Any], with_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events: pieces of text as they become certain, the reason each answer ended, usage, [DONE]."""

    def event(**rest: Any) -> str:
        return f"data: {json.dumps({**head, **rest}, ensure_ascii=False)}\n\n"

    shown = [0] * len(asked.answers)
    ended: set[int] = set()
    try:
        async with aclosing(asked.growth()) as growth:
            async for _ in growth:
                for index, answer in enumerate(asked.answers):
                    over = answer.finish_reason is not None
                    if index in ended or (moderation and not over):
                        continue
                    text, reason = (await _looked_at(moderation, answer)) if over else (_text(answer), "")
                    if len(text) > shown[index]:
                        yield event(choices=[{"index": index, **reply.piece(text[shown[index] :])}])
                        shown[index] = len(text)
                    if reason:
                        ended.add(index)
                        yield event(choices=[{"index": index, **reply.piece("", reason)}])
    except AlpacaLoraError as error:  # too late for a status
        yield f"data: {json.dumps(Refused(500, str(error)).body)}\n\n"
        return
    if with_usage:
        yield event(choices=[], usage=_usage(asked.answers))
    yield "data: [DONE]\n\n"


async def _look(moderation: Moderation | None, text: str, param: str) -> None:
    if moderation is None:
        return
    if reason := await asyncio.to_thread(moderation, text):
        raise Refused(400, f"the request is refused by this server's moderation: {reason}.", param, "content_filter")


async def _looked_at(moderation: Moderation | None, answer: Answer) -> tuple[str, str]:
    """An answer's text and why it ended; nothing of it where moderation refuses it."""
    if moderation is not None:
        refused = await asyncio.to_thread(moderation, _text(answer))
        if refused:
            return "", "content_filter"
    return _text(answer), "length" if answer.finish_reason == "length" else "stop"


def _text(answer: Answer) -> str:
    assert answer.text is not None  # what the engine makes has one
    return answer.text.certain


def _usage(answers: list[Answer]) -> dict[str, int]:
    prompt = sum({id(answer.prompt): len(answer.prompt) for answer in answers}.values())
    completion = sum(len(answer.ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _explained(error: RequestValidationError) -> Refused:
    """Every problem of a body in one sentence, each with its field."""
    problems = []
    for problem in error.errors():
        if problem["type"] == "json_invalid":
            return Refused(400, f"the body is not valid JSON: {problem['ctx']['error']}.")
        where = ".".join(str(part) for part in problem["loc"] if part != "body") or "the body"
        text = "is not known" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        problems.append((where, f"{where}: {text}"))
    return Refused(400, "; ".join(text for _, text in problems) + ".", problems[0][0])
