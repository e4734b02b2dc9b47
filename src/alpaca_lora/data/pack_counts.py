"""What a pack asks of the machine: tokens, logits, and pairs of tokens that see each other.

In: a pack. Out: counts, for planning; about 30 µs per example, the pack itself included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .packs import Pack


class PackCounts(NamedTuple):
    """Counts of one micro-batch."""

    tokens: int
    """Computed, padding included."""
    predicted: int
    """Tokens with a loss."""
    pairs: int
    """Sum over tokens of the tokens each one sees, itself included."""
    row: int
    """Length of a row; all tokens, unless padded."""
    copied_keys: int = 0
    """Tokens whose keys a CPU joins for branches: for each that has ancestors, theirs and its own."""


def count_pack(pack: Pack) -> PackCounts:
    """The counts of a pack."""
    tokens, predicted, row = pack.input_ids.size, len(pack.targets), pack.input_ids.shape[1]
    pairs = int(pack.position_ids.sum()) + tokens
    if pack.subtree_end is None:
        return PackCounts(tokens, predicted, pairs, row)
    ends, index = pack.subtree_end[0], np.arange(tokens)
    begins = np.append(True, (ends[:-1] <= index[1:]) | (ends[:-1] != ends[1:]))
    starts = np.flatnonzero(begins)
    ancestors, own = pack.position_ids[0, starts], np.diff(np.append(starts, tokens))
    return PackCounts(tokens, predicted, pairs, row, int((ancestors + own)[ancestors > 0].sum()))
