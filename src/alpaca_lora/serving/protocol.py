"""What clients of an OpenAI-compatible server ask: the part of the protocol that a template can honour.

A parameter that would change the answer and is not supported is refused by name, never ignored (parameters.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import ConfigError
from ..generation.logprobs import Logprobs
from ..generation.sampling import Sampling
from .parameters import INSTEAD_IN_CHATS, INSTEAD_IN_COMPLETIONS, read_parameters
from .refusals import Refused, validation_problems
from .values import Prompt, counted, read_content, read_count, read_prompts, read_stop, short

NO_LIMIT = 2**31 - 1
"""The limit of an answer that ends by itself, or where the model reads no further."""
MAX_STOPS = 64
"""Each is looked for whenever an answer grows."""


class StreamOptions(BaseModel):
    """`stream_options` of a streamed request."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class BaseRequest(BaseModel):
    """What both kinds of request say."""

    about: ClassVar[str]
    """The parameter that holds what is asked."""
    usual_limit: ClassVar[int]
    """Maximum number of new tokens if the request does not say."""
    instead: ClassVar[dict[str, str]]
    """What to do instead of sending some parameters."""
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
    _stops = field_validator("stop", mode="plain")(read_stop)

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens to tell of beside each token's log-probability; None to tell of none."""
        return None

    @property
    def echoes(self) -> bool:
        """Whether the prompt is part of the reply."""
        return False

    @property
    def prompt_only(self) -> bool:
        """Whether no token is to be made."""
        return False

    @model_validator(mode="wrap")
    @classmethod
    def _sorted_out(cls, sent: Any, read: Callable[[Any], BaseRequest]) -> BaseRequest:
        """All that is wrong is told at once, by the client's own names."""
        if not isinstance(sent, dict):
            return read(sent)
        given, called, problems = read_parameters(sent, cls.model_fields, cls.instead)
        try:
            asking = read(given)
        except ValidationError as error:
            misplaced = any(problem.startswith(("messages:", "prompt:")) for problem in problems)
            told = ("missing", (cls.about,)) if misplaced else None
            problems += validation_problems(
                [one for one in error.errors() if (one["type"], one["loc"]) != told], called
            )
        if problems:
            raise Refused.because(problems)
        asking._called = called
        return asking

    def new_logprobs(self) -> Logprobs | None:
        """What keeps one answer's log-probabilities, where they are asked for."""
        return None if self.top is None else Logprobs(self.top, of_prompt=self.echoes)

    def sampling(self) -> Sampling:
        """How tokens are chosen; greedy if the request does not say.

        Raises:
            Refused: a value is out of range.
        """
        limit = self.usual_limit if self.max_tokens is None else self.max_tokens or int(self.prompt_only)
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOPS:
            name = self._called.get("stop", "stop")
            raise Refused(400, f"{name}: {len(stops):,} texts are more than the {MAX_STOPS} that may be sent.", name)
        chosen = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "repetition_penalty")}
        try:
            return Sampling(
                max_new_tokens=NO_LIMIT if limit == -1 else limit,
                seed=self.seed,
                stop=tuple(stop for stop in stops if stop),
                **{name: value for name, value in chosen.items() if value is not None},
            )
        except ConfigError as error:
            problems = []
            for name, _, rule in (problem.partition(": ") for problem in error.problems):
                if name == "max_new_tokens":
                    name, rule = "max_tokens", self._limits(rule)
                problems.append(f"{self._called.get(name, name)}: {rule}")
            raise Refused.because(problems) from error

    def _limits(self, rule: str) -> str:
        """What `max_tokens` may be, given what `Sampling` says of it."""
        return f"{rule.rstrip('.')}, or -1 for as much as the model reads"


class CompletionRequest(BaseRequest):
    """POST /v1/completions: texts or token ids to continue, without any template."""

    about: ClassVar[str] = "prompt"
    usual_limit: ClassVar[int] = 16
    instead: ClassVar[dict[str, str]] = INSTEAD_IN_COMPLETIONS
    prompt: list[Prompt]
    """Each a text or token ids; clients may send one of either by itself."""
    logprobs: int | None = None
    echo: StrictBool | None = None

    _prompts = field_validator("prompt", mode="plain")(read_prompts)

    _counts = field_validator("logprobs", mode="plain")(read_count)

    @property
    def top(self) -> int | None:
        return self.logprobs

    @property
    def echoes(self) -> bool:
        return bool(self.echo)

    @property
    def prompt_only(self) -> bool:
        return self.max_tokens == 0 and self.echoes

    def _limits(self, rule: str) -> str:
        if self.max_tokens == 0:
            return "0 needs echo: true. Without it, send at least 1, or -1 for as much as the model reads"
        return super()._limits(rule)


class Message(BaseModel):
    """A turn of a chat."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    _contents = field_validator("content", mode="plain")(read_content)

    @property
    def text(self) -> str:
        """The content; without any, the empty text."""
        return self.content or ""


class ChatRequest(BaseRequest):
    """POST /v1/chat/completions; `input` may stand beside the messages.

    A chat template gets all messages, a prompt template the last user turn as its instruction.
    """

    about: ClassVar[str] = "messages"
    usual_limit: ClassVar[int] = 512
    instead: ClassVar[dict[str, str]] = INSTEAD_IN_CHATS
    messages: list[Message]
    input: str = ""
    logprobs: StrictBool | None = None
    top_logprobs: int | None = None

    @field_validator("logprobs", mode="before")
    @classmethod
    def _as_here(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"{short(value)} must be true, with top_logprobs: {counted(value)}")
        return value

    @field_validator("top_logprobs", mode="plain")
    @classmethod
    def _beside_logprobs(cls, value: Any, info: ValidationInfo) -> int:
        if read_count(value) and not info.data.get("logprobs", True):  # absent where it is wrong itself
            raise ValueError("goes with logprobs: true")
        return int(value)

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def conversation(self) -> list[dict[str, Any]]:
        """The messages as chat templates read them.

        Raises:
            Refused: there is nothing to answer.
        """
        said = [message.model_dump(exclude_none=True) | {"content": message.text} for message in self.messages]
        for message in said:
            message["role"] = {"developer": "system", "function": "tool"}.get(message["role"], message["role"])
        last = said[-1] if said else {}
        if last.get("role") not in ("user", "tool") or not last["content"].strip():
            raise Refused(400, "messages: the last one must be a user's, with a text.", "messages")
        if self.input:
            said[-1] = {**last, "content": f"{last['content']}\n\n{self.input}"}
        return said

    def instruction(self) -> str:
        """What the prompt template's instruction becomes.

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
