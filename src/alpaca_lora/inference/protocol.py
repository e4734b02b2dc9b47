"""What an OpenAI-compatible server reads and writes: the part of the protocol that one prompt template can honour.

A field that would change the answer and is not supported is refused by name, never ignored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

from ..errors import ConfigError
from .sampling import Sampling

_NOT_HERE = "is not supported by this server"


class Refused(Exception):
    """A request that gets an error: HTTP status, reason, and the field it is about."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error as clients of the protocol read it."""
        kind = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
            self.status, "invalid_request_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """`stream_options` of a streamed request."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class Asking(BaseModel):
    """What both kinds of request say."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: StrictInt | None = None
    repetition_penalty: float | None = None
    seed: StrictInt | None = None
    stop: str | list[str] | None = None
    n: StrictInt | None = Field(default=None, ge=1, le=8)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Accepted because clients send them; they change nothing.
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    # Accepted at values that change nothing.
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | StrictInt | None = None
    top_logprobs: StrictInt | None = None

    @field_validator("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")
    @classmethod
    def _changes_nothing(cls, value: Any) -> Any:
        if value:
            raise ValueError(f"{value!r} {_NOT_HERE}")
        return value

    @property
    def _limit(self) -> int:
        raise NotImplementedError

    def sampling(self) -> Sampling:
        """How tokens are chosen; greedy where the request does not say.

        Raises:
            Refused: a value is out of range.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        chosen = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "repetition_penalty")}
        try:
            return Sampling(
                max_new_tokens=self._limit,
                seed=self.seed,
                stop=tuple(stops),
                **{name: value for name, value in chosen.items() if value is not None},
            )
        except ConfigError as error:
            raise Refused(400, str(error)) from error


class CompletionRequest(Asking):
    """POST /v1/completions: texts to go on from, without any template."""

    prompt: str | list[str]
    max_tokens: StrictInt | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: StrictInt | None = None

    @field_validator("prompt")
    @classmethod
    def _some(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("must be a text, or a list of at least one")
        return value

    @field_validator("echo", "suffix")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return cls._changes_nothing(value)

    @field_validator("best_of")
    @classmethod
    def _one(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise ValueError(f"{value!r} {_NOT_HERE}")
        return value

    @property
    def _limit(self) -> int:
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def prompts(self) -> list[str]:
        """The texts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class Part(BaseModel):
    """A part of a message's content; only text can be answered."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a chat."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(Asking):
    """POST /v1/chat/completions: the last user turn is the instruction; `input` may stand beside the messages."""

    messages: list[Message]
    input: str = ""
    max_tokens: StrictInt | None = None
    max_completion_tokens: StrictInt | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None

    @field_validator("tools")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return cls._changes_nothing(value)

    @field_validator("response_format")
    @classmethod
    def _text(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type") != "text":
            raise ValueError(f"{value!r} {_NOT_HERE}")
        return value

    @property
    def _limit(self) -> int:
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return 512 if limit is None else limit

    def instruction(self) -> str:
        """What the template's instruction becomes.

        Raises:
            Refused: messages that a template of one instruction and one input cannot express.
        """
        for place, message in enumerate(self.messages):
            if message.role not in ("user", "assistant") and message.text:
                raise Refused(
                    400,
                    f"messages[{place}]: the model was trained with a template of one instruction and one input, which "
                    f"has no place for a {message.role} message. Write it into the instruction.",
                    "messages",
                )
        if not self.messages or self.messages[-1].role != "user" or not self.messages[-1].text.strip():
            raise Refused(400, "messages: the last one must be a user's, with a text.", "messages")
        return self.messages[-1].text


class CompletionReply:
    """How answers to a `CompletionRequest` are written."""

    prefix, kind, chunk = "cmpl", "text_completion", "text_completion"

    def whole(self, text: str, reason: str) -> dict[str, Any]:
        """A choice of a reply that is not streamed."""
        return {"text": text, "logprobs": None, "finish_reason": reason}

    def piece(self, text: str, reason: str | None = None) -> dict[str, Any]:
        """A choice of a streamed event: some text, or, at the end, the reason."""
        return {"text": text, "logprobs": None, "finish_reason": reason}


class ChatReply:
    """How answers to a `ChatRequest` are written."""

    prefix, kind, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def whole(self, text: str, reason: str) -> dict[str, Any]:
        """A choice of a reply that is not streamed."""
        return {"message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}

    def piece(self, text: str, reason: str | None = None) -> dict[str, Any]:
        """A choice of a streamed event: some text, or, at the end, the reason."""
        delta = {} if reason else {"role": "assistant", "content": text}
        return {"delta": delta, "logprobs": None, "finish_reason": reason}
