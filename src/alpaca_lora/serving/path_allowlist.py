"""What of another library's web application can be reached, and what its page may load."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from .html import GRADIO_POLICY


class PathAllowlist:
    """ASGI middleware: some paths and no others, under a policy that names no other host.

    Args:
        app: The application behind it.
        paths: What can be reached; one that ends in `/` stands for all below it.
    """

    def __init__(self, app: Any, paths: tuple[str, ...]) -> None:
        self.app = app
        self.exact = {path for path in paths if path == "/" or not path.endswith("/")}
        self.below = tuple(path for path in paths if path not in self.exact)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not (scope["path"] in self.exact or scope["path"].startswith(self.below)):
            raise HTTPException(404)

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", GRADIO_POLICY.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, with_policy)
