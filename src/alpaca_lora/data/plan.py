"""Which examples an optimizer step holds, and how they are split into packs.

In: `Examples` and (seed, epoch). Out: step plans. A step is exactly `batch_size` examples, the next ones of a
permutation seeded by (seed, epoch); the layout never changes which. An epoch is floor(n / batch_size) steps: the
remainder, another one each epoch, waits for the next. Every step has the same number of packs, so that every rank
does the same number of micro-batches:

    packs     0       1       2       3       4       5
    rank      0       1       0       1       0       1        (2 ranks, 3 micro-batches per step)

Cost: about 30 µs an example and epoch; deterministic on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .packs import Layout, Pack, build_pack, prefix_rank, shared_prefixes
from .tokens import Examples


@dataclass(frozen=True)
class StepPlan:
    """The packs of one optimizer step, for every rank and micro-batch."""

    packs: list[np.ndarray]
    """Indices of each pack's examples; pack p is micro-batch p // ranks of rank p % ranks."""
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
        multiple: `packed` and `tree` packs are filled up to a multiple of this many tokens (padded ones are not).
    """

    examples: Examples
    layout: Layout
    max_tokens: int
    ranks: int = 1
    multiple: int = 1

    def step_members(self, batch_size: int, seed: int, epoch: int) -> np.ndarray:
        """Indices of an epoch's examples, shape (steps, batch_size)."""
        order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(self.examples))
        steps = len(order) // batch_size
        return order[: steps * batch_size].reshape(steps, batch_size)

    def packs_needed(self, members: np.ndarray) -> int:
        """Fewest packs, a multiple of `ranks`, that hold these examples within `max_tokens`."""
        most = max(self.max_tokens // self._multiple, 1) * self._multiple  # filled packs stay within max_tokens too
        return -(-len(self._row(members).cuts(most)) // self.ranks) * self.ranks

    def plan(self, members: np.ndarray, packs: int) -> StepPlan:
        """Split examples into exactly `packs` packs, the costliest as cheap as can be.

        The examples are put in the layout's order (by prefix for `tree`, by length for `padded`), and the packs are
        runs of that order.
        """
        row = self._row(members)
        starts = row.balanced(packs)
        ends = [*starts[1:], len(members)]
        tokens = [row.cost(a, b) for a, b in zip(starts, ends, strict=True)]
        return StepPlan(
            packs=[row.members[a:b] for a, b in zip(starts, ends, strict=True)],
            supervised_tokens=int(self.examples.supervised[members].sum()),
            computed_tokens=sum(-(-count // self._multiple) * self._multiple for count in tokens),
        )

    def build(self, members: np.ndarray) -> Pack:
        """The pack of these examples, laid out."""
        return build_pack(self.examples, members, self.layout, self.multiple)

    def records(self, members: np.ndarray) -> list[int]:
        """Record numbers of examples, in order."""
        return sorted(self.examples.record_numbers[members].tolist())

    def _row(self, members: np.ndarray) -> _Row:
        sizes = self.examples.lengths - 1  # the last token is a target only
        if self.layout == "padded":
            members = members[np.argsort(sizes[members], kind="stable")]
        elif self.layout == "tree":
            members = members[np.argsort(self._prefix_rank[members], kind="stable")]
        shared = shared_prefixes(self.examples, members) if self.layout == "tree" else np.zeros(len(members), np.int64)
        return _Row(members, sizes[members].tolist(), shared.tolist(), self.layout == "padded")

    @property
    def _multiple(self) -> int:
        return 1 if self.layout == "padded" else self.multiple

    @cached_property
    def _prefix_rank(self) -> np.ndarray:
        return prefix_rank(self.examples)


@dataclass(frozen=True)
class _Row:
    """A step's examples in the order they are packed in: packs are runs of it."""

    members: np.ndarray
    sizes: list[int]
    shared: list[int]
    padded: bool

    def cost(self, start: int, end: int) -> int:
        """Tokens of a pack of the members from `start` up to `end`."""
        if self.padded:
            return (end - start) * max(self.sizes[start:end])
        return sum(self.sizes[start:end]) - sum(self.shared[start + 1 : end])

    def cuts(self, most: int) -> list[int]:
        """Starts of the fewest runs that cost at most `most` each: fill one after the other."""
        starts, tokens = [0], 0
        for k, (size, shared) in enumerate(zip(self.sizes, self.shared, strict=True)):
            # Padded rows are sorted by length, so the newest is the longest.
            grown = (k + 1 - starts[-1]) * size if self.padded else tokens + size - shared
            if tokens and grown > most:
                starts.append(k)
                grown = size
            tokens = grown if tokens else size
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
