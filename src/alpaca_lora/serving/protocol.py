"""What clients of an OpenAI-compatible server ask: the part of the protocol that one prompt template can honour.

A parameter that would change the answer and is not supported is refused by name, never ignored (parameters.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import ConfigError
from ..generation.sampling import Sampling
from .parameters import sorted_out

NO_LIMIT = 2**31 - 1
"""Tokens of an answer that ends by itself, or where the model reads no further."""


MOST_STOPS = 64
"""Each is looked for whenever an answer grows."""


class Refused(Exception):
    """A request that gets an error: HTTP status, reason, and the parameter it is about."""

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

    @classmethod
    def because(cls, problems: list[str]) -> Refused:
        """One refusal of all problems, each of which begins with its parameter and a colon."""
        return cls(400, "; ".join(problem.rstrip(".") for problem in problems) + ".", problems[0].partition(":")[0])


class StreamOptions(BaseModel):
    """`stream_options` of a streamed request."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class BaseRequest(BaseModel):
    """What both kinds of request say."""

    model: str | None = None
    max_tokens: StrictInt | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: StrictInt | None = None
    repetition_penalty: float | None = None
    seed: StrictInt | None = None
    stop: str | list[str] | None = None
    n: StrictInt | None = Field(default=None, ge=1, le=8)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    _called: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _sorted_out(cls, sent: Any, read: Callable[[Any], BaseRequest]) -> BaseRequest:
        """All that is wrong is told at once, by the client's own names."""
        if not isinstance(sent, dict):
            return read(sent)
        given, called, problems = sorted_out(sent, cls.model_fields)
        try:
            asking = read(given)
        except ValidationError as error:
            problems += explained(error.errors(), called)
        if problems:
            raise Refused.because(problems)
        asking._called = called
        return asking

    @property
    def about(self) -> str:
        """The parameter that holds what is asked."""
        raise NotImplementedError

    @property
    def _usual_limit(self) -> int:
        raise NotImplementedError

    def sampling(self) -> Sampling:
        """How tokens are chosen; greedy where the request does not say.

        Raises:
            Refused: a value is out of range.
        """
        limit = self._usual_limit if self.max_tokens is None else self.max_tokens
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MOST_STOPS:
            name = self._called.get("stop", "stop")
            raise Refused(400, f"{name}: {len(stops):,} texts are more than the {MOST_STOPS} that may be sent.", name)
        chosen = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "repetition_penalty")}
        try:
            return Sampling(
                max_new_tokens=NO_LIMIT if limit == -1 else limit,
                seed=self.seed,
                stop=tuple(stop for stop in stops if stop),
                **{name: value for name, value in chosen.items() if value is not None},
            )
        except ConfigError as error:
            called = {**self._called, "max_new_tokens": self._called.get("max_tokens", "max_tokens")}
            parts = [problem.partition(":") for problem in error.problems]
            raise Refused.because([f"{called.get(name, name)}:{rule}" for name, _, rule in parts]) from error


class CompletionRequest(BaseRequest):
    """POST /v1/completions: texts to go on from, without any template."""

    prompt: str | list[str]

    @field_validator("prompt", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(part, int | list) for part in value):
            raise ValueError(
                "token ids are not read by this server; send the text itself, as lm-eval does with "
                "tokenized_requests=False"
            )
        if not value:
            raise ValueError("must be a text, or a list of at least one")
        return value

    @property
    def about(self) -> str:
        """The parameter that holds what is asked."""
        return "prompt"

    @property
    def _usual_limit(self) -> int:
        return 16

    @property
    def prompts(self) -> list[str]:
        """The texts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class Message(BaseModel):
    """A turn of a chat."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        """A list of text parts is their text."""
        if not isinstance(value, list):
            return value
        for place, part in enumerate(value):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"part {place} is {kind!r}; this server reads parts of the type 'text' only")
        return "".join(part["text"] for part in value)

    @property
    def text(self) -> str:
        """The content; without any, the empty text."""
        return self.content or ""


class ChatRequest(BaseRequest):
    """POST /v1/chat/completions: the last user turn is the instruction; `input` may stand beside the messages."""

    messages: list[Message]
    input: str = ""

    @property
    def about(self) -> str:
        """The parameter that holds what is asked."""
        return "messages"

    @property
    def _usual_limit(self) -> int:
        return 512

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


def explained(errors: Iterable[Any], called: dict[str, str] | None = None) -> list[str]:
    """What pydantic complains about, each with the place in the body: `messages[0].role: Field required`."""
    problems = []
    for problem in errors:
        first, *more = [part for part in problem["loc"] if part != "body"] or ["the body"]
        where = str((called or {}).get(first, first))
        where += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in more)
        problems.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return problems
