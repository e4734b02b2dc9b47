"""A client for every OpenAI-compatible server: bounded concurrency, bounded retries, counted tokens.

A prompt goes in, a `Completion` comes out. A 429, a 5xx, a timeout and a cut connection are tried again, a few times,
each time after a longer wait or after the one the server asks for; everything else is an error that says what to
change. The key goes into the request's header and nowhere else: redirects are not followed, and messages are cleaned
of it.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from ..errors import AlpacaLoraError, ConfigError, MissingDependencyError
from ..generation.completion import Completion
from .budget import Spending, Usage
from .endpoint_errors import NOT_TAKEN, EndpointError, cost_nothing, error_for_status, not_openai, retry_after_seconds
from .reply import THOUGHT

Messages = Sequence[Mapping[str, str]]
OnAttempt = Callable[[Literal["sent", "refused"], Usage], None]

OPENAI = "https://api.openai.com/v1"
RETRIES = 6
FIRST_WAIT_SECONDS = 0.5  # doubles with each retry: at most half a minute over all of them
LONGEST_WAIT_SECONDS = 120  # a server that asks for more is not waited for
PROMPT_MARGIN = 256  # tokens a server's chat template may add to the prompt's own
MAX_TOKENS_COUNTED = 10_000_000  # of one request; a server that counts more has miscounted

_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"


class Endpoint:
    """One model on one server; an async context manager.

    Raises:
        ConfigError: a value cannot be used.
        MissingDependencyError: the openai package is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        kind: Literal["chat", "completions"] = "chat",
        concurrency: int = 8,
        timeout_seconds: float = 120,
        spending: Spending | None = None,
    ) -> None:
        _check(url, key, kind, concurrency, timeout_seconds)
        try:
            import openai
        except ImportError:
            raise MissingDependencyError("Talking to a server needs openai: pip install 'alpaca-lora[data]'.") from None
        self.url, self.model, self.kind, self.timeout_seconds = url, model, kind, timeout_seconds
        self.spending = spending or Spending()
        self._key = key
        self._slots = asyncio.Semaphore(concurrency)
        self._limit_name = _LIMIT
        self._left_out: set[str] = set()
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=url,
            timeout=timeout_seconds,
            max_retries=0,  # retried here, so that each attempt is counted
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )
        api: Any = self._client.chat.completions if kind == "chat" else self._client.completions
        self._create = api.create

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.model!r}, kind={self.kind!r})"

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.close()

    async def complete(
        self,
        prompt: str | Messages,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        on_attempt: OnAttempt | None = None,
    ) -> Completion:
        """The model's answer to one prompt.

        A field that the model refuses is sent by its newer name, or left out, from then on; it is warned of once, and
        `Completion.sent` tells what was sent.

        Args:
            prompt: A text, which for chat is the user's message; or, for chat, all messages.
            max_new_tokens: Maximum number of new tokens.
            temperature: 0 takes the likeliest token each time.
            stop: The answer ends before any of these; servers usually take at most 4.
            on_attempt: Called with "sent" just before each attempt, and with "refused" after one that cost nothing,
                with the attempt's worst case.

        Raises:
            BudgetReached: the request could pass the budget; it was not sent.
            EndpointError: the server refused, or gave no answer in any attempt.
        """
        body: dict[str, Any] = {"model": self.model}
        sampling: dict[str, Any] = {"temperature": temperature, **({"stop": list(stop)} if stop else {})}
        if self.kind == "chat":
            body["messages"] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            texts = [message["content"] for message in body["messages"]]
        elif isinstance(prompt, str):
            body["prompt"] = prompt
            texts = [prompt]
        else:
            raise ConfigError("prompt: kind 'completions' takes a text, not messages.")
        # No tokenizer makes more tokens than there are bytes.
        worst = Usage(sum(len(text.encode()) for text in texts) + PROMPT_MARGIN, max_new_tokens)
        async with self._slots:
            return await self._answer(body, sampling, worst, on_attempt or (lambda event, usage: None))

    async def _answer(
        self, body: dict[str, Any], sampling: dict[str, Any], worst: Usage, note: OnAttempt
    ) -> Completion:
        import openai

        wait, problem = 0.0, ""
        for attempt in range(RETRIES + 1):
            await asyncio.sleep(wait)
            wait = min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1)
            sent = {self._limit_name: worst.completion_tokens}
            sent |= {name: value for name, value in sampling.items() if name not in self._left_out}
            try:
                completion = await self._attempt(body, sent, worst, note)
            except AlpacaLoraError:  # ours, such as a journal on a full disk
                raise
            except openai.APIStatusError as error:
                if error.status_code in (400, 422) and self._gives_way(error, sent):
                    wait = 0
                elif error.status_code not in (408, 429) and error.status_code < 500:
                    said = self._clean(error.message)
                    raise error_for_status(self, error.status_code, said, has_key=bool(self._key)) from None
                elif error.code == "insufficient_quota":
                    raise EndpointError(f"{self.url}: the quota is used up: {self._clean(error.message)}") from None
                asked = retry_after_seconds(error.response.headers)
                wait += asked  # on top, so that those who were told the same do not come back together
                problem = f"HTTP {error.status_code}: {self._clean(error.message)}"
                if asked > LONGEST_WAIT_SECONDS:
                    raise EndpointError(
                        f"{self.url}: asks to wait {asked:,.0f} s, and at most {LONGEST_WAIT_SECONDS} s are waited. "
                        f"Run again later. ({problem})"
                    ) from None
            except (openai.APITimeoutError, asyncio.TimeoutError):
                problem = f"no answer in {self.timeout_seconds:g} s (timeout_seconds)"
            except openai.APIConnectionError as error:
                problem = f"no connection, or one that was cut: {self._clean(str(error.__cause__ or error))}"
            except (ValueError, openai.APIResponseValidationError):  # no JSON
                raise not_openai(self.url) from None
            else:
                if "stop" in sampling and "stop" not in sent:  # the server did not look for them
                    ends = [place for stop in sampling["stop"] if (place := completion.text.find(stop)) >= 0]
                    return replace(completion, text=completion.text[: min(ends, default=None)])
                return completion
        raise EndpointError(f"{self.url}: {RETRIES + 1} attempts failed, the last with {problem}")

    def _gives_way(self, error: Any, sent: dict[str, Any]) -> bool:
        """Whether the model refuses a field that was sent, and the request can go without it, or by its newer name."""
        said = str(error.message)
        words = {error.param} if error.param in sent else set(re.findall(r"\w+", said))
        not_taken = NOT_TAKEN.search(said) is not None
        if _LIMIT in sent and (_NEWER_LIMIT in said or (not_taken and _LIMIT in words)):
            self._limit_name = _NEWER_LIMIT
            return True
        refused = {name for name in ("temperature", "stop") if name in sent and name in words and not_taken}
        if sent.get("temperature") == 0 and "temperature" in words:
            refused.add("temperature")  # a server that takes only more than 0
        for name in sorted(refused - self._left_out):
            then = "." if name == "stop" else ": it uses its own default, so the same prompt may get other answers."
            warnings.warn(
                f"{self.model} at {self.url} refuses {name!r} and is asked without it{then} It said: "
                f"{self._clean(said)}",
                stacklevel=2,
            )
        self._left_out |= refused
        return bool(refused)

    async def _attempt(self, body: dict[str, Any], sent: dict[str, Any], worst: Usage, note: OnAttempt) -> Completion:
        self.spending.hold(worst)
        note("sent", worst)
        try:
            answer = await asyncio.wait_for(self._create(**body, **sent), self.timeout_seconds)
            completion = replace(self._read(answer, worst), sent=sent)
        except BaseException as error:  # a cancelled attempt may be billed, too
            if cost_nothing(error):
                self.spending.release(worst)
                note("refused", worst)
            else:
                self.spending.lose(worst)
            raise
        self.spending.settle(worst, Usage(completion.prompt_tokens, completion.completion_tokens))
        return completion

    def _read(self, answer: Any, worst: Usage) -> Completion:
        try:
            choice = answer.choices[0]
            text = _chat_text(choice.message) if self.kind == "chat" else choice.text or ""
            usage = answer.usage
        except (AttributeError, IndexError, KeyError, TypeError):
            raise not_openai(self.url) from None
        if not isinstance(text, str):
            raise not_openai(self.url)
        # A server that does not count, or counts what cannot be, is taken at its worst.
        counts = (
            _count(getattr(usage, "prompt_tokens", None), 1, worst.prompt_tokens),
            _count(getattr(usage, "completion_tokens", None), 1 if text else 0, worst.completion_tokens),
        )
        known: Any = choice.finish_reason if choice.finish_reason in ("length", "content_filter") else "stop"
        return Completion(text, known, *counts)

    def _clean(self, text: str) -> str:
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:500]


