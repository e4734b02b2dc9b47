"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..config import shown
from ..errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The default is greedy: the likeliest one, the same answer every time.

    Raises:
        ConfigError: a value is out of range.
    """

    max_new_tokens: int = 256
    """Maximum number of new tokens."""
    temperature: float = 0.0
    """0 is greedy; higher is more varied."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability, in (0, 1]."""
    top_k: int = 0
    """Sample from this many likeliest tokens; 0 is no limit."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens already used less likely (arXiv 1909.05858)."""
    num_beams: int = 1
    """Beams of a beam search; 1 is none."""
    seed: int | None = None
    """Makes sampling repeatable, whatever else is answered at the same time."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are not part of it, beside the stops the model was trained with."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {shown(getattr(self, name))} must be {rule}."
            for name, ok, rule in (
                ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
                ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 1e3, "0, or from 0.001 to 1000"),
                ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
                ("top_k", self.top_k >= 0, "at least 0"),
                ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100, "from 0.01 to 100"),
                ("num_beams", 1 <= self.num_beams <= 64, "from 1 to 64"),
                ("seed", self.seed is None or 0 <= self.seed < 2**63, "a whole number from 0 to 2^63 - 1"),
                ("stop", all(self.stop) and not isinstance(self.stop, str), "texts of at least one character"),
            )
            if not ok
        ]
        if problems:
            raise ConfigError(problems)


def sampling_of(settings: Mapping[str, Any]) -> Sampling:
    """A Sampling of keyword arguments.

    Raises:
        ConfigError: unknown names (the nearest known one is named), or values out of range.
    """
    known = [entry.name for entry in fields(Sampling)]
    elsewhere = {"max_tokens": "max_new_tokens", "max_length": "max_new_tokens"}
    unknown = [name for name in settings if name not in known]
    if unknown:
        hints = [did_you_mean(elsewhere.get(name, name), known) for name in unknown]
        raise ConfigError(
            [f"{name!r} is not a setting of sampling.{hint}" for name, hint in zip(unknown, hints, strict=True)]
        )
    return Sampling(**settings)
