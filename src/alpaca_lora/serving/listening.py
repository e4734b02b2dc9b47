"""Runs an application on a local port until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, MissingDependencyError
from .access import AccessControl, allowed_hosts, check_bind, is_loopback
from .bodies import Bodies

if TYPE_CHECKING:
    import uvicorn


GRACE_SECONDS = 5
"""How long answers may go on once the server was told to stop."""


def listen(host: str, port: int, token: str | None = None, allow_host: Sequence[str] = ()) -> socket.socket:
    """Take a port, before anything that takes time.

    Args:
        host: This machine's own address, or, with a token, any.
        port: 0 is one that is free.
        token: What clients must present.
        allow_host: Names beside this machine's own, as for `AccessControl`.

    Raises:
        ConfigError: an address that is not protected, or a port that is taken.
        MissingDependencyError: the extra `serve` is not installed.
    """
    if not (find_spec("fastapi") and find_spec("uvicorn")):
        raise MissingDependencyError("serving needs more packages: pip install 'alpaca-lora[serve]'")
    check_bind(host, token)
    if not token and (far := [place.host for place in allowed_hosts(allow_host) if not is_loopback(place.host)]):
        warnings.warn(
            f"allow_host: whoever reaches {far[0]} can use this server, since there is no token. Set "
            "ALPACA_LORA_TOKEN, unless what stands in front asks who it is.",
            stacklevel=2,
        )
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = f"port: {port} on {host} cannot be used ({error})."
        raise ConfigError(f"{reason} Give another one; 0 takes one that is free.") from error
    return listening


def url_of(listening: socket.socket, token: str | None = None) -> str:
    """The address to open in a browser; with a token, it holds it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


def run(
    app: Any,
    listening: socket.socket,
    token: str | None = None,
    close: Callable[[], None] = lambda: None,
    allow_host: Sequence[str] = (),
) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests then get a few seconds, and `close` ends the rest."""
    server = server_of(app, listening, token, close, allow_host)
    # uvicorn raises the signal again once it has shut down: what comes after serving, such as a report, is still done.
    with suppress(KeyboardInterrupt), _sigterm_only_stops(server):
        server.run(sockets=[listening])


@contextmanager
def _sigterm_only_stops(server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM stops the server, also before it listens for signals, where it would end the process."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def server_of(
    app: Any,
    listening: socket.socket,
    token: str | None = None,
    close: Callable[[], None] = lambda: None,
    allow_host: Sequence[str] = (),
) -> uvicorn.Server:
    """The server, behind access control, that `run` runs; the same whatever else is installed beside uvicorn."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:  # told again: answers end now, instead of being torn off with a traceback each
                threading.Thread(target=close, daemon=True).start()
            super().handle_exit(sig, frame)
            self.force_exit = False

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, threading.Thread(target=close, daemon=True).start)
            await super().shutdown(sockets)

    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        AccessControl(Bodies(app), host, port, token, allow_host),
        # With httptools, which uvicorn prefers where it is installed, a body is lost that comes with an offer to
        # upgrade (to HTTP/2 in clear text, as Java's client makes).
        http="h11",
        ws="none",
        loop="asyncio",
        log_level="error",  # a warning for each such offer says nothing
        access_log=False,  # it would hold what is asked for
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS + 5,
    )
    return Server(config)
