"""Whether raters of the same answers agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .optional_packages import load_package
from .votes import Vote


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha.

    Attributes:
        alpha: 1 is perfect agreement, 0 that of chance, below 0 systematic disagreement; None if undefined.
        items: Comparisons (an instruction and a pair of models) that two raters or more voted on.
        raters: Raters who took part in them.
        note: Why `alpha` is None; "" otherwise.
    """

    alpha: float | None
    items: int
    raters: int
    note: str = ""


def agreement(votes: Sequence[Vote]) -> Agreement:
    """Krippendorff's alpha over raters, of votes on any number of models.

        alpha = 1 - D_o / D_e

    D_o is the mean squared difference of two raters' votes on the same comparison, D_e that of two votes drawn from
    all. Votes are ordinal: loss < tie < win (or probabilities), so a win against a tie differs less than a win against
    a loss. Comparisons with one rater are left out; not every rater need have rated everything. A rater who voted twice
    on one comparison counts once, with the mean.

    Krippendorff draws conclusions only from 0.667 up; taste in answers rarely reaches it.

    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability; the `krippendorff` package.
    """
    cells: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for vote in votes:
        told = vote if vote.a < vote.b else vote.turned()  # a side that does not depend on the rater
        cells.setdefault((told.item, told.a, told.b), {}).setdefault(told.rater, []).append(told.preference)
    cells = {unit: given for unit, given in cells.items() if len(given) > 1}
    raters = sorted({rater for given in cells.values() for rater in given})
    if not cells:
        return Agreement(None, 0, 0, "no comparison was rated by two raters, so agreement is undefined")
    matrix = np.full((len(raters), len(cells)), np.nan)
    for column, given in enumerate(cells.values()):
        for rater, values in given.items():
            matrix[raters.index(rater), column] = round(float(np.mean(values)), 9)  # 1 - 0.8 is 0.2 too
    if len(np.unique(matrix[~np.isnan(matrix)])) == 1:
        note = "all raters gave the same vote on everything, so chance agreement is total and alpha undefined"
        return Agreement(None, len(cells), len(raters), note)
    alpha = load_package("krippendorff").alpha(reliability_data=matrix, level_of_measurement="ordinal")
    return Agreement(float(alpha), len(cells), len(raters))
