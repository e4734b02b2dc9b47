"""What training changed beside its task, as a run file keeps it; measured by the room `against_base`.

All figures are in nats per token, tuned model against base, on the same texts:

    KL             sum over the vocabulary of p log (p / q), p the base's next-token distribution, q the tuned model's
    loss change    the tuned model's loss less the base's; above 0 the tuned model predicts the text worse
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .paired_interval import ratio_interval

LIMIT = 0.25
"""KL divergence from the base on general texts, in nats per token, above which a run is warned of. Chosen after eight
runs of one model, which docs/regressions.md shows. (The loss there is no measure: it fell while the model changed.)"""
ROWS = ("texts", "tokens", "KL(base || tuned)", "loss of the base", "change of the loss", "same likeliest token")
"""What the columns of `Regressions.rows` hold."""


@dataclass(frozen=True)
class Mean:
    """A mean per token, in nats, and its 95% interval over texts; without ends where the texts are too few for one."""

    mean: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends or none")

    @classmethod
    def of(cls, values: np.ndarray, tokens: np.ndarray, least: float = -np.inf) -> Mean:
        """Of sums over texts (n,), and their tokens (n,); texts are clusters (paired_interval.py).

        Args:
            values: The sums.
            tokens: The tokens.
            least: What the mean cannot be below: 0 for a divergence.
        """
        mean, low, high = ratio_interval(values, tokens)
        ends = (six_digits(max(low, least)), six_digits(high)) if np.isfinite([low, high]).all() else ()
        return cls(six_digits(mean), *ends)

    def shown(self, sign: str = "") -> str:
        """`0.0123 (0.0101 to 0.0146)`; with `sign="+"` each number has its sign."""
        ends = "" if self.low is None else f" ({self.low:{sign}.3g} to {self.high:{sign}.3g})"
        return f"{self.mean:{sign}.3g}{ends}"


@dataclass(frozen=True)
class Change:
    """What changed on a set of texts."""

    texts: int
    tokens: int
    """Predicted."""
    kl: Mean
    loss_before: float
    """The base's."""
    loss_change: Mean
    same_choice: float
    """Share of tokens for which both models find the same one likeliest."""


@dataclass(frozen=True)
class KindChange:
    """What changed on the general texts of one kind."""

    texts: int
    kl: float
    loss_change: float


@dataclass(frozen=True)
class ProbeChange:
    """What changed in the first token of the answers to the probe's questions."""

    questions: int
    kl: Mean
    same_choice: int
    """Questions whose likeliest first token is the same."""


@dataclass(frozen=True)
class Regressions:
    """What training changed: on packaged general texts, on the probe, and on the validation records."""

    general: Change
    kinds: dict[str, KindChange]
    """The same texts by kind."""
    probe: ProbeChange
    validation: Change | None = None
    """On validation records, evenly spread ones where there are many; None where there are none."""

    @property
    def warning(self) -> str:
        """A sentence where the KL divergence on general texts is above `LIMIT`; else ""."""
        general = self.general
        if general.kl.mean <= LIMIT:
            return ""
        worst = ", ".join(f"{kind} {one.loss_change:+.2f}" for kind, one in self._by_rise()[:3])
        return (
            f"training moved the model far from its base: on {general.texts} general texts the KL divergence is "
            f"{general.kl.shown()} nats per token, and {LIMIT:g} is the limit; {1 - general.same_choice:.0%} of the "
            f"likeliest tokens are others, and the loss there changed by {general.loss_change.shown('+')}, most in "
            f"{worst}. Lower learning_rate, take fewer steps, or mix general records into the data."
        )

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A row for each set of texts: its name, then what `ROWS` says."""
        for name, one in (("general texts", self.general), ("validation records", self.validation)):
            if one is not None:
                losses = f"{one.loss_before:.3f}", one.loss_change.shown("+")
                yield name, f"{one.texts}", f"{one.tokens:,}", one.kl.shown(), *losses, f"{one.same_choice:.1%}"
        first = self.probe
        same = f"{first.same_choice} of {first.questions}"
        yield "probe, first token", f"{first.questions}", f"{first.questions}", first.kl.shown(), "", "", same

    def by_kind(self) -> str:
        """The change of loss on each kind of general texts, the worst first."""
        return ", ".join(f"{kind} {one.loss_change:+.3f}" for kind, one in self._by_rise())

    def _by_rise(self) -> list[tuple[str, KindChange]]:
        return sorted(self.kinds.items(), key=lambda entry: -entry[1].loss_change)

    def __str__(self) -> str:
        table = [("", *ROWS), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
        head = "Tuned model against its base, in nats per token, with 95% intervals over texts:"
        lines = ["  ".join(row).rstrip() for row in rows]
        return "\n".join([head, *lines, f"Change of the loss by kind: {self.by_kind()}."])


def six_digits(value: float) -> float:
    """The same in six significant digits."""
    return float(f"{value:.6g}")
