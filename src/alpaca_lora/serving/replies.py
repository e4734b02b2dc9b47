"""How choices are written in OpenAI's protocol: those of a completion, and those of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from .token_entries import TokenEntry


class CompletionReply:
    """How answers to a `CompletionRequest` are written."""

    prefix, kind, chunk = "cmpl", "text_completion", "text_completion"
    opening = None
    """The choice of a stream's first event, if there is one before any text."""
    with_end = True
    """Whether the token that an answer stops at is among its log-probabilities: lm-eval counts on one for each token
    that was made. What a chat answers is, in OpenAI's words, "each output token returned in the content"."""

    def whole(self, text: str, reason: str | None, entries: Sequence[TokenEntry] | None) -> dict[str, Any]:
        """A choice of a reply that is not streamed."""
        return {"text": text, "logprobs": self._logprobs(entries), "finish_reason": reason}

    def piece(self, text: str, entries: Sequence[TokenEntry] | None) -> dict[str, Any]:
        """A choice of a streamed event: some more text."""
        return self.whole(text, None, entries)

    def end(self, reason: str, entries: Sequence[TokenEntry] | None) -> dict[str, Any]:
        """A choice of the streamed event that says why an answer ended."""
        return self.whole("", reason, entries)

    def _logprobs(self, entries: Sequence[TokenEntry] | None) -> dict[str, Any] | None:
        if entries is None:
            return None
        return {
            "tokens": [entry.own.token for entry in entries],
            "token_logprobs": [entry.own.logprob for entry in entries],
            "top_logprobs": [None if entry.own.logprob is None else _by_text(entry) for entry in entries],
            "text_offset": [entry.offset for entry in entries],
        }


class ChatReply:
    """How answers to a `ChatRequest` are written."""

    prefix, kind, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"
    opening = MappingProxyType({"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None})
    """The choice of a stream's first event: an empty answer has it, too."""
    with_end = False

    def whole(self, text: str, reason: str, entries: Sequence[TokenEntry] | None) -> dict[str, Any]:
        """A choice of a reply that is not streamed."""
        message = {"role": "assistant", "content": text}
        return {"message": message, "logprobs": self._logprobs(entries), "finish_reason": reason}

    def piece(self, text: str, entries: Sequence[TokenEntry] | None) -> dict[str, Any]:
        """A choice of a streamed event: some more text."""
        return {"delta": {"content": text}, "logprobs": self._logprobs(entries), "finish_reason": None}

    def end(self, reason: str, entries: Sequence[TokenEntry] | None) -> dict[str, Any]:
        """A choice of the streamed event that says why an answer ended."""
        return {"delta": {}, "logprobs": self._logprobs(entries), "finish_reason": reason}

    def _logprobs(self, entries: Sequence[TokenEntry] | None) -> dict[str, Any] | None:
        if entries is None:
            return None
        content = [{**entry.own._asdict(), "top_logprobs": [one._asdict() for one in entry.top]} for entry in entries]
        return {"content": content, "refusal": None}


Reply = CompletionReply | ChatReply


def _by_text(entry: TokenEntry) -> dict[str, float | None]:
    """The likeliest tokens and the one that stands there; of several with one text the likeliest."""
    found: dict[str, float | None] = {}
    for one in (*entry.top, entry.own):
        found.setdefault(one.token, one.logprob)
    return found