def _chat_text(message: Any) -> Any:
    """The text of a message, in one piece or in parts; without any, its thoughts, marked as such."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    content = content or getattr(message, "refusal", None) or ""
    if isinstance(content, str) and not content.strip():
        for name in ("reasoning_content", "reasoning", "thinking"):
            if thoughts := getattr(message, name, None):
                return THOUGHT + (thoughts if isinstance(thoughts, str) else "")
    return content


def _count(value: Any, least: int, worst: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return worst
    return int(value) if least <= value <= MAX_TOKENS_COUNTED else worst


def _check(url: str, key: str | None, kind: str, concurrency: int, timeout_seconds: float) -> None:
    problems = []
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problems.append(f"base_url: {url!r} is no address of an API, as http://127.0.0.1:8000/v1 is one.")
    elif parts.username or parts.password or parts.query:
        problems.append("base_url: holds a name, a password or a query; give a key as OPENAI_API_KEY (in Python: key).")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        problems.append("OPENAI_API_KEY (in Python: key): holds a space, a line break or a letter beyond ASCII.")
    if kind not in ("chat", "completions"):
        problems.append(f"kind: {kind!r} must be chat or completions.")
    if not 1 <= concurrency <= 1000:
        problems.append(f"concurrency: {concurrency!r} must be from 1 to 1000.")
    if not timeout_seconds > 0:
        problems.append(f"timeout_seconds: {timeout_seconds!r} must be above 0.")
    if problems:
        raise ConfigError(problems)
