"""The page for people who compare two models' answers without knowing whose they are.

    browser -> access.py (token) -> make_app -> assignments.py (who is given what) -> ratings.py (stored at once)

A response holds one item, so that a thousand are as quick as ten. Whoever has the token may rate under any name: raters
are taken at their word.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from ..serving.listening import listen, run, url_of
from .assignments import Assignments, Share
from .ratings import NotStoredError, Ratings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .pairs import Comparison


def rate(
    comparison: Comparison,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str,
    share: float | None = None,
    raters: int | None = None,
    seed: int = 0,
    ready: Callable[[str], object] = print,
    allow_host: Sequence[str] = (),
) -> None:
    """Let people rate a comparison's answers in their browsers, until Ctrl-C or SIGTERM.

    Args:
        comparison: What is rated; ratings go into its folder, and those that are there already are gone on from.
        host: What is bound.
        port: 0 is one that is free.
        token: What raters' browsers must present; it is in the address.
        share: The part of the items that each rater gets; None is all of them.
        raters: How many are expected; given with `share`, and only then.
        seed: Seed for assigning items to raters.
        ready: Called with the address, token included, once it can be opened.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.

    Raises:
        ConfigError: The address cannot be used, shares are out of range, or not those the ratings were begun with.
        DataError: The file of ratings is damaged.
        MissingDependencyError: The extra `judge` is not installed.
    """
    if (share is None) != (raters is None):
        raise ConfigError(f"share: {share!r} and raters: {raters!r} belong together; give both, or neither.")
    part = None if share is None or raters is None else Share(share, raters, seed)
    shares = asdict(part) if part else None
    with listen(host, port, token, allow_host) as listening, Ratings(comparison, shares) as ratings:
        app = make_app(comparison, ratings, part)
        ready(url_of(listening, token))
        run(app, listening, token, allow_host=allow_host)


def make_app(comparison: Comparison, ratings: Ratings, share: Share | None = None) -> FastAPI:
    """The page and what it calls, for `serving/access.py`'s AccessControl.

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
    page = (resources.files(__package__) / "pages" / "rate.html").read_text(encoding="utf-8")

    def own(tag: str) -> str:
        content = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {own('script')}; style-src {own('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
