"""Which examples an optimizer step holds, and how they are split into packs.

In: `Examples` and (seed, epoch). Out: step plans. A step is exactly `batch_size` records, the next ones of a
permutation seeded by (seed, epoch); the layout never changes which. A conversation is one record of several examples,
which stay in one pack if they fit. So is a pair of answers, which always does, for its loss compares the two. An epoch
is floor(n / batch_size) steps: the remainder, another one each epoch, waits for the next. Every step has the same
number of packs, so that every rank does the same number of micro-batches:

    packs     0       1       2       3       4       5
    rank      0       1       0       1       0       1        (2 ranks, 3 micro-batches per step)

Cost: about 30 µs per example and epoch; deterministic on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mixture import Mixture
from .packs import Layout, Pack, build_pack, by_prefix, filled_size, shared_prefixes
from .tokens import Examples


@dataclass(frozen=True)
class StepPlan:
    """The packs of one optimizer step, for every rank and micro-batch."""

    packs: list[np.ndarray]
    """Indices of each pack's examples, in the layout's order; pack p is micro-batch p // ranks of rank p % ranks."""
    supervised_tokens: int
    computed_tokens: int
    """Tokens the model processes, padding included."""

    def packs_of(self, rank: int, ranks: int) -> list[np.ndarray]:
        """The packs of one rank, in the order of its micro-batches."""
        return self.packs[rank::ranks]


