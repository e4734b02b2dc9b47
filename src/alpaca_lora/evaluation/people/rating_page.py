"""The page for people who compare two models' answers without knowing whose they are.

    browser -> access.py (token) -> make_app -> assignments.py (who is given what) -> ratings.py (stored at once)

A response holds one item, so that a thousand are as quick as ten. Whoever has the token may rate under any name: raters
are taken at their word.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DataError
from ...serving.html import content_security_policy
from ...serving.listening import listen, run, url_of
from ..compare_models import Compared, compare_report
from ..comparison import Comparison
from .assignments import Assignments, Share
from .ratings import NotStoredError, Ratings

if TYPE_CHECKING:
    from fastapi import FastAPI


def rate(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_host: str | Sequence[str] = (),
    share: float | None = None,
    raters: int | None = None,
    token: str | None = None,
    ready: Callable[[str], object] = print,
) -> Compared:
    """Let people rate two models' answers in their browsers, blind, until Ctrl-C or SIGTERM; then report.

    Args:
        a: A file of answers, as for `compare`.
        b: Another model's answers.
        out: Folder of the comparison; an existing one is resumed.
        host: Address to bind.
        port: 0 takes one that is free.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.
        share: The part of the pairs that each rater gets; all if left out.
        raters: Number of raters expected; given with `share`, and only then.
        token: What browsers must present; a new one if left out. It is in the address.
        ready: Called with the address, token included, once it can be opened.

    Raises:
        DataError: as `compare`; or the file of ratings is damaged.
        ConfigError: as `compare`; or the address cannot be used, or shares are out of range or not those the ratings
            were begun with.
        MissingDependencyError: the extra `judge` is not installed.
    """
    serve_page(
        Comparison.open(out, a, b),
        host=host,
        port=port,
        allow_host=[allow_host] if isinstance(allow_host, str) else allow_host,
        share=share,
        raters=raters,
        token=token or secrets.token_urlsafe(16),
        ready=ready,
    )
    return compare_report(out)


def serve_page(
    comparison: Comparison,
    *,
    token: str,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_host: Sequence[str] = (),
    share: float | None = None,
    raters: int | None = None,
    ready: Callable[[str], object] = print,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM. Arguments and errors are those of `rate`."""
    if (share is None) != (raters is None):
        raise ConfigError(f"share: {share!r} and raters: {raters!r} belong together; give both, or neither.")
    part = None if share is None or raters is None else Share(share, raters)
    shares = asdict(part) if part else None
    with listen(host, port, token, allow_host) as listening, Ratings(comparison, shares) as ratings:
        app = make_app(comparison, ratings, part)
        ready(url_of(listening, token))
        run(app, listening, token, allow_host=allow_host)


def make_app(comparison: Comparison, ratings: Ratings, share: Share | None = None) -> FastAPI:
    """The page and what it calls, to be run behind `serving/access.py`'s AccessControl.

    POST /join, /rate and /undo take and give JSON: what `Assignments` takes and gives.
    """
    from fastapi import Body, FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError

    page, headers = _page()
    assignments = Assignments(comparison, ratings, share)
    app = FastAPI(openapi_url=None)

    def reply(content: Any, status: int = 200) -> Response:
        # In ASCII, because half a surrogate pair, which a model can write, has no UTF-8.
        return Response(json.dumps(content), status, headers, "application/json")

    def refuse(request: Request, error: Exception) -> Response:
        # Only what the assignments say of a request: other errors' texts may hold names and paths, and stay here.
        message = str(error) if isinstance(error, DataError) else "the request must be a JSON object."
        return reply({"error": {"message": message}}, 422)

    def fail(request: Request, error: Exception) -> Response:
        # In the terminal, once; the page says that it is there, and sends again.
        warnings.warn(str(error), stacklevel=2)
        return reply({"error": {"message": "not stored: the file of ratings cannot be written."}}, 503)

    app.add_exception_handler(NotStoredError, fail)
    app.add_exception_handler(DataError, refuse)
    app.add_exception_handler(RequestValidationError, refuse)
    body = Body()

    @app.get("/")
    def show() -> Any:
        return Response(page, 200, headers, "text/html")

    @app.post("/join")
    def join(sent: dict[str, Any] = body) -> Any:
        return reply(assignments.join(sent))

    @app.post("/rate")
    def rate(sent: dict[str, Any] = body) -> Any:
        return reply(assignments.rate(sent))

    @app.post("/undo")
    def undo(sent: dict[str, Any] = body) -> Any:
        return reply(assignments.undo(sent))

    return app


def _page() -> tuple[str, dict[str, str]]:
    """The page, and headers under which it runs no script or style but its own and asks no other host for anything."""
    page = (resources.files(__package__) / "rate.html").read_text(encoding="utf-8")
    style, script = (page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0] for tag in ("style", "script"))
    own_server = "connect-src 'self'; img-src data:; frame-ancestors 'none'; "
    return page, {
        "content-security-policy": content_security_policy(style, script, own_server),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
