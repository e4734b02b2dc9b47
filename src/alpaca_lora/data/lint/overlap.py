"""Records against each other and against an evaluation set.

Near-duplicates are prompts, instruction and input as one text, whose ROUGE-L reaches 0.9; outputs are not compared.
What an evaluation set and a record share is measured as is usual: 13 words in a row (GPT-3, arXiv 2005.14165), 70% of
the 8-word sequences of a text (PaLM, arXiv 2204.02311), or a prompt with a ROUGE-L of 0.7 (Self-Instruct, 2212.10560).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..record import FIELDS, Record
from ..records.key_values import texts_in
from ..similarity import SimilarityIndex, words
from ..sources import open_source
from .findings import Found, excerpt

NEAR_DUPLICATE = 0.9
NEAR_EVALUATION = 0.7
_GRAM = 8
_IN_A_ROW = 13
_SHARE = 0.7
_MIN_WORDS = 6
_BOILERPLATE_ITEMS = 10

# Words in which two wordings of one task may differ.
_FILLERS = {
    *words("a an the this that these those of to in on for with from by and or is are be it its some any your please"),
    *words("you me my our their as at into about following given below all each new"),
}


class NearDuplicates:
    """Finds prompts that are an earlier one except for a few words that carry no task of their own.

    "What is 3 + 4?" is near "What is 3 + 5?" as well: a number, a name or a noun that only one of them has makes them
    two tasks, so the words that differ must be fillers.
    """

    def __init__(self) -> None:
        self._index = SimilarityIndex(NEAR_DUPLICATE)
        self._before: list[tuple[int, Counter[str]]] = []

    def check(self, number: int, record: Record) -> Iterator[Found]:
        """At most one finding, which names the earlier record; this one is then an earlier one for the next."""
        text = f"{record.instruction}\n{record.input}"
        spelled = Counter(words(text))
        if found := self._index.nearest(text):
            earlier, other = self._before[found[0]]
            if _FILLERS.issuperset({*(spelled - other), *(other - spelled)}):
                near = f"ROUGE-L {found[1]:.2f} to record {earlier}"
                yield Found("near-duplicate", "instruction", f"{excerpt(text)} ({near})")
        self._index.add(text)
        self._before.append((number, spelled))


class EvaluationSet:
    """Texts of an evaluation set: every string of at least six words in its rows, whatever its key.

    Args:
        source: A file or whatever else records are read from; item numbers are those of its rows, from 1.

    Raises:
        DataError: It cannot be read, or holds no text of that length.
    """

    def __init__(self, source: str | Path | list[dict[str, Any]]) -> None:
        rows = open_source(source)
        self._item_of: list[int] = []
        self._prompts = SimilarityIndex(NEAR_EVALUATION)
        found_in: dict[str, list[int]] = {}
        for item, row in enumerate(rows.values, 1):
            for text in dict.fromkeys(texts_in(row)):
                spelled = words(text)
                if len(spelled) < _MIN_WORDS:
                    continue
                self._prompts.add(text)
                for gram in set(_grams(spelled)):
                    found_in.setdefault(gram, []).append(len(self._item_of))
                self._item_of.append(item)
        if not self._item_of:
            raise DataError(
                f"{rows.source}: no row of this evaluation set holds a text of {_MIN_WORDS} words or more, so "
                "nothing can be compared with it. Give the file with its questions."
            )
        # What many items begin with ("Answer the following ...") shows nothing about any of them.
        self._found_in = {
            gram: texts
            for gram, texts in found_in.items()
            if len({self._item_of[text] for text in texts}) <= _BOILERPLATE_ITEMS
        }
        self._gram_count = Counter(text for texts in self._found_in.values() for text in texts)

    def check(self, record: Record) -> Iterator[Found]:
        """At most one finding: the first text of the record that shares something, and with which item."""
        for field, text in zip(FIELDS, record, strict=True):
            shared = self._shared(words(text))
            if shared:
                yield Found("evaluation-overlap", field, f"{shared}: {excerpt(text)}")
                return
        # A short instruction with an input ("Rewrite this sentence.") is no task by itself.
        short = record.input and len(words(record.instruction)) < 2 * _MIN_WORDS
        for field, text in (("instruction", "" if short else record.instruction), ("input", record.input)):
            if len(words(text)) >= _MIN_WORDS and (near := self._prompts.nearest(text)):
                item = self._item_of[near[0]]
                yield Found("evaluation-overlap", field, f"ROUGE-L {near[1]:.2f} to item {item}: {excerpt(text)}")
                return

    def _shared(self, spelled: list[str]) -> str:
        runs: defaultdict[int, int] = defaultdict(int)  # text -> grams in a row, up to this place
        matched: defaultdict[int, set[str]] = defaultdict(set)
        for gram in _grams(spelled):
            texts = self._found_in.get(gram, ())
            runs = defaultdict(int, {text: runs[text] + 1 for text in texts})
            for text in texts:
                matched[text].add(gram)
                if runs[text] + _GRAM - 1 >= _IN_A_ROW:
                    return f"{_IN_A_ROW} words in a row of item {self._item_of[text]}"
        for text, grams in matched.items():
            if len(grams) >= _SHARE * self._gram_count[text]:
                share = len(grams) / self._gram_count[text]
                return f"{share:.0%} of the {_GRAM}-word sequences of a text of item {self._item_of[text]}"
        return ""


def _grams(spelled: list[str]) -> Iterator[str]:
    return (" ".join(spelled[place : place + _GRAM]) for place in range(len(spelled) - _GRAM + 1))
