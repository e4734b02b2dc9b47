"""One answer of a language model, wherever it ran."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Completion:
    """What came back for one prompt."""

    text: str
    """The answer, without the stop string it ended at."""
    finish_reason: Literal["stop", "length", "content_filter"]
    """`length` where the limit of new tokens cut it off, `content_filter` where a server kept all or the rest back."""
    prompt_tokens: int
    """Tokens of the prompt."""
    completion_tokens: int
    """Tokens of the answer, the one it stopped at included where it is counted."""
    sent: dict[str, Any] = field(default_factory=dict, compare=False)
    """What a server was sent beside the prompt: the limit by the name it takes, and the sampling it does not refuse."""
