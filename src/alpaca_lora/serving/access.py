"""Access to a local server: other sites' pages have none, and remote clients need a token.

A browser lets any site send requests to 127.0.0.1, and a name that a site controls can be made to point there (DNS
rebinding). So `Host` must name this server, and `Origin`, if the browser sends one, must be the server's own.
`X-Forwarded-*` is never read: anybody can write it.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..errors import ConfigError
from .bodies import answer, drained

COOKIE = "alpaca_lora_token"


def is_loopback(host: str) -> bool:
    """Whether a host to bind is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, token: str | None) -> None:
    """Raise ConfigError if a server could be reached from elsewhere and nothing protects it."""
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"host: {host!r} can be reached from other machines, so a token is needed: set ALPACA_LORA_TOKEN (or "
            "token=...), or use 127.0.0.1."
        )
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_.~-]{16,}", token):
        raise ConfigError("token: must have at least 16 characters, all of them letters, digits or _.~-")


@dataclass(frozen=True)
class HostPort:
    """A host and a port, as headers name them; None if none is named."""

    host: str
    port: int | None

    @classmethod
    def of(cls, text: str) -> HostPort | None:
        """What `Host`, or `Origin` without its scheme, says; None if that is no host.

        Example:
            >>> HostPort.of("LocalHost:8000"), HostPort.of("[::1]"), HostPort.of("a@b"), HostPort.of("[")
            (HostPort(host='localhost', port=8000), HostPort(host='[::1]', port=None), None, None)
        """
        found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", text.lower())
        return found and cls(found[1], int(found[2]) if found[2] else None)


class AccessControl:
    """ASGI middleware: refuses foreign hosts, foreign origins and, with a token, clients that lack it.

    A foreign name can be made to point to this machine, but not a loopback name or address to be a foreign one. So any
    port is right behind a loopback name: it may be that of an SSH tunnel.

    Args:
        app: The application behind it.
        host: What the server binds.
        port: Its port.
        token: Wanted as `Authorization: Bearer`, as a cookie, or once as `?token=`, which sets the cookie. None: not
            wanted.
        allow_host: Other names, with or without a port, under which a tunnel or proxy passes requests on.

    Raises:
        ConfigError: one of these names is not a host name.
    """

    def __init__(
        self, app: Any, host: str, port: int, token: str | None = None, allow_host: Sequence[str] = ()
    ) -> None:
        self.app, self.token = app, token
        self.cookie = f"{COOKIE}_{port}"
        self.local = is_loopback(host)
        self.allowed = allowed_hosts(allow_host)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for raw, value in scope["headers"]:  # some clients send cookies in several lines
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            headers[name] = f"{headers[name]}; {text}" if name in headers else text
        refusal = self._refusal(headers)
        if refusal is None and self.token is not None and not self._has_token(headers):
            parts = scope["query_string"].decode("latin-1").split("&")
            given = [part.removeprefix("token=") for part in parts if part.startswith("token=")]
            if scope["type"] == "http" and scope["method"] == "GET" and any(map(self._is_token, given)):
                await self._greet(scope["path"], [part for part in parts if not part.startswith("token=")], send)
                return
            refusal = (401, "a token is needed: open the address that was printed, or send it as a bearer token.")
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            if "expect" not in headers:  # such a client waits for the answer before it sends
                await drained(receive)
            await answer(send, *refusal)

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        place = HostPort.of(host)
        hint = "If it is your tunnel's or proxy's, start the server with --allow_host"
        if self.local and not (place and (is_loopback(place.host) or self._is_allowed(place))):
            named = f" {place.host}" if place else ""
            return 403, f"Host: {host!r} is not this server's own name, so the request is refused. {hint}{named}."
        if origin is None:
            return None
        scheme, _, rest = origin.partition("://")
        source, usual = HostPort.of(rest), {"http": 80, "https": 443}.get(scheme.lower())
        if source and usual:
            if self._is_allowed(source):
                return None
            # The page's own server: proxies name a scheme's usual port, or leave it out.
            if place and source.host == place.host and (source.port or usual) == (place.port or usual):
                return None
        named = f" {rest.lower()}" if source and usual else " NAME"
        return 403, f"Origin: {origin!r} is another site's page, so the request is refused. {hint}{named}."

    def _is_allowed(self, place: HostPort) -> bool:
        return place in self.allowed or HostPort(place.host, None) in self.allowed

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def _has_token(self, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given):
            return True
        # Not by http.cookies, which stops at the first one it does not like: those of all programs on 127.0.0.1 come.
        cookies = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
        return any(name == self.cookie and self._is_token(value) for name, _, value in cookies)

    async def _greet(self, path: str, query: list[str], send: Any) -> None:
        """Exchange the token in the address for a cookie, so that it stays in no history of links.

        Lax, so that a link followed from another page works; what changes something is no GET, and checks Origin.
        """
        place = quote(path) + (f"?{'&'.join(query)}" if query else "")
        if not place.startswith("/") or place.startswith("//"):
            place = "/"
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        headers = [(b"location", place.encode("latin-1")), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def allowed_hosts(allow_host: Sequence[str]) -> set[HostPort]:
    """The hosts that `allow_host` names.

    Raises:
        ConfigError: one of these is not a host name.
    """
    hosts = {text: HostPort.of(text) for text in ([allow_host] if isinstance(allow_host, str) else allow_host)}
    if wrong := [text for text, place in hosts.items() if place is None]:
        raise ConfigError(
            f"allow_host: {wrong[0]!r} is no host. Give a name such as box.example, without https:// or a path."
        )
    return {place for place in hosts.values() if place}
