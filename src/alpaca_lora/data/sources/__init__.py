"""Sources: what `data` may be, and the rows in it.

open.py       any source -> rows            paths.py      lists, patterns, folders -> single sources (parts.py: whole?)
json_text.py  JSON, JSON Lines -> rows      tables.py     CSV, Parquet -> rows
hub.py        data sets of the hub -> rows  encodings.py  bytes -> text
rows.py       rows, and the place of each

What is no data, and what to do about it: file_types.py (files), json_advice.py (near-JSON), containers.py (objects that
hold the rows), commands.py (the commands that messages end with).
"""

from .open import SEEDS, open_source
from .rows import Rows

__all__ = ["SEEDS", "Rows", "open_source"]
