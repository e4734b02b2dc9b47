"""What a request's body may be: of bounded size and depth, told or chunked, and JSON in UTF-8 once it is passed on.

Whole before anything looks at it, so that a size that shows only as it comes can still be refused with a status.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

MAX_BODY_BYTES = 1 << 20
MAX_DEPTH = 100
_DRAIN_SECONDS = 2


class Bodies:
    """ASGI middleware: reads bodies, and passes them on in one piece.

    A byte-order mark and UTF-16 are accepted, and a missing Content-Type is that of JSON. Another type is refused:
    pages of other sites can send those without asking first.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        too_large = (413, f"a request may have at most {MAX_BODY_BYTES} bytes.")
        if (told := headers.get("content-length", "0")).isdigit() and int(told) > MAX_BODY_BYTES:
            await answer(send, *too_large)  # before the client, which may wait for it, is told to go on
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY_BYTES:
                await answer(send, *too_large)
                return
        if body:
            if problem := _unread(headers):
                await answer(send, 415, problem)
                return
            encoding = json.detect_encoding(body)
            try:
                body[:] = body.decode(encoding).encode()
            except UnicodeDecodeError as error:
                found = f"byte {error.start + 1} (0x{body[error.start]:02x}) is not valid {encoding.upper()}"
                await answer(send, 400, f"the body: {found}. Send JSON in UTF-8.")
                return
            if problem := _misread(bytes(body)):
                await answer(send, 400, f"the body: {problem}")
                return
            if "content-type" not in headers:
                scope = {**scope, "headers": [*scope["headers"], (b"content-type", b"application/json")]}
        whole: list[Any] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def once() -> Any:
            return whole.pop() if whole else await receive()

        await self.app(scope, once, send)


def _unread(headers: dict[str, str]) -> str | None:
    """Why a body cannot be read, judged by its headers."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        return f"Content-Encoding: {coding!r} is not read by this server. Send the body as it is."
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        return f"Content-Type: {kind!r} is not read by this server. Send 'Content-Type: application/json'."
    return None


class _TwiceError(ValueError):
    """A key that stands twice in one object."""


def _misread(body: bytes) -> str:
    """Why JSON would be read otherwise than it was meant, or not at all; "" also for what is no JSON."""
    try:
        found = json.loads(body, object_pairs_hook=_unique_keys)
    except _TwiceError as error:
        return f"the key {str(error)[:60]!r} stands twice in one object. Send it once."
    except RecursionError:
        return f"it is nested deeper than {MAX_DEPTH} levels. Send less."
    except ValueError:
        return ""  # who reads it says what is wrong
    return f"it is nested deeper than {MAX_DEPTH} levels. Send less." if _is_deep(found, MAX_DEPTH) else ""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise _TwiceError(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


def _is_deep(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and (levels == 0 or any(_is_deep(part, levels - 1) for part in parts))


async def drained(receive: Any) -> None:
    """Read on to a body's end, so that a client that is still sending hears the answer and not a connection cut."""

    async def read() -> None:
        size, more = 0, True
        while more and size <= MAX_BODY_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read(), _DRAIN_SECONDS)


async def answer(send: Any, status: int, message: str) -> None:
    """Send an error as clients of the protocol read it."""
    error = {"message": message, "type": "refused", "param": None, "code": None}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
