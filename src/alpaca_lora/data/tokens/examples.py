"""Examples: the token ids of records, in a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np


class Example(NamedTuple):
    """Token ids of one sequence; `ids[prompt_len:]` is the response and ends in EOS."""

    ids: np.ndarray
    prompt_len: int


@dataclass(frozen=True)
class Examples:
    """Sequences in one array of ids, so that a million of them are a few arrays and no Python objects.

    A record gives one sequence, a conversation one for each turn that is trained, a preference two, the better answer
    first. Those of a record stand together, and one that begins the next one is stored inside it:

        ids     s u a $ u a $ u a $
                '-----'               starts[0], ends[0]
                '-----------'         starts[1], ends[1]
                '-----------------'   starts[2], ends[2]
    """

    ids: np.ndarray
    """int32, shape (stored tokens,)."""
    starts: np.ndarray
    """int64, shape (n,): sequence i is `ids[starts[i]:ends[i]]`."""
    ends: np.ndarray
    """int64, shape (n,)."""
    prompt_lens: np.ndarray
    """int32, shape (n,): tokens of each prompt."""
    record_numbers: np.ndarray
    """int32, shape (n,): 1-based number of each sequence's record in its source."""
    truncated: list[int] = field(default_factory=list)
    """Record numbers with a response that was cut to `cutoff_len`."""
    too_long: list[int] = field(default_factory=list)
    """Record numbers with a sequence that was dropped because its prompt alone reaches `cutoff_len`; a conversation may
    have kept its earlier turns (`shortened`)."""
    special_text: list[int] = field(default_factory=list)
    """Record numbers that contain the text of a special token (encoded as text)."""
    same: list[int] = field(default_factory=list)
    """Record numbers of preferences that were dropped because both answers have the same ids, cut or as the tokenizer
    writes them."""
    changed_text: list[int] = field(default_factory=list)
    """Record numbers with text that the tokenizer does not give back as it was."""
    train_on_inputs: bool = False
    """Supervise the prompt too."""

    def __len__(self) -> int:
        return len(self.prompt_lens)

    @property
    def dropped(self) -> list[int]:
        """Record numbers of which nothing is left because every prompt reaches `cutoff_len`."""
        return sorted({*self.too_long} - {*self.record_numbers.tolist()}) if self.too_long else []

    @property
    def shortened(self) -> list[int]:
        """Record numbers of conversations that lost turns whose prompt reaches `cutoff_len`, and kept others."""
        return sorted({*self.too_long} & {*self.record_numbers.tolist()}) if self.too_long else []

    def __getitem__(self, index: int) -> Example:
        return Example(self.ids[self.starts[index] : self.ends[index]], int(self.prompt_lens[index]))

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64, shape (n,): tokens of each sequence, EOS included."""
        return self.ends - self.starts

    @cached_property
    def record_starts(self) -> np.ndarray:
        """int64, shape (records + 1,): record r has the sequences `record_starts[r]` up to `record_starts[r + 1]`."""
        changes = np.flatnonzero(np.diff(self.record_numbers)) + 1
        return np.concatenate([[0], changes, [len(self)]]).astype(np.int64)

    @property
    def records(self) -> int:
        """Number of records that gave at least one sequence."""
        return len(self.record_starts) - 1

    def sequences_of(self, records: np.ndarray) -> np.ndarray:
        """Indices of the sequences of records, given by their places among these, in order."""
        starts, ends = self.record_starts[records], self.record_starts[records + 1]
        if len(self) == self.records:
            return starts
        return np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])

    @cached_property
    def supervised_from(self) -> np.ndarray:
        """int64, shape (n,): index of the first supervised token. The very first token has nothing to predict it."""
        return np.ones(len(self), np.int64) if self.train_on_inputs else self.prompt_lens.astype(np.int64)

    @cached_property
    def supervised(self) -> np.ndarray:
        """int64, shape (n,): supervised tokens of each sequence."""
        return self.lengths - self.supervised_from

    @classmethod
    def from_lists(cls, ids: Sequence[Sequence[int]], prompt_lens: Sequence[int], **rest: Any) -> Examples:
        """Store lists of token ids; each is a record of its own, numbered from 1, unless `record_numbers` is given."""
        rest.setdefault("record_numbers", np.arange(1, len(ids) + 1, dtype=np.int32))
        numbers = rest["record_numbers"]
        kept: list[Sequence[int]] = []
        starts, ends = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
        end = 0
        for index, row in enumerate(ids):
            before = kept[-1] if index and numbers[index] == numbers[index - 1] else None
            if before is not None and len(before) <= len(row) and list(row[: len(before)]) == list(before):
                starts[index] = starts[index - 1]
                kept[-1] = row
            else:
                starts[index] = end
                kept.append(row)
            end = ends[index] = starts[index] + len(row)
        flat = np.concatenate([np.asarray(row, np.int32) for row in kept]) if kept else np.zeros(0, np.int32)
        return cls(flat, starts, ends, np.asarray(prompt_lens, np.int32), **rest)
