"""An OpenAI-compatible server: /v1/models, /v1/completions, /v1/chat/completions, streamed or whole.

    client -> access.py, bodies.py (size) -> protocol -> moderation -> engine (queue, batches) -> moderation

A chat's last user turn becomes the instruction of the template that the adapter was trained with. A full queue gives
429, a body that cannot be honoured 400 and the reason; a client that disconnects frees its place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ..errors import did_you_mean
from ..generation.moderation import Moderation, refusal
from ..generation.token_texts import TokenTexts
from ..models.new_tokens import rows_of
from .engine import Engine, TooManyRows
from .protocol import ChatRequest, CompletionRequest
from .refusals import Refused, in_sentences, validation_problems
from .replies import ChatReply, CompletionReply
from .responses import respond, to_json

_READ = ["GET", "HEAD"]
_SERVED = "/v1/models, /v1/completions, /v1/chat/completions"
_EARLIER = "earlier turns are not part of the prompt: the template has one instruction and one input"


def make_app(engine: Engine, moderation: Moderation | None = None) -> FastAPI:
    """The application, without access control.

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
    ids = rows_of(engine.model.model)
    texts_of = cache(lambda name: TokenTexts(prompt_formats[name].encoder))

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
            engine.check_rows(len(body.prompt) * (body.n or 1))
        except TooManyRows as error:
            raise Refused(400, str(error), "n" if len(body.prompt) == 1 else body.about) from error
        for prompt in body.prompt:
            if not isinstance(prompt, str) and max(prompt) >= ids:
                problem = f"the token id {max(prompt)!s:.20} is beyond the {ids:,} ids of the model"
                raise Refused(400, f"prompt: {problem}. Use the model's own tokenizer.", "prompt")
        texts, encoder = texts_of(name), prompt_formats[name].encoder
        said = [prompt if isinstance(prompt, str) else texts.whole(prompt) for prompt in body.prompt]
        for text in said:
            await _look(moderation, text, "prompt")

        def encode() -> list[list[int]]:
            return [encoder.text_ids(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompt]

        return await respond(engine, moderation, CompletionReply(), name, body, encode, request, texts, said)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        name = known(body.model)
        encoder = prompt_formats[name].encoder
        if encoder.chats:
            said = body.conversation()
            asked = "\n".join(str(message["content"]) for message in said)
        else:
            instruction = body.instruction()
            asked = f"{instruction}\n{body.input}".strip()
        await _look(moderation, asked, "messages")

        def encode() -> list[list[int]]:
            return [encoder.message_ids(said) if encoder.chats else encoder.prompt_ids(instruction, body.input)]

        response = await respond(engine, moderation, ChatReply(), name, body, encode, request, texts_of(name))
        if len(body.messages) > 1 and not encoder.chats:
            response.headers["X-Alpaca-Lora-Note"] = _EARLIER
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return to_json(error.body, error.status, {"Retry-After": "1"} if error.status == 429 else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        for problem in error.errors():
            if problem["type"] == "json_invalid":
                return to_json(Refused(400, f"the body is not valid JSON: {problem['ctx']['error']}.").body, 400)
            if problem["loc"] == ("body",) and problem["type"] == "missing":
                return to_json(Refused(400, "the body is empty; send a JSON object.").body, 400)
        return to_json(Refused(400, in_sentences(validation_problems(error.errors()))).body, 400)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        hint = f" Served: {_SERVED}; a client's base_url ends in /v1." if error.status_code == 404 else ""
        refusal = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}.{hint}")
        return to_json(refusal.body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return to_json(Refused(500, "the server failed; its log says why.").body, 500)

    return app


async def _look(moderation: Moderation | None, text: str, param: str) -> None:
    if reason := await refusal(moderation, text):
        message = in_sentences([f"the request is refused by this server's moderation: {reason}"])
        raise Refused(400, message, param, "content_filter")
