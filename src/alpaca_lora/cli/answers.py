"""Commands of models that answer."""

from __future__ import annotations

import os
import signal
from typing import Any

from .names import paths
from .terminal import printable


def generate(
    model: str,
    instruction: str,
    input: str = "",
    base_model: str | None = None,
    prompt_template: str | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    num_beams: int = 1,
    seed: int | None = None,
    force: bool = False,
) -> None:
    """Answer one instruction, streaming.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        instruction: What to do.
        input: Context.
        base_model: For an adapter: where its base is now, if not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of the answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        top_p: Sample from the likeliest tokens that together have this probability.
        top_k: Sample from this many likeliest tokens; 0 is no limit.
        repetition_penalty: Above 1 makes tokens already used less likely.
        num_beams: Beams of a beam search; 1 is none.
        seed: Makes sampling repeatable.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from .. import api

    pieces = api.stream(
        model,
        instruction,
        input,
        base_model=base_model,
        prompt_template=prompt_template,
        force=force,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        num_beams=num_beams,
        seed=seed,
    )
    for piece in pieces:
        print(printable(piece), end="", flush=True)
    print()


def chat(
    model: str,
    also: list[str] | str | None = None,
    base_model: str | None = None,
    prompt_template: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    moderation: str | None = None,
    force: bool = False,
) -> None:
    """Answer instructions typed in the terminal, each by itself.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        also: Folders of further adapters, to switch between.
        base_model: For an adapter: where its base is now, if not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        top_p: Sample from the likeliest tokens that together have this probability.
        seed: Makes sampling repeatable.
        moderation: A file with a word or phrase a line that are refused, or the URL of an OpenAI-compatible endpoint,
            whose key is read from OPENAI_API_KEY.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from .. import api

    looks = _moderation(moderation)
    where: dict[str, Any] = {"base_model": base_model, "prompt_template": prompt_template, "also": paths(also)}
    sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}

    def write(text: str = "", **how: Any) -> None:
        print(printable(text), **how)

    api.chat(model, moderation=looks, write=write, force=force, seed=seed, **where, **sampling)


def serve(
    model: str,
    also: list[str] | str | None = None,
    base_model: str | None = None,
    prompt_template: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: list[str] | str | None = None,
    web: bool = False,
    max_rows: int = 32,
    max_waiting: int = 64,
    moderation: str | None = None,
    force: bool = False,
) -> None:
    """Serve a model over HTTP, in OpenAI's protocol, and with a page for people.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        also: Folders of further adapters; requests name them as `model`, and `base` is none of them.
        base_model: For an adapter: where its base is now, if not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        host: What to bind. Another than this machine's own needs a token in ALPACA_LORA_TOKEN.
        port: 0 takes one that is free.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.
        web: A page at / beside the protocol.
        max_rows: Most answers made at once.
        max_waiting: Most requests that wait; one more is refused with status 429.
        moderation: A file with a word or phrase a line that are refused, or the URL of an OpenAI-compatible endpoint,
            whose key is read from OPENAI_API_KEY.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from .. import api

    def ready(url: str) -> None:
        print(f"Serving at {url}v1" if "?" not in url else f"Serving at {url}", end=". Ctrl-C ends it.\n", flush=True)
        if web:
            print(f"Page: {url}", flush=True)

    api.serve(
        model,
        also=paths(also),
        base_model=base_model,
        prompt_template=prompt_template,
        host=host,
        port=port,
        allow_host=paths(allow_host),
        token=os.environ.get("ALPACA_LORA_TOKEN"),
        web=web,
        max_rows=max_rows,
        max_waiting=max_waiting,
        moderation=_moderation(moderation),
        force=force,
        ready=ready,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt but Python's own clearing up


def _moderation(where: str | None) -> Any:
    from ..generation.moderation import moderation_from

    return moderation_from(where, os.environ.get("OPENAI_API_KEY")) if where else None
