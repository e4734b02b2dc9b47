"""The difference of two runs, or of two groups of runs, and the sentence that it supports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, counted
from ..runs.paired_interval import FEWEST, Interval, Ratio, ratio_interval
from .groups import Group
from .run_losses import arrays_of, common_records
from .seeds import SeedLosses, difference_by_seed, difference_of_groups

LEVEL = 0.95
_Z = 1.959964 + 0.841621
"""Standard errors that a difference is seen at 80% of the time, two-sided at 5%: z_0.975 + z_0.8."""
_MANY = 1_000_000


@dataclass(frozen=True)
class Difference:
    """Validation loss of `b` less that of `a`.

    Attributes:
        a: The first side's name.
        b: The other's.
        mean: The difference; below 0 where `b` is better.
        low: Lower end of its interval.
        high: Upper end.
        level: The interval's confidence level: 0.95, or more where several comparisons share 5% (Holm).
        records: Validation records it is made of.
        left_out: Records that only some of the runs have.
        seeds: Runs a side, by the side; (1, 1) where two models are compared and no settings.
        paired_seeds: Whether both sides have the same seeds, so that each seed is compared with itself.
        from_seeds: Share of the variance that is of seeds; 0 for two models.
        needed: Records that would show a difference of this size 80% of the time; with several seeds, how many times as
            many seeds and records.
        comparisons: Number of comparisons that were made together.
        unit: Of the losses: nats per token, or per pair.
    """

    a: str
    b: str
    mean: float
    low: float
    high: float
    level: float
    records: int
    left_out: int
    seeds: tuple[int, int]
    paired_seeds: bool
    from_seeds: float
    needed: float
    comparisons: int = 1
    unit: str = "nats per token"

    @property
    def detected(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """What the interval supports, in one sentence."""
        basis = counted(self.records, "record")
        if max(self.seeds) > 1:
            one, other = self.seeds
            basis += f", {one} seeds a side" if one == other else f", {one} and {other} seeds"
        if not math.isfinite(self.high):
            return (
                f"nothing can be told of {self.a} and {self.b}: {basis} are too few for an interval; {FEWEST} or more "
                "are needed."
            )
        text = _numbers(self.high - self.low)
        level = f"{100 * self.level:.3g}% interval"
        if self.detected:
            better, worse = (self.b, self.a) if self.mean < 0 else (self.a, self.b)
            ends = sorted((abs(self.low), abs(self.high)))
            return (
                f"{better}'s validation loss is lower than {worse}'s by {text(abs(self.mean))} {self.unit} "
                f"({level} {text(ends[0])} to {text(ends[1])}, {basis})."
            )
        found = (
            f"no difference detected between {self.a} and {self.b} ({self.b} less {self.a}: {text(self.mean)} "
            f"{self.unit}, {level} {text(self.low)} to {text(self.high)}, {basis})"
        )
        if not self.needed:
            return f"{found}; they are the same."
        things = "times as many seeds and records" if max(self.seeds) > 1 else "records"
        count = "more than a million" if self.needed > _MANY else f"about {_two_digits(self.needed):,}"
        return f"{found}; {count} {things} would be needed to see a difference of this size."


def difference(a: Group, b: Group, command: str) -> Callable[[float], Difference]:
    """The difference of two groups, at any confidence level.

    Two runs: the records are what was drawn, and it is about these two models. Several runs a side: seeds were drawn,
    too, and it is about the settings (seeds.py).

    Raises:
        ConfigError: no records in common, other tokens, or one run against several.
    """
    sizes = (len(a.runs), len(b.runs))
    if min(sizes) == 1 and max(sizes) > 1:
        one, many = (a, b) if sizes[0] == 1 else (b, a)
        raise ConfigError(
            f"{command}: {one.name} is one run, and {many.name} has {len(many.runs)} seeds. Train {one.name} with "
            "other seeds too, to compare settings; or give one run of each, to compare two models."
        )
    paired = set(a.seeds) == set(b.seeds) and sizes[0] > 2  # two differences tell too little of how seeds differ
    if sizes == (1, 1):
        names = common_records([*a.runs, *b.runs], command)
        (one, other), tokens = arrays_of([*a.runs, *b.runs], names)
        values, counts = other - one, tokens[0]
        ratio = Ratio.of(values, counts)

        def interval(level: float) -> Interval:
            return ratio_interval(values, counts, level)

        error, share, unit = ratio.error, 0.0, len(names)
    else:
        if paired:
            names, differences = _by_seed(a, b, command)
            found = difference_by_seed(differences)
        else:
            names = common_records([*a.runs, *b.runs], command)
            found = difference_of_groups(*(SeedLosses(*arrays_of(group.runs, names)) for group in (a, b)))
        interval, error, share, unit = found.interval, found.error, found.from_seeds, 1
    every = {name for group in (a, b) for run in group.runs for name in run.losses}

    def at(level: float) -> Difference:
        mean, low, high = interval(level)
        needed = unit * (_Z * error / mean) ** 2 if mean else 0.0
        return Difference(
            *(a.name, b.name, mean, low, high, level, len(names), len(every) - len(names), sizes, paired, share),
            needed=max(needed, unit + 1) if error else 0.0,
            unit=a.runs[0].unit,
        )

    return at


def _by_seed(a: Group, b: Group, command: str) -> tuple[list[str], SeedLosses]:
    """Each seed's differences by record; of each pair the records that both have."""
    others = {run.run_file.seed: run for run in b.runs}
    pairs = [(run, others[run.run_file.seed]) for run in a.runs]
    common = [set(common_records(pair, command)) for pair in pairs]
    names = list(dict.fromkeys(name for run in a.runs for name in run.losses if any(name in one for one in common)))
    has = np.array([[name in one for name in names] for one in common])
    (before, tokens), (after, _) = (arrays_of([pair[side] for pair in pairs], names) for side in (0, 1))
    return names, SeedLosses((after - before) * has, tokens * has)


def holm(pairs: list[Callable[[float], Difference]], level: float = LEVEL) -> list[Difference]:
    """Several comparisons that are wrong about none of them but in 5% of cases (Holm 1979).

    Step down: of m undecided comparisons, those whose interval at 1 - 5% / m leaves out 0 are decided, and what is left
    is tried with the smaller m. Each is shown with the interval that decided it, so that verdict and interval agree.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    found: dict[int, Difference] = {}
    left = list(range(len(pairs)))
    while left:
        tried = {place: pairs[place](1 - (1 - level) / len(left)) for place in left}
        decided = [place for place in left if tried[place].detected]
        found |= tried if not decided else {place: tried[place] for place in decided}
        left = [place for place in left if place not in found]
    return [found[place] for place in range(len(pairs))]


def _numbers(width: float) -> Callable[[float], str]:
    """Writes numbers with two digits of an interval's width, at least three decimals."""
    decimals = max(3, 1 - math.floor(math.log10(width))) if width else 3
    return lambda value: f"{value:.{min(decimals, 8)}f}"


def _two_digits(number: float) -> int:
    """783.2 -> 790, always up."""
    unit = 10 ** max(len(str(math.ceil(number))) - 2, 0)
    return math.ceil(number / unit) * unit
