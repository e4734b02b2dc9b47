"""Which verb an English instruction opens with, and what is done to: `Write a short poem about rain.` -> write, poem.

Words are tagged by TextBlob's lexicon, which is a part of its package. Some 2 ms per instruction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from ..errors import MissingDependencyError

_WORD = re.compile(r"[a-z][a-z-]*")
_DETERMINERS = {"DT", "CD", "PRP", "PRP$"}
_BEFORE_A_NOUN = (*_DETERMINERS, "PDT", "JJ", "JJR", "JJS", "RB", "VBN", "VBG", "POS")


def count_openings(instructions: Iterable[str]) -> Counter[tuple[str, str]]:
    """How often each (verb, object) opens an instruction; one that opens otherwise, as a question does, is left out.

    Raises:
        MissingDependencyError: textblob is not installed.
    """
    try:
        from textblob.en.inflect import singularize
        from textblob.en.taggers import PatternTagger
    except ImportError as error:
        raise MissingDependencyError(
            "Finding verbs and objects needs textblob: pip install 'alpaca-lora[data]'"
        ) from error
    tagger = PatternTagger()
    found: Counter[tuple[str, str]] = Counter()
    for instruction in instructions:
        opening = instruction.strip()[:200]  # long enough for a verb and its object
        if pair := _opening(tagger.tag(opening[:1].lower() + opening[1:]), singularize):
            found[pair] += 1
    return found


def _opening(tags: list[tuple[str, str]], singular: Callable[[str], str]) -> tuple[str, str] | None:
    """The verb and its object, in the singular, in tagged words.

    Example:
        >>> tags = [("list", "NN"), ("three", "CD"), ("large", "JJ"), ("city", "NN"), ("parks", "NNS"), ("in", "IN")]
        >>> _opening(tags, lambda noun: noun.removesuffix("s"))
        ('list', 'park')
        >>> _opening([("what", "WP"), ("is", "VBZ"), ("rain", "NN")], str) is None
        True
    """
    if len(tags) < 2:
        return None
    (verb, kind), (_, following) = tags[:2]
    # A word that is a noun as well ("list", "name") is the verb of a request if a determiner follows it.
    if kind not in ("VB", "VBP") and not (kind.startswith(("NN", "JJ")) and following in _DETERMINERS):
        return None
    noun = ""
    for word, kind in tags[1:]:
        if kind.startswith("NN"):
            noun = singular(word.lower()) if kind == "NNS" else word.lower()
        elif noun or kind not in _BEFORE_A_NOUN:
            break
    return (verb, noun) if _WORD.fullmatch(verb) and _WORD.fullmatch(noun) else None
