"""Pages from templates, self-contained: texts are escaped, and nothing is loaded from anywhere.

pages/NAME.html holds the frame, NAME.css and NAME.js beside it style and script, NAME.md the Markdown.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from .packages import load_package


def render_html(name: str, **values: Any) -> str:
    """The page `name`, with style and script inside, and what it may load as `policy`.

    Texts are escaped; in values that go through `tojson` no `<` is left, so that no text can end the script element
    that holds them. A browser runs the one script and uses the one style whose hashes the policy names, and nothing
    else: no other script, no request, no form.
    """
    style, script = _text(f"{name}.css"), _text(f"{name}.js")
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return _render(f"{name}.html", True, {**values, "style": style, "script": script, "policy": policy})


def render_markdown(name: str, **values: Any) -> str:
    """The Markdown `name`; it calls `escape` on texts."""
    return _render(f"{name}.md", False, {**values, "escape": escape_markdown})


def escape_markdown(text: object) -> str:
    """Text that stays itself in a line or table cell of Markdown.

    Example:
        >>> print(escape_markdown("a|b <c>"))
        a\\|b \\<c\\>
    """
    line = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|~&" else character for character in line)


def _render(name: str, escaped: bool, values: dict[str, Any]) -> str:
    jinja2 = load_package("jinja2")
    environment = jinja2.Environment(
        autoescape=escaped, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return str(environment.from_string(_text(name)).render(**values))


def _text(name: str) -> str:
    return resources.files("alpaca_lora.evaluation").joinpath("pages", name).read_text(encoding="utf-8")