@dataclass(frozen=True)
class Planner:
    """Plans the steps of every epoch.

    Args:
        examples: All training examples.
        layout: How a pack is laid out.
        max_tokens: Maximum number of tokens per pack; an example longer than that is a pack of its own.
        ranks: Processes that share a step.
        multiple: `packed` and `tree` packs are filled up (packs.py, `filled_size`); padded ones are not.
        mixture: How much an epoch takes of each source, if they are mixed; else it takes every record once.
        whole_records: Never split a record's examples, even if they are more than `max_tokens`.
    """

    examples: Examples
    layout: Layout
    max_tokens: int
    ranks: int = 1
    multiple: int = 1
    mixture: Mixture | None = None
    whole_records: bool = False

    @property
    def epoch_records(self) -> int:
        """Records of an epoch, before it is cut to whole steps."""
        return self.mixture.records if self.mixture else self.examples.records

    def step_records(self, batch_size: int, seed: int, epoch: int) -> np.ndarray:
        """Places of an epoch's records among those of the examples, shape (steps, batch_size)."""
        whole = self.epoch_records // batch_size * batch_size
        shuffle = np.random.Generator(np.random.PCG64([seed, epoch]))
        if self.mixture:
            return shuffle.permutation(self.mixture.draw(whole, seed, epoch)).reshape(-1, batch_size)
        return shuffle.permutation(self.examples.records)[:whole].reshape(-1, batch_size)

    def step_members(self, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Indices of an epoch's examples, step by step."""
        return [self.examples.sequences_of(records) for records in self.step_records(batch_size, seed, epoch)]

    def packs_needed(self, members: np.ndarray) -> int:
        """Fewest packs, a multiple of `ranks`, that hold these examples within `max_tokens`."""
        return -(-len(self._row(members).cuts(self._limit)) // self.ranks) * self.ranks

    def plan(self, members: np.ndarray, packs: int) -> StepPlan:
        """Split examples into exactly `packs` packs, the costliest as cheap as can be.

        The examples are put in the layout's order (by prefix for `tree`, by length for `padded`), and the packs are
        runs of that order. `packs` is at limit the number of records.
        """
        row = self._row(members)
        starts = row.balanced(packs)
        ends = [*starts[1:], len(row.sizes)]
        tokens = [row.cost(a, b) for a, b in zip(starts, ends, strict=True)]
        return StepPlan(
            packs=[row.members[row.bounds[a] : row.bounds[b]] for a, b in zip(starts, ends, strict=True)],
            supervised_tokens=int(self.examples.supervised[members].sum()),
            computed_tokens=sum(filled_size(count, self._multiple) for count in tokens),
        )

    def build(self, members: np.ndarray) -> Pack:
        """The pack of these examples, laid out."""
        return build_pack(self.examples, members, self.layout, self.multiple)

    def records(self, members: np.ndarray) -> list[int]:
        """Record numbers of examples, in order."""
        return sorted(set(self.examples.record_numbers[members].tolist()))

    def divisible(self, members: np.ndarray) -> bool:
        """Whether smaller packs can hold these examples of one pack."""
        return len(self.records(members) if self.whole_records else members) > 1

    def _row(self, members: np.ndarray) -> _Row:
        sizes = self.examples.lengths[members] - 1  # the last token is a target only
        if self.layout == "padded":
            return self._rectangles(members, sizes)
        if self.layout == "tree":
            members = self._by_record_and_prefix(members)
            sizes = self.examples.lengths[members] - 1
        shared = shared_prefixes(self.examples, members) if self.layout == "tree" else np.zeros(len(members), np.int64)
        bounds = self._bounds(members, sizes, shared)
        own = np.add.reduceat(sizes - shared, bounds[:-1]) + shared[bounds[:-1]]
        return _Row(members, bounds, own.tolist(), shared[bounds[:-1]].tolist(), False)

    def _rectangles(self, members: np.ndarray, sizes: np.ndarray) -> _Row:
        if not self.whole_records:
            order = np.argsort(sizes, kind="stable")
            return _Row(members[order], list(range(len(members) + 1)), sizes[order].tolist(), [0] * len(members), True)
        numbers = self.examples.record_numbers[members]
        starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        longest = np.maximum.reduceat(sizes, starts)
        order = np.argsort(longest, kind="stable")
        records = np.split(members, starts[1:])
        bounds = np.cumsum([0, *(len(records[k]) for k in order)]).tolist()
        ordered = np.concatenate([records[k] for k in order])
        return _Row(ordered, bounds, longest[order].tolist(), [0] * len(starts), True)

    def _by_record_and_prefix(self, members: np.ndarray) -> np.ndarray:
        """Members by prefix; those of a record together, where its first one stands."""
        ordered = by_prefix(self.examples, members)
        _, first, record = np.unique(self.examples.record_numbers[ordered], return_index=True, return_inverse=True)
        return ordered[np.argsort(first[record], kind="stable")]

    def _bounds(self, members: np.ndarray, sizes: np.ndarray, shared: np.ndarray) -> list[int]:
        """Where what stays together begins, and the end: a record that fits into a pack, else each of its examples."""
        numbers = self.examples.record_numbers[members]
        starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        if len(starts) == len(members) or self.whole_records:
            return [*starts.tolist(), len(members)]
        bounds: list[int] = []
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(members)], strict=True):
            cost = int((sizes[start:end] - shared[start:end]).sum() + shared[start])
            bounds += [start] if cost <= self._limit else range(start, end)
        return [*bounds, len(members)]

    @property
    def _multiple(self) -> int:
        return 1 if self.layout == "padded" else self.multiple

    @property
    def _limit(self) -> int:
        """Maximum number of tokens per pack before it is filled up; filled packs stay within `max_tokens` too."""
        return max(self.max_tokens // self._multiple, 1) * self._multiple


@dataclass(frozen=True)
class _Row:
    """A step's examples in the order they are packed in: packs are runs of it.

    Args:
        members: The examples.
        bounds: Item i, which is never split, is `members[bounds[i]:bounds[i + 1]]`.
        sizes: Tokens of each item alone; of an item of a rectangle, of its longest row.
        shared: Tokens that each item shares with the one before it.
        padded: An item is some rows of a rectangle.
    """

    members: np.ndarray
    bounds: list[int]
    sizes: list[int]
    shared: list[int]
    padded: bool

    def cost(self, start: int, end: int) -> int:
        """Tokens of a pack of the items from `start` up to `end`."""
        if self.padded:
            return (self.bounds[end] - self.bounds[start]) * max(self.sizes[start:end])
        return sum(self.sizes[start:end]) - sum(self.shared[start + 1 : end])

    def cuts(self, limit: int) -> list[int]:
        """Starts of the fewest runs that cost at limit `limit` each: fill one after the other."""
        starts, tokens = [0], 0
        for k, (size, shared) in enumerate(zip(self.sizes, self.shared, strict=True)):
            # Padded rows are sorted by length, so the newest is the longest.
            alone = (self.bounds[k + 1] - self.bounds[k]) * size if self.padded else size
            grown = (self.bounds[k + 1] - self.bounds[starts[-1]]) * size if self.padded else tokens + size - shared
            if tokens and grown > limit:
                starts.append(k)
                grown = alone
            tokens = grown if tokens else alone
        return starts

    def balanced(self, packs: int) -> list[int]:
        """Starts of exactly `packs` runs whose costliest is as cheap as can be (bisection on its cost)."""
        low, high = 1, self.cost(0, len(self.sizes))  # runs of one example may cost more, so low starts below them
        while low < high:
            middle = (low + high) // 2
            if len(self.cuts(middle)) <= packs:
                high = middle
            else:
                low = middle + 1
        starts = self.cuts(low)
        while len(starts) < packs:  # fewer runs would do: halve the costliest that can be halved
            ends = [*starts[1:], len(self.sizes)]
            splittable = [(self.cost(a, b), a, b) for a, b in zip(starts, ends, strict=True) if b - a > 1]
            _, a, b = max(splittable)
            starts = sorted([*starts, (a + b) // 2])
        return starts
