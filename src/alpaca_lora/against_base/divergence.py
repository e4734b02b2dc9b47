"""Two models on the same tokens: how far apart their predictions are, and their losses.

With p the base's distribution of the next token and q the tuned model's:

    KL(p || q) = sum over the vocabulary of p (log p - log q)      nats, never below 0

This direction is how much more the tuned model loses on what the base itself would have written at that place: what
the base could say and the tuned model gave up counts in full. It is the divergence that predicts forgetting in arXiv
2509.04259. (The other direction says how surprised the base would be by the tuned model.)

In: packs, laid out as in training. Out: sums for each example. Cost: a forward pass each, and for the vocabulary a
chunk of rows at a time; both models' logits together are never more than the loss holds in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.packs import Pack, per_example
from ..data.plan import Planner
from ..data.step_dataset import collate
from ..errors import ModelError
from ..models.attention import always_compiled, takes_blocks
from ..models.geometry import logit_rows
from ..models.predictions import PlainHead, chunks, plain_head, predicting


class Sums(NamedTuple):
    """Sums over the supervised tokens of each record, shape (n,)."""

    tokens: np.ndarray
    kl: np.ndarray
    loss_before: np.ndarray
    loss_after: np.ndarray
    same_choice: np.ndarray
    """Tokens for which both models find the same one likeliest."""


@dataclass(frozen=True)
class Pair:
    """A tuned model and its base, both in evaluation mode and on one device.

    Args:
        tuned: The tuned model.
        base: Gives the base for a while: another model, or the tuned one with its adapter off.
    """

    tuned: Any
    base: Callable[[], AbstractContextManager[Any]]

    @classmethod
    def of_adapter(cls, model: Any) -> Pair:
        """A peft model and, with its adapter off, its base."""

        @contextmanager
        def base() -> Iterator[Any]:
            with model.disable_adapter():
                yield model

        return cls(model, base)

    @property
    def device(self) -> torch.device:
        """Where both are."""
        return next(self.tuned.parameters()).device

    @property
    def positions(self) -> int:
        """Tokens they read at most."""
        return getattr(self.tuned.config, "max_position_embeddings", None) or 2**20

    @cached_property
    def heads(self) -> tuple[PlainHead | None, PlainHead | None]:
        """The tuned model's head and the base's, where they are plain."""
        with self.base() as base:
            return plain_head(self.tuned), plain_head(base)

    @torch.no_grad()
    def compare(self, planner: Planner, members: np.ndarray) -> Sums:
        """Sums of each record of some examples.

        Args:
            planner: Lays them out; where memory is short, in smaller packs than it says.
            members: Indices of its examples, those of a record together.

        Raises:
            ModelError: a model's predictions are no numbers.
        """
        examples, planner = planner.examples, replace(planner, ranks=1)
        if None in self.heads:  # then a pack has all of its logits
            planner = replace(planner, max_tokens=min(planner.max_tokens, self._rows))
        sums = np.zeros((4, len(examples)))
        while True:
            try:
                packs = min(planner.packs_needed(members), len(members))
                with always_compiled() if takes_blocks(self.device) else nullcontext():
                    for part in planner.plan(members, packs).packs:
                        pack = planner.build(part)
                        sums[:, part] = per_example(self._values(pack), pack.rows, examples.supervised[part])
                break
            except torch.OutOfMemoryError:
                if planner.max_tokens <= int(examples.lengths[members].max()):
                    raise
                planner = replace(planner, max_tokens=planner.max_tokens // 2)
        if not np.isfinite(sums).all():
            raise ModelError("the model's predictions are no numbers (NaN or infinite): its weights are damaged.")
        numbers = examples.record_numbers[members]
        starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        each = np.concatenate([examples.supervised[None, members].astype(float), sums[:, members]])
        return Sums(*np.add.reduceat(each, starts, axis=1))

    def _values(self, pack: Pack) -> np.ndarray:
        """KL, the base's loss, the tuned model's, and whether their likeliest token is the same; shape (4, M)."""
        batch = {name: tensor.to(self.device) for name, tensor in collate([pack]).items()}
        tuned_head, base_head = self.heads
        tuned_MH, _ = predicting(self.tuned, batch, tuned_head)
        tuned_VH = tuned_head and tuned_head.linear.weight
        with self.base() as base:
            base_MH, _ = predicting(base, batch, base_head)
            base_VH = base_head and base_head.linear.weight  # here: an adapter may train rows of the head
        found = []
        for rows in chunks(len(pack.targets), self._rows):
            targets = batch["targets"][rows, None]
            log_q, log_p = _log_probs(tuned_MH[rows], tuned_VH), _log_probs(base_MH[rows], base_VH)
            losses = [-log.gather(1, targets)[:, 0] for log in (log_p, log_q)]
            same = (log_p.argmax(-1) == log_q.argmax(-1)).float()
            kl = log_q.neg_().add_(log_p).mul_(log_p.exp_()).sum(-1).clamp_min_(0)  # in place: two chunks, no more
            found.append(torch.stack([kl, *losses, same]))
            del log_q, log_p
        return torch.cat(found, dim=1).double().cpu().numpy()

    @cached_property
    def _rows(self) -> int:
        """Rows of a chunk: a quarter of the loss's, for two models, and the softmax beside the logits of each."""
        config = self.tuned.config
        return max(logit_rows(config.vocab_size, self.device.type == "cpu") // 4, 1)


def _log_probs(states: torch.Tensor, weight_VH: torch.Tensor | None) -> torch.Tensor:
    logits = states if weight_VH is None else (states @ weight_VH.T).float()
    return torch.log_softmax(logits, dim=-1)
