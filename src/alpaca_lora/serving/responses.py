"""What an OpenAI-compatible server answers: whole, or as server-sent events.

    chat, streamed    {role, ""}  {"To"}  {"m."}  {} stop  [usage]  [DONE]

Clients put the pieces of a stream together, the role too, so that it stands in the first one only.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

from ..generation.batching import Answer


class CompletionReply:
    """How answers to a `CompletionRequest` are written."""

    prefix, kind, chunk = "cmpl", "text_completion", "text_completion"
    opening = None
    """The choice of a stream's first event, where there is one before any text."""

    def whole(self, text: str, reason: str | None) -> dict[str, Any]:
        """A choice of a reply that is not streamed."""
        return {"text": text, "logprobs": None, "finish_reason": reason}

    def piece(self, text: str) -> dict[str, Any]:
        """A choice of a streamed event: some more text."""
        return self.whole(text, None)

    def end(self, reason: str) -> dict[str, Any]:
        """A choice of the streamed event that says why an answer ended."""
        return self.whole("", reason)


class ChatReply:
    """How answers to a `ChatRequest` are written."""

    prefix, kind, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"
    opening = MappingProxyType({"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None})
    """The choice of a stream's first event: an empty answer has it, too."""

    def whole(self, text: str, reason: str) -> dict[str, Any]:
        """A choice of a reply that is not streamed."""
        return {"message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}

    def piece(self, text: str) -> dict[str, Any]:
        """A choice of a streamed event: some more text."""
        return {"delta": {"content": text}, "logprobs": None, "finish_reason": None}

    def end(self, reason: str) -> dict[str, Any]:
        """A choice of the streamed event that says why an answer ended."""
        return {"delta": {}, "logprobs": None, "finish_reason": reason}


Reply = CompletionReply | ChatReply


def event(content: Any) -> str:
    r"""A server-sent event.

    In ASCII, so that a client that reads each packet of the network as a text of its own finds no half of a character,
    and one that splits lines where Unicode does finds no line within an answer.

    Example:
        >>> event({"text": "é"})
        'data: {"text": "\\u00e9"}\n\n'
    """
    return f"data: {json.dumps(content)}\n\n"


def usage(answers: list[Answer]) -> dict[str, int]:
    """Tokens read and made; a prompt that several answers share is counted once."""
    prompt = sum({id(answer.prompt): len(answer.prompt) for answer in answers}.values())
    completion = sum(len(answer.ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
