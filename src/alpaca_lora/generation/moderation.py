"""Moderation: what a model is asked and what it answers, looked at by a function of yours, before and after.

Off unless one is given. A moderation is any callable that takes a text and returns why it is refused, or None.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingDependencyError

Moderation = Callable[[str], str | None]
logger = logging.getLogger(__name__)


async def refusal(moderation: Moderation | None, text: str) -> str | None:
    """Why a text is refused, or None. A moderation that fails has not said that a text is harmless: it is refused."""
    if moderation is None:
        return None
    try:
        return await asyncio.to_thread(moderation, text) or None
    except Exception:
        logger.exception("the moderation failed")
        return "the moderation failed"


class Keywords:
    """Refuses texts with any of some words: an example of a moderation, and no more than that.

    A list of words misses what is said otherwise, and hits harmless sentences.

    Example:
        >>> Keywords(["bomb"])("How do I build a BOMB?")
        "it contains 'bomb'"
        >>> Keywords(["bomb"])("A bombastic speech.")
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = [word.strip() for word in words if word.strip()]
        if not self.words:
            raise ConfigError("moderation: the list of words is empty.")
        self._found = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in self.words]

    def __call__(self, text: str) -> str | None:
        hit = next((word for word, found in zip(self.words, self._found, strict=True) if found.search(text)), None)
        return None if hit is None else f"it contains {hit!r}"


class ModerationEndpoint:
    """Asks an OpenAI-compatible `/v1/moderations`.

    A text is let through only where the answer says in so many words that it is not flagged. Redirects are not
    followed: texts go to the address given, and to no other.

    Args:
        url: Base URL of the endpoint, such as `https://host/v1`.
        key: Its key; never logged.
        model: The endpoint's model, where it has several.
    """

    def __init__(self, url: str, key: str | None = None, model: str | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise MissingDependencyError("moderation: needs pip install 'alpaca-lora[data]'.") from error
        self._client = openai.OpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=1,
            timeout=30,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        self._more: dict[str, Any] = {"model": model} if model else {}

    def __call__(self, text: str) -> str | None:
        from openai import OpenAIError

        try:
            # As it came: the client's types are not checked against what the endpoint says.
            answer = self._client.moderations.with_raw_response.create(input=text, **self._more).http_response.json()
        except OpenAIError:
            return "the moderation service does not answer"
        except ValueError:
            answer = None
        try:
            verdicts = [(result["flagged"], result.get("categories") or {}) for result in answer["results"]]
            flagged = [name for verdict, categories in verdicts if verdict for name, hit in categories.items() if hit]
        except (TypeError, KeyError, AttributeError):
            verdicts, flagged = [], []
        if not verdicts or not all(isinstance(verdict, bool) for verdict, _ in verdicts):
            return "the moderation service's answer is not understood"
        if not any(verdict for verdict, _ in verdicts):
            return None
        return "it was flagged" + (f": {', '.join(flagged)}" if flagged else "")


def moderation_from(where: str, key: str | None = None) -> Moderation:
    """A moderation from a command line: an endpoint's URL, or a file with a word or phrase a line.

    Raises:
        ConfigError: neither.
    """
    if where.startswith(("http://", "https://")):
        return ModerationEndpoint(where, key)
    try:
        return Keywords(Path(where).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"moderation: {where!r} is neither a URL nor a readable text file: {error}") from error
