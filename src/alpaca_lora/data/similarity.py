"""Similarity of texts: which entry of a growing pool is nearest, by ROUGE-L.

    F1 = 2PR / (P + R),   P = LCS / words of one text,   R = LCS / words of the other     (Lin 2004)

LCS is the longest common subsequence of words. In: texts; out: the nearest entry whose F1 reaches the threshold, or
nothing. The decision is exact: for ASCII text that of the package `rouge_score` (default tokenizer, no stemming), to
the last bit of its arithmetic; `words` says how other texts are taken apart. Nothing is sampled or hashed.

How it is fast: every distinct word is one code point, so that a text is a short string and rapidfuzz computes the LCS
64 words at a time; entries lie in buckets by length, and lengths that cannot reach the threshold are never visited
(the LCS is at most the shorter text). A query against 52,000 instructions takes about 10 ms on one core, and
an entry about 0.2 KiB (benchmarks/similarity.py).
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

import regex

from ..errors import ConfigError, DataError, MissingDependencyError

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Scripts written without spaces between words: each character is a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{scx=Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"[[{_UNSPACED}]&&[\p{{L}}\p{{Mn}}\p{{Mc}}\p{{N}}]]"
    rf"|(?:[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{Mn}}\p{{Mc}}]--[{_UNSPACED}]]*)+",
    regex.VERSION1,
)
# What changes how a text is drawn, not what it says: joiners, soft hyphens, variation selectors, Arabic's tatweel.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\N{ARABIC TATWEEL}]+")
_UNKNOWN = "\0"  # a word that no entry has
_SURROGATES = range(0xD800, 0xE000)  # code points that are no characters


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits with their marks, lower-case.

    Of ASCII text they are those of `rouge_score`. That drops every other character, so that sentences which differ only
    in accents or in another alphabet would be the same; here letters, vowel signs and tone marks of all scripts count.
    In scripts without spaces, as Chinese, Japanese and Thai, each character is a word. Spellings of one text are
    one: composed or not, full width or not, upper or lower case (Unicode NFKC and case folding).

    Example:
        >>> words("Don't panic: 42 cafés!")
        ['don', 't', 'panic', '42', 'cafés']
        >>> words("Привет, 你好")
        ['привет', '你', '好']
        >>> words("Ｃａｆｅ\u0301") == words("café")
        True
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return _WORD.findall(unicodedata.normalize("NFKC", folded))


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
        threshold: The minimum F1 that counts as near, in (0, 1].

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
            None if no entry reaches the threshold, as for a text without words.
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
                    f"the texts hold more than {len(self._codes):,} distinct words, the maximum of one "
                    "pool. Compare parts of the data, or remove tables of numbers and random identifiers from it."
                )
            code = self._codes[word] = chr(number)
        return code
