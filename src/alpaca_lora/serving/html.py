"""HTML pages: templates whose texts are escaped, and what a browser may load for a page, which is little.

Every page of this library has a Content-Security-Policy from here. A page of our own is one text with its style and
script inside; the policy names these two by their hashes, so that a browser runs no other script and sends no request.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from ..errors import MissingDependencyError

GRADIO_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Gradio's page needs inline scripts; it still asks no other host for anything, and is shown in no other page."""


def content_security_policy(style: str | None = None, script: str | None = None, more: str = "") -> str:
    """The policy of a page of our own.

    Args:
        style: The page's one style; None allows any inline style, which drawings in SVG need.
        script: The page's one script; None allows none.
        more: Further directives, for a page that calls its own server.
    """
    styles = "'unsafe-inline'" if style is None else _hash_of(style)
    scripts = "" if script is None else f"script-src {_hash_of(script)}; "
    return f"default-src 'none'; style-src {styles}; {scripts}{more}base-uri 'none'; form-action 'none'"


def render(template: str, *, escape: bool = True, **values: Any) -> str:
    """A Jinja template with its values filled in; with `escape`, texts stay texts whatever they hold.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingDependencyError("reports need jinja2. Run: pip install jinja2") from None
    environment = jinja2.Environment(
        autoescape=escape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(**values)


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
