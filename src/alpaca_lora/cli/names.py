"""How this program is called."""

from __future__ import annotations

import sys

PROG = "alpaca-lora"


def command_name() -> str:
    """How this program was called, for commands to copy: `.venv/bin/alpaca-lora`, say."""
    return sys.argv[0] if sys.argv[0].endswith(PROG) else PROG


def paths(given: list[str] | str | None) -> list[str]:
    """One path, several, or none, as a list."""
    return [given] if isinstance(given, str) else given or []
