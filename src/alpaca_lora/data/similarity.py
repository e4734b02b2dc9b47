"""Similarity of texts: which entry of a growing pool is nearest, by ROUGE-L.

    F1 = 2PR / (P + R),   P = LCS / words of one text,   R = LCS / words of the other     (Lin 2004)

LCS is the longest common subsequence of words. In: texts; out: the nearest entry whose F1 reaches the threshold, or
nothing. The decision is exact: that of the package `rouge_score` (default tokenizer, no stemming), to the last bit of
its arithmetic, for texts in Latin letters. Nothing is sampled or hashed.

How it is fast: every distinct word is one code point, so that a text is a short string and rapidfuzz computes the LCS
64 words at a time; entries lie in buckets by length, and lengths that cannot reach the threshold are never visited
(the LCS is at most the shorter text). A query against 52,000 instructions takes about 10 ms on one core, and
an entry about 0.2 KiB (benchmarks/similarity.py).
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import Any

from ..errors import ConfigError, DataError, MissingDependencyError

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Scripts written without spaces between words: each character is a word.
_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
_FIRST_OTHER = "\u0370"  # below are ASCII, accented Latin letters, and the marks that make such letters
_UNKNOWN = "\0"  # a word that no entry has
_SURROGATES = range(0xD800, 0xE000)  # code points that are no characters


def words(text: str) -> list[str]:
    """The words of a text, lower-case: runs of letters and digits, for Latin letters exactly those of `rouge_score`.

    So an accented Latin letter separates words, as a space does. Of other alphabets, which `rouge_score` drops, letters
    and vowel signs make words; in scripts without spaces, as Chinese, Japanese and Thai, each character is a word.

    Example:
        >>> words("Don't panic: 42 cafés!")
        ['don', 't', 'panic', '42', 'caf', 's']
        >>> words("Привет, 你好")
        ['привет', '你', '好']
    """
    text = text.lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return "".join(map(_piece, text)).split()


@lru_cache(maxsize=2**16)
def _piece(character: str) -> str:
    """What a lower-case character adds to the text of which the words are split at spaces."""
    if character < _FIRST_OTHER:
        return character if _ASCII_WORD.fullmatch(character) else " "
    name, category = unicodedata.name(character, ""), unicodedata.category(character)
    # A variation selector is a mark by category, but one of emoji, not of letters.
    if name.startswith(("LATIN ", "VARIATION SELECTOR")) or (category[0] != "L" and category not in ("Nd", "Mn", "Mc")):
        return " "
    return f" {character} " if name.startswith(_UNSPACED) else character


def rouge_l(common: int, length: int, other: int) -> float:
    """F1 of two texts of `length` and `other` words with a common subsequence of `common` words.

    Computed in the order of `rouge_score`, so that rounding at a threshold falls the same way.
    """
    if not common:
        return 0.0
    precision, recall = common / length, common / other
    return 2 * precision * recall / (precision + recall)


class SimilarityIndex:
    """A pool of texts that answers which of them is nearest.

    Args:
        threshold: The least F1 that counts as near, in (0, 1].

    Raises:
        ConfigError: The threshold is outside (0, 1].
        MissingDependencyError: rapidfuzz is not installed.

    Example:
        >>> index = SimilarityIndex(0.7)
        >>> index.add("Write a short poem about the sea.")
        0
        >>> index.nearest("Write a poem about the sea.")
        (0, 0.923...)
        >>> index.nearest("Name three rivers.") is None
        True
    """

    def __init__(self, threshold: float = 0.7) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold: {threshold!r} is no F1 to reach; give a number above 0, up to 1.")
        try:
            from rapidfuzz import process
            from rapidfuzz.distance import LCSseq
        except ImportError as error:
            raise MissingDependencyError(
                "Comparing texts needs rapidfuzz. Install it: pip install 'alpaca-lora[data]'"
            ) from error
        self.threshold = threshold
        self._extract: Any = process.extractOne
        self._scorer: Any = LCSseq.similarity
        self._codes: dict[str, str] = {}
        self._buckets: dict[int, tuple[list[str], list[int]]] = {}  # words -> the texts, and their places in the pool
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> int:
        """Puts a text into the pool; returns its place, from 0. The same text may be added again.

        Raises:
            DataError: The pool would hold more distinct words than there are code points (1,112,063).
        """
        code = "".join([self._code(word) for word in words(text)])
        texts, places = self._buckets.setdefault(len(code), ([], []))
        texts.append(code)
        places.append(self._count)
        self._count += 1
        return self._count - 1

    def nearest(self, text: str) -> tuple[int, float] | None:
        """The entry with the highest F1 to `text`, as (place, F1); the earliest of equals.

        Returns:
            None where no entry reaches the threshold; so for a text without words.
        """
        query = "".join([self._codes.get(word, _UNKNOWN) for word in words(text)])
        length = len(query)
        best: tuple[int, float] | None = None
        # Another length reaches the threshold only if 2 * shorter / (length + other) does.
        reach = (2 - self.threshold) / self.threshold
        for other in range(max(1, math.floor(length / reach)), math.ceil(length * reach) + 1):
            texts, places = self._buckets.get(other, ([], []))
            least = self._least_common(length, other) if texts else 0
            if not 0 < least <= min(length, other):
                continue
            found = self._extract(query, texts, scorer=self._scorer, score_cutoff=least)
            if found is not None:
                place, score = places[found[2]], rouge_l(int(found[1]), length, other)
                if best is None or (-score, place) < (-best[1], best[0]):
                    best = place, score
        return best

    def _least_common(self, length: int, other: int) -> int:
        """The shortest common subsequence with which texts of these lengths, from 1, reach the threshold."""
        common = math.ceil(self.threshold * (length + other) / 2)  # but for rounding
        while common > 0 and rouge_l(common - 1, length, other) >= self.threshold:
            common -= 1
        while common <= length and rouge_l(common, length, other) < self.threshold:
            common += 1
        return common

    def _code(self, word: str) -> str:
        """The code point of a word, a new one for a new word."""
        code = self._codes.get(word)
        if code is None:
            number = len(self._codes) + 1  # 0 is _UNKNOWN
            if number >= _SURROGATES.start:
                number += len(_SURROGATES)
            if number > 0x10FFFF:
                raise DataError(
                    f"the texts hold more than {len(self._codes):,} distinct words, the most that can be compared in "
                    "one pool. Compare parts of the data, or remove tables of numbers and random identifiers from it."
                )
            code = self._codes[word] = chr(number)
        return code
