"""The training step on pairs: `AlpacaTrainer` with another loss (preference_loss.py).

A pair's two answers always stand in one pack, where their prompt, and whatever else they begin with alike, is computed
once. Answer 2k of the examples is the chosen one of pair k, answer 2k + 1 the rejected one.

The reference of DPO is the model before its first step: the base, or the adapter that training goes on from. Its
log-probabilities are computed before that step, once for each answer that the run will see, by a forward pass without
gradients. There is no second model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ..config import FinetuneConfig
from ..data.plan import Planner, StepPlan
from ..data.step_dataset import PackDataset
from ..errors import TrainingError
from .callbacks import NothingLeft
from .loss import target_losses
from .out_of_memory import MicroBatch
from .preference_loss import AnswerPairs, PreferenceLoss
from .reference import read_reference, write_reference
from .trainer import AlpacaTrainer

# Shapes: P pairs, M targets of a pack.


def trainer_for(config: FinetuneConfig, told: Callable[[], bool]) -> Callable[..., AlpacaTrainer]:
    """Makes the trainer of a run's objective; `told` as for `PreferenceTrainer`."""
    preference = PreferenceLoss.wanted(config)
    if preference is None:
        return AlpacaTrainer
    return partial(PreferenceTrainer, preference=preference, run_dir=Path(config.output_dir), told=told)


