"""Records: rows read, checked and split.

loading.py        a source -> its records
record_set.py     what a source gave
split.py          training and validation records
reader.py         one row -> one record; turns.py and trees.py read conversations, preferences.py two answers
                  (dialogue_texts.py, where they are single texts; pair_prompts.py, where a prompt may be lost)
bad_rows.py       rows that are no records, in one message; row_kinds.py, conversation_kinds.py and preference_kinds.py
                  say what they are
unread_keys.py    keys that nobody reads; key_values.py looks at what they hold, key_rules.py says what would be lost
text_warnings.py  texts that are read as they stand, and told
"""

from ..record import FIELDS, Record
from ..sources import SEEDS
from .loading import MAX_DROPPED_PERCENT, load_records
from .record_set import RecordSet, shown_numbers
from .split import split_records

__all__ = [
    "FIELDS",
    "MAX_DROPPED_PERCENT",
    "SEEDS",
    "Record",
    "RecordSet",
    "load_records",
    "shown_numbers",
    "split_records",
]
