"""Texts that are read as they stand, and told: words for a missing value, and characters that no text has.

pandas writes a missing cell as `nan`, Excel as `#N/A`, databases as `NULL`, Python as `None`. In a file these are words
like others, and nothing is changed by a guess. Costs a few µs per record.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ...errors import counted
from ..record import FIELDS, Record
from ..sources.rows import name_numbers

# No answers, unless the prompt names them. "None" may be one.
_MISSING_ANSWERS = {"nan", "-nan", "null", "(null)", "\\n", "<na>", "nat", "#n/a"}
_MISSING_ANSWERS |= {"#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!"}  # Excel's errors
_MISSING = _MISSING_ANSWERS | {"none", "undefined", "na", "n/a"}
STRAY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
"""ASCII's control characters except tab and line ends, and the byte-order mark."""

_SHOWN = 3


def is_missing_word(record: Record, field: str) -> bool:
    """Whether a text is only what programs write for a missing value; as an answer, unless the prompt has that word.

    Example:
        >>> is_missing_word(Record("Sort these.", "NaN", "NaN"), "input")
        True
    """
    word = getattr(record, field).strip().lower()
    if field != "output" or word not in _MISSING_ANSWERS:
        return field != "output" and word in _MISSING
    prompt = f"{record.instruction}\n{record.input}".lower()
    return not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)


class TextWarnings:
    """Counts them over the records of a source."""

    def __init__(self) -> None:
        self._missing: dict[str, list[int]] = {field: [] for field in FIELDS}
        self._words: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
        self._stray: list[int] = []
        self._characters: Counter[str] = Counter()

    def see(self, number: int, record: Record) -> None:
        """Looks at the record of row `number` (from 1)."""
        found: list[str] = []
        for field, text in zip(FIELDS, record, strict=True):
            if 0 < len(text) < 20 and is_missing_word(record, field):
                self._missing[field].append(number)
                self._words[field][text.strip()] += 1
            if not text.replace("\n", " ").isprintable():  # most texts are; a search takes longer
                found += STRAY.findall(text)
        if found:
            self._stray.append(number)
            self._characters.update(found)

    def sentences(self, total: int, parts: Sequence[tuple[str, int]] = ()) -> list[str]:
        """What to tell of a source of so many rows (and parts), each with its remedy."""
        told = []
        for field, numbers in self._missing.items():
            if numbers:
                words = " or ".join(repr(word) for word, _ in self._words[field].most_common(_SHOWN))
                told.append(
                    f"{field!r} is only the word {words} in {_of(numbers, total, parts)}, as programs write a missing "
                    "value, and is read as that word. Leave a missing value empty, or write null; of a CSV file, "
                    "pandas.read_csv(path, dtype=str).to_json(new_path, orient='records') makes such a file."
                )
        if self._stray:
            shown = ", ".join(f"U+{ord(one):04X}" for one, _ in self._characters.most_common(_SHOWN))
            more = ", ..." if len(self._characters) > _SHOWN else ""
            told.append(
                f"Control characters ({shown}{more}) stand in {_of(self._stray, total, parts)}, and are read as they "
                "are. Remove them, or export the texts again; alpaca-lora lint lists the records."
            )
        return told


def _of(numbers: Sequence[int], total: int, parts: Sequence[tuple[str, int]]) -> str:
    return f"{len(numbers):,} of {counted(total, 'row')} (first record {name_numbers(numbers[:1], parts)})"
