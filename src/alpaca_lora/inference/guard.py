"""Who may talk to a local server: the page of another site may not, and off this machine only who has the token.

A browser lets any site send requests to 127.0.0.1, and a name that a site controls can be made to point there (DNS
rebinding). So `Host` must name this server, and `Origin`, where the browser sends one, must be the server's own.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..errors import ConfigError

COOKIE = "alpaca_lora_token"
MAX_BODY_BYTES = 1 << 20


def is_loopback(host: str) -> bool:
    """Whether a host to bind is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, token: str | None) -> None:
    """Raise ConfigError where a server could be reached from elsewhere and nothing protects it."""
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"host: {host!r} can be reached from other machines, so a token is needed: set ALPACA_LORA_TOKEN (or "
            "token=...), or use 127.0.0.1."
        )
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_.~-]{16,}", token):
        raise ConfigError("token: must have at least 16 characters, all of them letters, digits or _.~-")


class Guard:
    """ASGI middleware: refuses foreign hosts, foreign origins, large bodies and, with a token, who lacks it.

    Args:
        app: What is guarded.
        host: What the server binds.
        port: Its port.
        token: Wanted as `Authorization: Bearer`, as a cookie, or once as `?token=`, which sets the cookie. None: not
            wanted.
    """

    def __init__(self, app: Any, host: str, port: int, token: str | None = None) -> None:
        self.app, self.token = app, token
        self.cookie = f"{COOKIE}_{port}"
        names = {"127.0.0.1", "localhost", "[::1]"} if is_loopback(host) else None
        self.hosts = None if names is None else {f"{name}:{port}" for name in names} | (names if port == 80 else set())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(headers)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if refusal is None and self.token is not None and not self._has_token(headers):
            if scope["type"] == "http" and scope["method"] == "GET" and self._is_token(query.pop("token", "")):
                await self._greet(scope, query, send)
                return
            refusal = (401, "a token is needed: open the address that was printed, or send it as a bearer token.")
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _answer(send, *refusal)

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if self.hosts is not None and host not in self.hosts:
            return 403, "this server answers under its own address only."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            return 403, "requests from other sites' pages are refused."
        if "transfer-encoding" in headers:
            return 411, "a request must tell its length."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, f"a request may have at most {MAX_BODY_BYTES} bytes."
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def _has_token(self, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given):
            return True
        cookies = SimpleCookie(headers.get("cookie", ""))
        return self.cookie in cookies and self._is_token(cookies[self.cookie].value)

    async def _greet(self, scope: Any, query: dict[str, str], send: Any) -> None:
        """Exchange the token in the address for a cookie, so that it stays in no history of links.

        Lax, so that a link followed from another page works; what changes something is no GET, and checks Origin.
        """
        place = scope["path"] + (f"?{urlencode(query)}" if query else "")
        if not place.startswith("/") or place.startswith(("//", "/\\")):
            place = "/"
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        headers = [(b"location", place.encode("latin-1")), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Any, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "refused", "param": None, "code": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
