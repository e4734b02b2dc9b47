"""Policies and templates of pages, without a browser: what a page may load, and that texts stay texts."""

from __future__ import annotations

import base64
import hashlib

import pytest

from alpaca_lora.serving.html import content_security_policy, render


def test_a_page_of_our_own_runs_its_own_style_and_script_and_nothing_else():
    style, script = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (b"p {}", b"run()"))
    assert content_security_policy("p {}", "run()", "connect-src 'self'; ") == (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_a_page_without_a_script_runs_none():
    policy = content_security_policy()
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def test_texts_are_escaped_unless_told_otherwise():
    pytest.importorskip("jinja2")
    assert render("<p>{{ text }}</p>", text="<b>") == "<p>&lt;b&gt;</p>"
    assert render("{{ text }}", escape=False, text="<b>") == "<b>"
