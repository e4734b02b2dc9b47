"""Step plans as a dataset the Trainer can walk: an item is a pack, `packs_per_step` items are a step.

Resuming is skipping: item i of epoch e is the same pack in every process and every run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..config import MAX_EPOCHS
from ..errors import ConfigError
from .packs import Pack
from .plan import Planner, StepPlan


class StepDataset(Dataset):
    """The packs of one epoch, step after step; `set_epoch` moves on.

    Args:
        planner: Plans a step.
        batch_size: Records per step.
        seed: Seed of the permutation.
        epochs: Epochs that will be walked. `packs_per_step` is the maximum that any of their steps needs.

    Raises:
        ConfigError: there are fewer examples than `batch_size`, or fewer per step than packs its ranks need.
    """

    def __init__(self, planner: Planner, batch_size: int, seed: int, epochs: float) -> None:
        count = planner.epoch_records
        if batch_size > count:
            raise ConfigError(
                f"batch_size: {batch_size} is more than the {count} training examples. "
                f"Lower batch_size to {count} or less, or give more data."
            )
        if epochs > MAX_EPOCHS:
            raise ConfigError(
                f"max_steps: they are {epochs:,.0f} passes over the {count} training examples, and a run has at most "
                f"{MAX_EPOCHS:,}. Lower max_steps to {MAX_EPOCHS * (count // batch_size):,} or less."
            )
        if batch_size < planner.ranks:
            raise ConfigError(f"batch_size: {batch_size} examples cannot be split over {planner.ranks} processes.")
        self.planner, self.batch_size, self.seed, self.epochs = planner, batch_size, seed, epochs
        self.steps_per_epoch = count // batch_size
        self.packs_per_step = max(
            planner.packs_needed(members)
            for epoch in range(math.ceil(epochs))
            for members in planner.step_members(batch_size, seed, epoch)
        )
        if self.packs_per_step > batch_size:  # a pack holds at least one example
            raise ConfigError(
                f"batch_size: {batch_size} examples need more micro-batches of max_tokens={planner.max_tokens} than "
                f"the {batch_size - batch_size % planner.ranks} that {planner.ranks} processes can share evenly. "
                f"Raise max_tokens, or make batch_size a multiple of {planner.ranks}."
            )
        self.epoch = -1
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plan an epoch; the Trainer calls this before it starts."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        members = self.planner.step_members(self.batch_size, self.seed, epoch)
        self.plans: list[StepPlan] = [self.planner.plan(step, self.packs_per_step) for step in members]

    def members(self) -> np.ndarray:
        """Indices of the examples that the run's steps hold, in order."""
        steps = [
            step
            for epoch in range(math.ceil(self.epochs))
            for step in self.planner.step_members(self.batch_size, self.seed, epoch)
        ]
        taken = math.ceil(round(self.epochs * self.steps_per_epoch, 6))  # a fraction of an epoch was made from steps
        return np.unique(np.concatenate(steps[:taken]))

    def plan_of(self, steps_done: int) -> StepPlan:
        """The plan of the next step, of a run that has done this many; it must be of the epoch planned."""
        return self.plans[steps_done % self.steps_per_epoch]

    def __len__(self) -> int:
        return self.steps_per_epoch * self.packs_per_step

    def __getitem__(self, index: int) -> Pack:
        step, pack = divmod(index, self.packs_per_step)
        return self.planner.build(self.plans[step].packs[pack])


class PackDataset(Dataset):
    """Every example once, in as few packs as `max_tokens` allows: what an evaluation walks.

    Args:
        planner: Lays the packs out.
        members: Indices of some whole records' examples, in order; all examples if left out.

    Raises:
        ConfigError: there are fewer examples than ranks.
    """

    def __init__(self, planner: Planner, members: np.ndarray | None = None) -> None:
        members = np.arange(len(planner.examples)) if members is None else members
        count = len(np.unique(planner.examples.record_numbers[members]))
        if count < planner.ranks:
            raise ConfigError(
                f"val_set_size: {count} validation examples are too few for {planner.ranks} processes; "
                f"give at least {planner.ranks}, or 0."
            )
        self.planner = planner
        limit = count // planner.ranks * planner.ranks
        self.plan = planner.plan(members, min(planner.packs_needed(members), limit))

    def __len__(self) -> int:
        return len(self.plan.packs)

    def __getitem__(self, index: int) -> Pack:
        return self.planner.build(self.plan.packs[index])


def collate(packs: list[Pack]) -> dict[str, Any]:
    """One pack as tensors; the shapes are those of `Pack`, absent fields are left out."""
    (pack,) = packs
    return {name: torch.from_numpy(array) for name, array in pack._asdict().items() if array is not None}
