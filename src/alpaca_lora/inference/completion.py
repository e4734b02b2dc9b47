"""One answer of a language model, wherever it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Completion:
    """What came back for one prompt."""

    text: str
    """The answer, without the stop string it ended at."""
    finish_reason: Literal["stop", "length"]
    """`length` where the limit of new tokens cut it off."""
    prompt_tokens: int
    """Tokens of the prompt."""
    completion_tokens: int
    """Tokens of the answer, the one it stopped at included where it is counted."""
