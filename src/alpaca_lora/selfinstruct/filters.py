"""Which new records join the task pool, and why the others do not.

In: a record, and the pool of seeds and accepted records. Out: nothing for a good record, or a `Rejection` with one of
REASONS. The checks go from cheap to costly, and the first that fails names the reason:

    empty_output, too_short, too_long -> punctuation_start, other_language -> not_text -> duplicate -> similar

`not_text` is what a model of text cannot do (blacklist.py), said in English. The other checks hold for every language;
in Chinese, Japanese and Thai a character is a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from ..data.record import Record, is_blank
from ..data.similarity import SimilarityIndex, words
from .blacklist import beyond_text
from .parse import EMPTY_OUTPUT, PARSE_REASONS

REASONS: tuple[str, ...] = (
    *PARSE_REASONS,
    "too_short",
    "too_long",
    "punctuation_start",
    "other_language",
    "not_text",
    "duplicate",
    "similar",
)
MIN_WORDS, MAX_WORDS = 4, 150  # of an instruction; those of Alpaca

_QUOTES = "\"'`“”‘’„‚«»‹›「『《¿¡"
_LANGUAGES = {
    ("ARABIC",): "arabic persian urdu",
    ("ARMENIAN",): "armenian",
    ("BENGALI",): "bengali",
    ("CJK",): "cantonese chinese mandarin",
    ("CJK", "HIRAGANA", "KATAKANA"): "japanese",
    ("CYRILLIC",): "belarusian bulgarian macedonian russian ukrainian",
    ("DEVANAGARI",): "hindi marathi nepali",
    ("GEORGIAN",): "georgian",
    ("GREEK",): "greek",
    ("HANGUL",): "korean",
    ("HEBREW",): "hebrew",
    ("TAMIL",): "tamil",
    ("TELUGU",): "telugu",
    ("THAI",): "thai",
}
"""Scripts that tell their languages from English; other languages may be written in any script."""
_SCRIPTS = {name: scripts for scripts, names in _LANGUAGES.items() for name in names.split()}


@dataclass(frozen=True)
class Rejection:
    """Why a record was not accepted: one of REASONS, and what was found, in words."""

    reason: str
    detail: str


class Filters:
    """Judges records against a pool that grows with every accepted one.

    Args:
        seeds: What the pool starts with; they are not judged.
        language: The language asked for, by its English name. English must start with an ASCII letter or digit, after
            quotes; a language with a script of its own must hold a letter of it; others are not checked.
        threshold: The ROUGE-L F1 of two instructions from which they are the same task; Alpaca's is 0.7.

    Raises:
        ConfigError: The threshold is outside (0, 1].
        MissingDependencyError: rapidfuzz is not installed.

    Example:
        >>> filters = Filters([Record("Write a short poem about the sea.", "", "Blue, wide, ...")])
        >>> filters.judge(Record("Write a poem about the sea.", "", "Waves ..."))
        Rejection(reason='similar', detail="ROUGE-L 0.92 to 'Write a short poem about the sea.'")
        >>> filters.judge(Record("Draw a cat that sleeps.", "", "A cat."))
        Rejection(reason='not_text', detail="'Draw a'")
    """

    def __init__(self, seeds: Iterable[Record], *, language: str = "English", threshold: float = 0.7) -> None:
        self._language = language.strip()
        self._index = SimilarityIndex(threshold)
        self._instructions: list[str] = []
        self._keys: set[str] = set()
        for seed in seeds:
            self.add(seed)

    def add(self, record: Record) -> None:
        """Puts a record into the pool."""
        self._index.add(record.instruction)
        self._instructions.append(record.instruction)
        self._keys.add(_key(record.instruction))

    def judge(self, record: Record) -> Rejection | None:
        """Why the record may not join the pool, or None; the pool stays as it is. Some milliseconds at 52,000."""
        instruction = record.instruction.strip()
        if is_blank(record.output):
            return Rejection(EMPTY_OUTPUT, "the output is blank")
        length = len(words(instruction))
        if length < MIN_WORDS:
            return Rejection("too_short", f"{length} words, fewer than {MIN_WORDS}")
        if length > MAX_WORDS:
            return Rejection("too_long", f"{length} words, more than {MAX_WORDS}")
        rejection = self._start(instruction)
        if rejection is None and (found := beyond_text(record)):
            rejection = Rejection("not_text", repr(found))
        return rejection or self._repeated(instruction)

    def _start(self, instruction: str) -> Rejection | None:
        start = instruction.lstrip(_QUOTES + " \t")[:1]
        shown = repr(instruction[:20])
        if unicodedata.category(start or " ")[0] not in "LNM":
            return Rejection("punctuation_start", f"starts with {shown}")
        names = words(self._language)  # of "Simplified Chinese" one is known
        if "english" in names and not start.isascii():
            return Rejection("other_language", f"{self._language} was asked for; starts with {shown}")
        scripts = next((_SCRIPTS[name] for name in names if name in _SCRIPTS), None)
        if scripts and not any(unicodedata.name(character, "").startswith(scripts) for character in instruction):
            return Rejection("other_language", f"{self._language} was asked for; no letter of its script in {shown}")
        return None

    def _repeated(self, instruction: str) -> Rejection | None:
        if _key(instruction) in self._keys:
            return Rejection("duplicate", "its instruction is in the pool, word for word")
        found = self._index.nearest(instruction)
        if found is None:
            return None
        place, score = found
        return Rejection("similar", f"ROUGE-L {score:.2f} to {self._instructions[place]!r}")


def _key(instruction: str) -> str:
    return " ".join(words(instruction)) or instruction.strip()