class PreferenceTrainer(AlpacaTrainer):
    """Trains on packs of pairs.

    Args:
        preference: The objective.
        run_dir: Where the reference is kept.
        told: Whether the run is to stop; asked between the packs of the reference.
        **kwargs: As for `AlpacaTrainer`.
    """

    def __init__(
        self, *, preference: PreferenceLoss, run_dir: Path, told: Callable[[], bool] = lambda: False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.preference, self.run_dir, self.told = preference, run_dir, told
        self.reference: dict[str, np.ndarray] = {}
        pairs = len(self.train_dataset.planner.examples) // 2
        self.rewards_P2 = torch.zeros(pairs, 2, device=self.args.device)  # of each pair, when it was last trained on
        if preference.has_reference:
            self.add_callback(_ReferenceFirst(self))

    def find_reference(self) -> None:
        """Compute the reference before the first step, or read what was computed then."""
        planners = {"train": self.train_dataset.planner}
        if self.eval_dataset is not None:
            planners["validation"] = self.eval_dataset.planner
        if self.state.global_step > 0:
            self.reference = read_reference(self.run_dir, {name: len(of.examples) for name, of in planners.items()})
            return
        self.reference = {name: self._log_probs(planner, name == "train") for name, planner in planners.items()}
        if self.is_world_process_zero():
            write_reference(self.run_dir, self.reference)

    def _log_probs(self, planner: Planner, training: bool) -> np.ndarray:
        """Log-probabilities of answers, float32 (n,); NaN of those that the run's steps do not hold."""
        members = self.train_dataset.members() if training else np.arange(len(planner.examples))
        packs = PackDataset(planner, members)
        self.model.eval()
        _, losses = self._losses(self.model, self._until_told(self.get_eval_dataloader(packs)), packs)
        self.model.train(training)
        found = np.full(len(losses), np.nan, np.float32)
        found[members] = -np.asarray(self._over_processes(losses), np.float32)[members]
        if not np.isfinite(found[members]).all():
            first = members[~np.isfinite(found[members])][:1]
            raise TrainingError(
                f"the model has no likelihood for the answers of record {planner.records(first)[0]}: its logits are "
                "NaN or Inf before any training. Look at the base model's weights, or load it with dtype=float32."
            )
        return found

    def _until_told(self, loader: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """A pass over a large set takes long, and there is nothing to save yet."""
        for pack in loader:
            if self.told():
                raise NothingLeft
            yield pack

    def _reference_of(self, planner: Planner, members: np.ndarray) -> np.ndarray:
        """The reference of some examples; zeros if the objective has none."""
        if not self.preference.has_reference:
            return np.zeros(len(members), np.float32)
        training = planner.examples is self.train_dataset.planner.examples
        return self.reference["train" if training else "validation"][members]

    def _part(self, model: Any, part: MicroBatch, num_items_in_batch: Any) -> torch.Tensor:
        planner = self.train_dataset.planner
        supervised = planner.examples.supervised
        places = _by_pair(part.members)
        members = part.members[places]
        of_answer = part.targets_of_examples(supervised)[places]
        beside = {
            "pairs": members[::2] // 2,
            "of_answer": of_answer.astype(np.float32),
            "tokens": supervised[members].reshape(-1, 2).astype(np.float32),
            "reference": self._reference_of(planner, members).reshape(-1, 2),
        }
        inputs = part.inputs | {name: torch.from_numpy(array) for name, array in beside.items()}
        return super()._part(model, part._replace(inputs=inputs), num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This pack's share of the step's loss; arguments as there, and what `_part` adds to the pack."""
        losses_M, outputs = target_losses(model, inputs, self.head, self.dtype)
        log_probs = -(inputs["of_answer"] * losses_M).sum(1)  # no product of matrices, which autocast would round
        pairs = AnswerPairs(log_probs.view(-1, 2), inputs["tokens"], inputs["reference"])
        count, chosen_tokens = _counts(self.plan, self.train_dataset.planner)
        scored = self.preference.score(pairs, chosen_tokens / count)
        self.rewards_P2[inputs["pairs"]] = scored.rewards_P2
        divisor = self.preference.weight(count, chosen_tokens)
        loss = scored.loss_P.sum() / divisor * self.accelerator.num_processes  # as in AlpacaTrainer
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's rewards."""
        if "loss" in logs:
            mine = self.plan.packs_of(self.accelerator.process_index, self.accelerator.num_processes)
            members = np.concatenate(mine)
            pairs = torch.from_numpy(members[members % 2 == 0] // 2)
            sums = _sums(self.rewards_P2[pairs.to(self.rewards_P2.device)].cpu().double().numpy())
            count, _ = _counts(self.plan, self.train_dataset.planner)
            logs = {**logs, **_means(np.asarray(self._over_processes(sums)), count)}
        super().log(logs, start_time)

    def _evaluation(self, planner: Planner, loss_sum: float, losses: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        log_probs = -np.asarray(self._over_processes(losses), np.float32)
        members = np.arange(len(losses))
        count, chosen_tokens = len(losses) // 2, int(planner.examples.supervised[::2].sum())
        tokens, reference = planner.examples.supervised.astype(np.float32), self._reference_of(planner, members)
        pairs = AnswerPairs(*(torch.from_numpy(array).view(-1, 2) for array in (log_probs, tokens, reference)))
        scored = self.preference.score(pairs, chosen_tokens / count)
        by_record = scored.loss_P.double().numpy()
        loss = float(by_record.sum()) / self.preference.weight(count, chosen_tokens)
        return {"loss": loss, **_means(_sums(scored.rewards_P2.double().numpy()), count)}, by_record


class _ReferenceFirst(TrainerCallback):
    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.find_reference()


def _by_pair(members: np.ndarray) -> np.ndarray:
    """Places of a pack's answers: chosen, rejected, chosen, rejected. A step of mixed sources may hold a pair twice."""
    order = np.argsort(members, kind="stable")
    chosen = members[order] % 2 == 0
    return np.stack([order[chosen], order[~chosen]], axis=1).reshape(-1)


def _counts(plan: StepPlan, planner: Planner) -> tuple[int, int]:
    """A step's pairs, and the tokens of their chosen answers."""
    members = np.concatenate(plan.packs)
    return len(members) // 2, int(planner.examples.supervised[members[members % 2 == 0]].sum())


def _sums(rewards_P2: np.ndarray) -> np.ndarray:
    chosen_P, rejected_P = rewards_P2.T
    return np.asarray([chosen_P.sum(), rejected_P.sum(), (chosen_P > rejected_P).sum()])


def _means(sums: np.ndarray, count: int) -> dict[str, float]:
    """The figures that TRL's trainers call by the same names."""
    chosen, rejected, right = (float(total) / count for total in sums)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": right,
    }
