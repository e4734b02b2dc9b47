"""Errors a user can act on.

Every message names the offending value, the rule, and the next action. `AlpacaLoraError` is the root, so that one
`except` in a notebook or in `cli` catches them all; each child also is the built-in error a Python user expects.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class AlpacaLoraError(Exception):
    """Root of every error this library raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of the way through the library; IPython asks for it by this name."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(AlpacaLoraError, ValueError):
    """A setting is wrong. `problems` lists every problem found, not only the first."""

    def __init__(self, problems: str | list[str]) -> None:
        listed = [problems] if isinstance(problems, str) else list(problems)
        self.problems = [one if len(one) <= 2_000 else f"{one[:500]} [...] {one[-500:]}" for one in listed]
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            message = f"{len(self.problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(message)


class DataError(AlpacaLoraError, ValueError):
    """Records cannot be used as they are; the message names file, line or record number, and the fix."""


class TemplateError(AlpacaLoraError, ValueError):
    """A prompt template is malformed or uses more than the bare fields `{instruction}` and `{input}`."""


class ModelError(AlpacaLoraError, ValueError):
    """A base model, its tokenizer or their pairing cannot be used."""


class AdapterError(AlpacaLoraError, ValueError):
    """An adapter is damaged, incomplete, or belongs to another base."""


class HubError(AlpacaLoraError, OSError):
    """The Hugging Face hub refuses something, or cannot be reached."""


class TrainingError(AlpacaLoraError, RuntimeError):
    """Training had to stop."""


class RunInterrupted(TrainingError):
    """A run was told to stop, and did so with a checkpoint; `signal` is the signal's number, 0 for `stop_after`."""

    def __init__(self, message: str, signal: int) -> None:
        self.signal = signal
        super().__init__(message)


class MissingDependencyError(AlpacaLoraError, ImportError):
    """An optional package is needed; the message says what to install."""


def a(word: object) -> str:
    """A word with its article: `an int`, `a str`, `a uint8`."""
    return f"{'an' if str(word)[:1].lower() in 'aeio' else 'a'} {word}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The choice nearest to `word`, as a sentence to append, or "" when none is near.

    Example:
        >>> did_you_mean("instrution", ["instruction", "input", "output"])
        " Did you mean 'instruction'?"
    """
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def same_word(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is `word`, be it written with hyphens or with underscores; None if there is none.

    Example:
        >>> same_word("alpaca_7b", ["alpaca-7b", "alpaca-13b"])
        'alpaca-7b'
    """
    return next((one for one in choices if one.replace("_", "-") == word.replace("_", "-")), None)


def all_of(*checks: Callable[[], Any]) -> list[Any]:
    """What each check returns; where some raise a ConfigError, one with the problems of all of them."""
    found, problems = [], []
    for check in checks:
        try:
            found.append(check())
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found
