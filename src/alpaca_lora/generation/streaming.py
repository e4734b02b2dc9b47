"""Text of an answer while its tokens arrive: what is certain is shown, once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..data.tokens import Encoder

_BYTE = re.compile("<0x[0-9A-F]{2}>")


class GrowingText:
    """Decodes an answer's ids as they come.

    Args:
        encoder: Decodes.
        stops: Texts that end the answer and are not shown.
    """

    def __init__(self, encoder: Encoder, stops: Sequence[str] = ()) -> None:
        self.encoder, self.stops = encoder, stops
        self.certain = ""
        """What can be shown: later tokens do not change it."""
        self.stopped = False
        """Whether one of `stops` has come."""

    def update(self, ids: Sequence[int]) -> None:
        """Take notice of the answer's ids so far, of which the last may be new."""
        # SentencePiece decodes a run of byte tokens as a whole: one more byte can change what the run says.
        if ids and _BYTE.fullmatch(self.encoder.tokenizer.convert_ids_to_tokens(ids[-1]) or ""):
            return
        text = self.encoder.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose bytes are not all there yet
            self._show(text, held=max((_overlap(text, stop) for stop in self.stops), default=0))

    def finish(self, ids: Sequence[int]) -> None:
        """No token will follow."""
        if not self.stopped:
            self._show(self.encoder.decode(ids), held=0)

    def _show(self, text: str, held: int) -> None:
        start = max(0, len(self.certain) - max(map(len, self.stops), default=0))
        found = [place for stop in self.stops if (place := text.find(stop, start)) >= 0]
        if found:
            self.stopped, self.certain = True, text[: min(found)]
        elif len(text) - held > len(self.certain):
            self.certain = text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
