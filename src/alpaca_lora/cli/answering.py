"""Commands of models that answer: what is printed, and what comes from the environment."""

from __future__ import annotations

import os
import signal
from typing import Any

from .. import generation, serving
from .streams import printable


def generate(**given: Any) -> None:
    """Print the answer while it grows."""
    for piece in generation.stream(**given):
        print(printable(piece), end="", flush=True)
    print()


def chat(**given: Any) -> None:
    """Talk in the terminal."""

    def write(text: str = "", **how: Any) -> None:
        print(printable(text), **how)

    generation.chat(**given, key=os.environ.get("OPENAI_API_KEY"), write=write)


def serve(web: bool, **given: Any) -> None:
    """Serve, and print the address."""

    def ready(url: str) -> None:
        print(f"Serving at {url}v1" if "?" not in url else f"Serving at {url}", end=". Ctrl-C ends it.\n", flush=True)
        if web:
            print(f"Page: {url}", flush=True)

    token, key = os.environ.get("ALPACA_LORA_TOKEN"), os.environ.get("OPENAI_API_KEY")
    serving.serve(**given, token=token, key=key, web=web, ready=ready)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt but Python's own clearing up
