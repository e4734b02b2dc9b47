"""Data sets in several files, `train-00000-of-00002.parquet`: which of their parts are missing."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import DataError
from ..columns import list_keys
from .rows import path_of

# A part of a data set, `train-00000-of-00002.parquet`, also with the hash that datasets once wrote after it.
_PART = re.compile(
    r"(?P<name>.*?)(?<!\d)(?P<number>\d+)(?P<of>[-_. ]?of[-_. ]?)(?P<total>\d+)(?!\d)"
    r"(?P<hash>-[0-9a-f]{16}(?=\.))?(?P<end>.*)",
    re.IGNORECASE,
)
_SHOWN = 8


def missing_parts(found: Sequence[str | Path]) -> Iterator[str]:
    """What to say of data sets in parts, `train-00000-of-00002.parquet`, that are not whole."""
    sets: dict[tuple[str, str], list[tuple[int, str | Path]]] = {}
    totals: dict[tuple[str, str], tuple[int, int]] = {}  # with the digits of a number
    for name in found:
        path = path_of(name)
        match = _PART.fullmatch(path.name)
        # "2 of 2024" is a date: numbers of many parts are written at the same length.
        alike = match and len(match["total"]) in (1, 2, len(match["number"])) and len(match["total"]) < 7
        if match and alike and path.is_file() and int(match["number"]) <= int(match["total"]) > 1:
            end = ("*" if match["hash"] else "") + glob.escape(match["end"])
            pattern = f"{glob.escape(match['name'])}[0-9]*{match['of']}{match['total']}{end}"
            key = (os.path.dirname(str(name)), pattern)
            sets.setdefault(key, []).append((int(match["number"]), name))
            totals[key] = int(match["total"]), len(match["number"])
    for (folder, pattern), parts in sets.items():
        here, (total, digits) = {number for number, _ in parts}, totals[folder, pattern]
        named = {path_of(name).name for _, name in parts}
        beside = sorted({Path(other).name for other in glob.glob(str(path_of(glob.escape(folder)) / pattern))} - named)
        first = f"{parts[0][1]}: this is part of a data set in {total:,} parts, of which {len(parts):,}"
        if beside:
            every = os.path.join(glob.escape(folder), pattern)
            raise DataError(
                f"{first} {'is' if len(parts) == 1 else 'are'} named here, and others lie beside it: "
                f"{list_keys(beside)}. For all of them, pass the pattern {every!r}. To read some alone on purpose, "
                "copy them to other names."
            )
        if len(here) < total:
            start = 0 if 0 in here else 1 if total in here else None
            missing = [] if start is None else sorted({*range(start, start + total)} - here)
            shown = ", ".join(f"{number:0{digits}}" for number in missing[:_SHOWN])
            numbers = f" (missing: {shown}{', ...' if len(missing) > _SHOWN else ''})"
            yield (
                f"{first} {'is' if len(parts) == 1 else 'are'} there{numbers if missing else ''}. The records of the "
                "others are not read. Download or copy the other parts into this folder, and pass the folder or a "
                "pattern."
            )
