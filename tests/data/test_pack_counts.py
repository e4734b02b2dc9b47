"""Counts of packs, against counting by hand."""

from __future__ import annotations

from alpaca_lora.data.pack_counts import count_pack
from alpaca_lora.data.packs import build_pack
from alpaca_lora.data.tokens import Examples

# Two examples, prompts (1 2 3) and (1 2 4).
EXAMPLES = Examples.from_lists([[1, 2, 3, 8, 9], [1, 2, 4, 9]], [3, 3])


def test_tree():
    """1 2 | 3 8 | 4: the last token of an example is a target only."""
    found = count_pack(build_pack(EXAMPLES, [0, 1], "tree"))
    assert found == (5, 3, 1 + 2 + 3 + 4 + 3, 5, (2 + 2) + (2 + 1))


def test_packed_and_padded():
    assert count_pack(build_pack(EXAMPLES, [0, 1], "packed")) == (7, 3, 10 + 6, 7, 0)
    padded = count_pack(build_pack(EXAMPLES, [0, 1], "padded"))
    assert padded[:2] == (8, 3) and padded.row == 4 and padded.copied_keys == 0
