"""AlpacaEval's leaderboard.csv: each model's win rate against one baseline, which the file does not name.

,win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,...,length_controlled_winrate
alpaca-7b,26.459627329192543,1.535711469748,205,584,16,805,...,26.29495433067113
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..data.sources import open_source
from ..errors import DataError
from .statistics.intervals import Interval, interval_at

_NEEDED = ("win_rate", "standard_error", "n_total")


class Standing(NamedTuple):
    """One model's place; rates are from 0 to 1, and `controlled` is None where the file has none."""

    model: str
    rate: float
    standard_error: float
    votes: int
    controlled: float | None

    @property
    def interval(self) -> Interval:
        """Of the win rate, 95%."""
        return interval_at(self.rate, self.standard_error**2, self.votes)

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Win rate with its interval, its standard error, the length-controlled win rate, and the votes, in words."""
        low, high = self.interval
        rate = f"{self.rate:.2%} ({low:.1%} to {high:.1%})"
        controlled = "" if self.controlled is None else f"{self.controlled:.2%}"
        return rate, f"{100 * self.standard_error:.2f}", controlled, f"{self.votes:,}"


def read_leaderboard(path: str | Path) -> list[Standing]:
    """The models of a leaderboard, the highest win rate first; none if the file is no leaderboard.

    Raises:
        DataError: the file cannot be read, or a row cannot be used; the message names file, record and line.
    """
    rows = open_source(Path(path))
    if not rows.values or not isinstance(rows.values[0], dict) or not {*_NEEDED, ""} <= rows.values[0].keys():
        return []
    found = []
    for index, row in enumerate(rows.values):
        try:
            rate, error, total = (float(row[key]) for key in _NEEDED)
            if not (0 <= rate <= 100 and 0 <= error <= 100 and total >= 1):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(
                f"{rows.where(index)}: win_rate and standard_error are percentages, and n_total a count. Correct it."
            ) from None
        found.append(Standing(row[""], rate / 100, error / 100, int(total), _share(row)))
    return sorted(found, key=lambda one: -one.rate)


def _share(row: dict[str, Any]) -> float | None:
    try:
        return float(row["length_controlled_winrate"]) / 100
    except (KeyError, TypeError, ValueError):  # an empty cell
        return None
