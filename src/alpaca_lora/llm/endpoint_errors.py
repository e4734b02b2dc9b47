"""Why a server did not answer, and what to change: its status codes and messages in a user's words."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from ..errors import AlpacaLoraError

if TYPE_CHECKING:
    from .client import Endpoint

# What servers say of a field they do not take at all, in contrast to one with a value out of its range.
NOT_TAKEN = re.compile(
    r"unsupported|not (?:be )?support|n't support|unknown|unrecogni[sz]ed|unexpected|extra (?:inputs|fields)|"
    r"extra_forbidden|not (?:permitted|allowed|available)|deprecated|instead|only (?:the )?default|may only be|"
    r"must be unset|cannot be (?:set|used|specified)|"
    r"not (?:a )?(?:valid|known|recogni[sz]ed) (?:field|argument|parameter|option)",
    re.IGNORECASE,
)


class EndpointError(AlpacaLoraError, RuntimeError):
    """A server did not answer; `this_request_only` if it may well answer another."""

    def __init__(self, message: str, this_request_only: bool = False) -> None:
        self.this_request_only = this_request_only
        super().__init__(message)


def error_for_status(endpoint: Endpoint, code: int, said: str, *, has_key: bool) -> EndpointError:
    """The error for an HTTP status; `said` is the server's message, cleaned of the key."""
    if code == 401:
        which = "The key given is not accepted." if has_key else "A key is needed, and none was given."
        return EndpointError(
            f"{endpoint.url}: HTTP 401. {which} Set the variable OPENAI_API_KEY (in Python: key) to a key "
            "of this server."
        )
    if code == 403:
        return EndpointError(f"{endpoint.url}: HTTP 403. This key may not use model {endpoint.model!r}: {said}")
    if code == 404:
        return EndpointError(
            f"{endpoint.url}: HTTP 404. There is no model {endpoint.model!r}, no {endpoint.kind} API for it, or "
            f"base_url is not the API's address (it usually ends in /v1): {said}"
        )
    if 300 <= code < 400:
        return EndpointError(
            f"{endpoint.url}: HTTP {code}, a redirect, which is not followed. Give the API's own address as base_url."
        )
    return EndpointError(f"{endpoint.url}: HTTP {code}: {said}", this_request_only=code in (400, 413, 422))


def not_openai(url: str) -> EndpointError:
    """The error for an answer that no OpenAI-compatible server gives."""
    return EndpointError(
        f"{url}: answered, but not as an OpenAI-compatible server does. Check base_url; it usually ends in /v1.",
        this_request_only=True,
    )


def cost_nothing(error: BaseException) -> bool:
    """Whether an attempt ended with a refusal, or before anything was sent."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
    return isinstance(error, openai.APIStatusError)


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """What a server asks for, in seconds or as a date; 0 if it asks for nothing."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return seconds if (seconds := float(value)) > 0 else 0.0
    with suppress(TypeError, ValueError):
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0
