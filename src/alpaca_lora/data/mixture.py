"""Sources mixed by weight or count: how many records an epoch takes of each, and which.

An epoch's records are shared out among the sources by largest remainder, so that each gets what was asked for within
one record. Of a source it takes those that were seen least often so far, in an order seeded by (seed, source, epoch):
none twice as long as another has not been seen, and over the epochs all equally often, give or take once. Which records
an epoch has depends on the seed and the epoch alone, so that a run goes on after a kill as if there had been none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError, DataError, counted
from .records import RecordSet
from .tokens import Examples


class Mixture:
    """What an epoch takes of each source.

    Args:
        names: Each source, for messages.
        places: For each source the places of its records among those of the examples, int64, shape (n,).
        shares: How much of an epoch each source is, relative to the others.
        records: Records of an epoch before it is cut to whole steps.
    """

    def __init__(
        self, names: Sequence[str], places: Sequence[np.ndarray], shares: Sequence[float], records: int
    ) -> None:
        self.names, self.places, self.shares, self.records = list(names), list(places), list(shares), records
        self._walk = (-1, -1, -1)
        self._seen: list[np.ndarray] = []
        self._drawn: list[np.ndarray] = []

    @classmethod
    def of(cls, records: RecordSet, examples: Examples) -> Mixture | None:
        """The mixture that a data set's sources ask for; None if they are read one after the other.

        Raises:
            ConfigError: Some of the sources have a weight and others none, or a count.
            DataError: A source has no record that is trained on.
        """
        asked = list(dict.fromkeys(records.entries))
        by_count, by_weight = (any(getattr(one, name) is not None for one in asked) for name in ("count", "weight"))
        if not (by_count or by_weight):
            return None
        bare = [str(one.path) for one in asked if one.weight is None]
        if by_weight and bare:
            raise ConfigError(
                f"data: {', '.join(bare)}: there is no weight, and other sources have one. Give all of them a "
                "weight, or a count."
            )
        numbers = examples.record_numbers[examples.record_starts[:-1]]
        ends = np.cumsum([count for _, count in records.parts] or [max(numbers)])
        owners = np.array([asked.index(one) for one in records.entries])
        owner_of = owners[np.searchsorted(ends, numbers, side="left")]
        places = [np.flatnonzero(owner_of == place) for place in range(len(asked))]
        names = [str(one.path) for one in asked]
        if empty := [name for name, found in zip(names, places, strict=True) if not len(found)]:
            raise DataError(
                f"{', '.join(empty)}: no record of it is left to train on. Lower val_set_size, raise cutoff_len, or "
                "leave the source out."
            )
        if by_weight:
            return cls(names, places, [one.weight or 0 for one in asked], examples.records)
        counts = [len(found) if one.count is None else one.count for one, found in zip(asked, places, strict=True)]
        return cls(names, places, counts, sum(counts))

    def counts(self, records: int) -> list[int]:
        """Records that an epoch of so many takes of each source.

        Example:
            >>> Mixture(["a", "b"], [np.arange(90), np.arange(90, 100)], [3, 1], 100).counts(98)
            [74, 24]
        """
        exact = np.array(self.shares) / sum(self.shares) * records
        found = np.floor(exact).astype(int)
        for source in np.argsort(found - exact, kind="stable")[: records - found.sum()]:
            found[source] += 1
        return found.tolist()

    def draw(self, records: int, seed: int, epoch: int) -> np.ndarray:
        """Places of the records of an epoch of so many, source after source, shape (records,)."""
        counts = self.counts(records)
        if self._walk[:2] != (records, seed) or epoch < self._walk[2]:
            self._walk = (records, seed, -1)
            self._seen = [np.zeros(len(found), np.int64) for found in self.places]
        for done in range(self._walk[2] + 1, epoch + 1):
            self._drawn = [self._of_source(source, count, seed, done) for source, count in enumerate(counts)]
        self._walk = (records, seed, epoch)
        return np.concatenate(self._drawn)

    def _of_source(self, source: int, count: int, seed: int, epoch: int) -> np.ndarray:
        places, seen = self.places[source], self._seen[source]
        order = np.random.Generator(np.random.PCG64([seed, epoch, source])).permutation(len(places))
        passes, rest = divmod(count, len(places))
        least = order[np.argsort(seen[order], kind="stable")][:rest]
        seen[least] += 1
        return np.concatenate([np.tile(places, passes), places[least]])

    def describe(self, records: int | None = None) -> dict[str, str]:
        """Each source with what an epoch takes of it, before it is cut to whole steps or after (`records`)."""
        return {
            name: f"{counted(count, 'record')} an epoch, of {len(places):,}"
            for name, count, places in zip(self.names, self.counts(records or self.records), self.places, strict=True)
        }
