"""Puts a tuned model and its base before the general texts, the probe, and validation records.

On the probe, what can be compared without reference answers is the first token: its distribution decides whether an
answer refuses, doubts or begins to tell, and in tuned models it moves most (arXiv 2406.05946). One forward pass gives
it, where answers would have to be generated.

Cost: two forward passes over about 5,000 tokens and 50 validation records.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data.plan import Planner
from ..data.tokens import Encoder, Examples
from ..runs.regressions import Change, KindChange, Mean, ProbeChange, Regressions, six_digits
from .divergence import Pair, Sums
from .texts import general_texts, probe_prompts, spread

VALIDATION_RECORDS = 50
"""Validation records at most."""


def measure(
    pair: Pair, encoder: Encoder, planned: Callable[[Examples], Planner], validation: Examples | None = None
) -> Regressions:
    """What training changed.

    Args:
        pair: The tuned model and its base.
        encoder: How the tuned model is asked.
        planned: Gives the planner that lays examples out.
        validation: Records to measure on, too; at most 50 of them are taken, evenly spread.

    Raises:
        ModelError: a model's predictions are no numbers.
        torch.OutOfMemoryError: memory is short for a single text.
    """
    general = general_texts(encoder, pair.positions)

    def compare(examples: Examples, members: np.ndarray | None = None) -> Sums:
        chosen = np.arange(len(examples)) if members is None else members
        return pair.compare(planned(examples), chosen)

    parts = zip(compare(general.texts), compare(general.questions), strict=True)
    sums = Sums(*(np.concatenate(part) for part in parts))
    first = compare(probe_prompts(encoder, pair.positions))
    return Regressions(
        general=_change(sums),
        kinds=_by_kind(sums, [*general.text_kinds, *general.question_kinds]),
        probe=ProbeChange(len(first.tokens), Mean.of(first.kl, first.tokens, least=0), int(first.same_choice.sum())),
        validation=_change(compare(validation, spread(validation, VALIDATION_RECORDS))) if validation else None,
    )


def _change(sums: Sums) -> Change:
    total = sums.tokens.sum()
    return Change(
        texts=len(sums.tokens),
        tokens=int(total),
        kl=Mean.of(sums.kl, sums.tokens, least=0),
        loss_before=six_digits(sums.loss_before.sum() / total),
        loss_change=Mean.of(sums.loss_after - sums.loss_before, sums.tokens),
        same_choice=six_digits(sums.same_choice.sum() / total),
    )


def _by_kind(sums: Sums, kinds: list[str]) -> dict[str, KindChange]:
    found = {}
    for kind in dict.fromkeys(kinds):
        its = np.asarray([one == kind for one in kinds])
        total, rise = sums.tokens[its].sum(), (sums.loss_after - sums.loss_before)[its].sum()
        found[kind] = KindChange(int(its.sum()), six_digits(sums.kl[its].sum() / total), six_digits(rise / total))
    return found
