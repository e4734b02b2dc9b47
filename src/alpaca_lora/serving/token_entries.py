"""The log-probabilities of an answer's tokens as they go to a client, each with its place in the text that is sent.

    text      "Cats say| meow"         echoed | made
    tokens    Cats  say   me  ow
    offset    0     4     8   11       in characters; a part of a character begins where the character does

A piece of a stream takes with it the tokens that begin within it.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from ..generation.batching import Answer
from ..generation.token_texts import TokenTexts


class Scored(NamedTuple):
    """A token as clients read it, and its log-probability."""

    token: str
    bytes: list[int]
    logprob: float | None
    """None for a prompt's first token, which nothing predicts."""


class TokenEntry(NamedTuple):
    """A token of a choice."""

    offset: int
    """Characters of the choice's text before it."""
    own: Scored
    top: list[Scored]
    """The likeliest tokens at its place, the likeliest first."""


class TokenEntries:
    """Gives the entries of one answer, each once, in order.

    Args:
        answer: One whose log-probabilities are kept.
        texts: Of its tokenizer.
        echoed: The prompt's text, if that is part of the choice.
        with_end: Whether the token it stops at is one of its own.
    """

    def __init__(self, answer: Answer, texts: TokenTexts, echoed: str | None, with_end: bool) -> None:
        self._answer, self._texts, self._echoed, self._with_end = answer, texts, echoed, with_end
        self._given = self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def new(self, shown: int | None = None) -> list[TokenEntry]:
        """Those not given yet: of tokens that begin within the first `shown` characters, or of all."""
        prompt = self._answer.prompt if self._echoed is not None else []
        found: list[TokenEntry] = []
        while self._given < len(prompt) + self._made:
            if self._given == len(prompt):
                self._offset = len(self._echoed or "")
                self._decoder.reset()
            if shown is not None and self._offset >= shown:
                break
            found.append(self._entry(self._given, len(prompt)))
            self._given += 1
        return found

    @property
    def _made(self) -> int:
        """Tokens of the answer that can be given."""
        logprobs = self._answer.logprobs
        assert logprobs is not None
        ended = self._with_end and self._answer.finish_reason == "stop"
        return len(logprobs.chosen) if ended else len(self._answer.ids)

    def _entry(self, place: int, prompt: int) -> TokenEntry:
        logprobs = self._answer.logprobs
        assert logprobs is not None
        kept = logprobs.prompt[place] if place < prompt else logprobs.chosen[place - prompt]
        own, top = self._scored(kept.token, kept.logprob), [self._scored(*one) for one in kept.top]
        entry = TokenEntry(self._offset, own, top)
        self._offset += len(self._decoder.decode(self._shown(kept.token, place < prompt)))
        return entry

    def _scored(self, id: int, logprob: float | None) -> Scored:
        return Scored(self._texts.name(id), [*self._texts.in_bytes(id)], logprob)

    def _shown(self, id: int, in_prompt: bool) -> bytes:
        """What a token adds; the space that a SentencePiece tokenizer puts in front of a text is not shown."""
        own = self._texts.shown(id)
        if in_prompt and self._offset == 0 and own.startswith(b" ") and not (self._echoed or "").startswith(" "):
            return own[1:]
        return own
