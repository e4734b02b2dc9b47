"""How this program is called."""

from __future__ import annotations

import sys

PROG = "alpaca-lora"


def command_name() -> str:
    """How this program was called, for commands to copy: for example `.venv/bin/alpaca-lora`."""
    return sys.argv[0] if sys.argv[0].endswith(PROG) else PROG
