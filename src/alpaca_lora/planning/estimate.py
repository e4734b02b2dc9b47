"""A plan: memory on each device, time and money of a run, and what to change where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from textwrap import fill
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError
from ..models.geometry import SHAPES, Geometry
from .budget import auto_tokens
from .cards import GIB, Card
from .memory import CUDA_BYTES, Memory, MemoryModel, MicroBatchSize
from .schedule import remarks
from .time import ALPACA, UTILISATION, Work

Count = Callable[[FinetuneConfig, int, int], Work]  # settings, most tokens of a micro-batch, ranks


def shape_of(base_model: str) -> Geometry:
    """The shape of a base: by its name where that is a published LLaMA's, else from its config.json.

    Raises:
        ModelError: neither is known.
    """
    name = base_model.rpartition("/")[2].lower()
    if name in SHAPES:
        return SHAPES[name]
    from ..models.load import load_config, resolve_base

    return Geometry.of(load_config(resolve_base(base_model)))


@dataclass(frozen=True)
class Plan:
    """What a run takes on some GPUs; `print` shows it.

    Args:
        config: The run's settings.
        shape: The model's.
        card: A GPU.
        gpus: Their number.
        count: Gives the work of settings.
        price: Price of one GPU for an hour, or None.
        utilisation: Share of the card's peak that the run reaches.
    """

    config: FinetuneConfig
    shape: Geometry
    card: Card
    gpus: int
    count: Count
    price: float | None = None
    utilisation: float = UTILISATION

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.gpus, int) or self.gpus < 1:
            problems.append(f"gpus: {self.gpus} must be a whole number of at least 1.")
        if not 0 < self.utilisation <= 1:
            problems.append(f"utilisation: {self.utilisation} must be above 0 and at most 1.")
        if self.price is not None and not self.price >= 0:
            problems.append(f"price: {self.price} must be a number of at least 0.")
        if self.gpus > self.config.batch_size:
            problems.append(f"batch_size: {self.config.batch_size} examples cannot be split over {self.gpus} GPUs.")
        if self.config.dtype == "bfloat16" and self.card.dtype != "bfloat16":
            problems.append(f"dtype: {self.card.name} has no bfloat16; use dtype=auto.")
        if self.config.method != "full":
            problems += self.shape.rank_problems(*self.config.lora_shape)
        if problems:
            raise ConfigError(problems)

    @cached_property
    def max_tokens(self) -> int:
        """Maximum number of tokens per micro-batch; for `auto`, what a run on this card would choose."""
        if self.config.max_tokens != "auto":
            return self.config.max_tokens
        return auto_tokens(self.formula, self.card.memory_gib * GIB - CUDA_BYTES)

    @cached_property
    def work(self) -> Work:
        """What it computes."""
        return self.count(self.config, self.max_tokens, self.gpus)

    @cached_property
    def formula(self) -> MemoryModel:
        """Its memory."""
        dtype = self.card.dtype if self.config.dtype == "auto" else self.config.dtype
        if self.config.dtype == "auto" and self.config.fsdp and dtype == "float16":
            dtype = "float32"  # as a run would choose
        return MemoryModel(self.config, self.shape, dtype, self.gpus)

    @cached_property
    def training(self) -> Memory:
        """On each GPU, at the highest moment of training."""
        found = (self.formula.training(batch, self.work.alone) for batch in self.work.largest)
        return max(found, key=lambda memory: memory.total)

    @cached_property
    def evaluation(self) -> Memory:
        """On each GPU, at the highest moment of an evaluation, whose micro-batches are as full as can be."""
        share = max(batch.predicted / batch.tokens for batch in self.work.largest)
        row = max(batch.row for batch in self.work.largest)
        return self.formula.evaluation(MicroBatchSize(self.max_tokens, round(share * self.max_tokens), 0, row))

    @property
    def needed(self) -> float:
        """Bytes of each GPU that training and evaluation need."""
        return max(self.training.needed, self.evaluation.needed)

    @property
    def fits(self) -> bool:
        """Whether that is no more than a card has."""
        return self.needed <= self.card.memory_gib * GIB

    @property
    def seconds(self) -> float:
        """Training time in seconds."""
        return self.work.seconds(self.config, self.shape, self.card, self.gpus, self.utilisation)

    @property
    def cost(self) -> float | None:
        """In the price's currency."""
        return None if self.price is None else self.seconds / 3600 * self.gpus * self.price

    def changed(self, gpus: int | None = None, **settings: Any) -> Plan:
        """The plan of other settings."""
        return replace(self, config=replace(self.config, **settings), gpus=gpus or self.gpus)

    @cached_property
    def choices(self) -> list[tuple[str, Plan]]:
        """Changes one could make where it does not fit, each with what it would take."""
        return list(self._choices())

    def _choices(self) -> Iterator[tuple[str, Plan]]:
        config = self.config
        small = max(config.cutoff_len, min(1024, self.max_tokens // 4))
        again: dict[str, Any] = {"gradient_checkpointing": True}
        if small < self.max_tokens:
            yield f"max_tokens={small}", self.changed(max_tokens=small)
        if not config.gradient_checkpointing:
            yield "gradient_checkpointing=true", self.changed(**again)
            if small < self.max_tokens:
                yield f"both, max_tokens={small}", self.changed(**again, max_tokens=small)
        more = [2**power for power in range(1, 8) if self.gpus < 2**power <= config.batch_size]
        if config.method != "qlora":
            sharded = {**again, "fsdp": True, "optimizer": "adamw", "load_in_8bit": False}
            if self.gpus > 1 and not config.fsdp:
                yield "fsdp=true, checkpointing", self.changed(**sharded)
            if self.gpus == 1 and config.method == "full" and config.optimizer == "adamw":
                paged = {**again, "fsdp": False, "cpu_offload": False, "optimizer": "paged_adamw_8bit"}
                yield "optimizer=paged_adamw_8bit, fsdp=false, checkpointing", self.changed(**paged)
            fitting = (plan for plan in (self.changed(gpus, **sharded) for gpus in more) if plan.fits)
            if enough := next(fitting, None):
                yield f"{enough.gpus} GPUs, fsdp=true, checkpointing", enough
            quantised = {**again, "method": "qlora", "optimizer": "adamw", "fsdp": False, "cpu_offload": False}
            yield "method=qlora, checkpointing", self.changed(**quantised, load_in_8bit=False)

    def __str__(self) -> str:
        card, config, shape = self.card, self.config, self.shape
        moments = {"training": self.training, "evaluation": self.evaluation, "saving": self.formula.saving()}
        names = [*Memory._fields, "total"]
        lines = [
            f"{config.base_model} ({shape.parameters / 1e9:.2f}B parameters), {config.method}, {config.layout}, "
            f"{self.gpus} x {card.name}" + (", sharded (FSDP2)" if config.fsdp and self.gpus > 1 else ""),
            "",
            f"{'GiB on each GPU':<16}" + "".join(f"{name:>12}" for name in names),
        ]
        for moment, memory in moments.items():
            lines.append(f"{moment:<16}" + "".join(f"{part / GIB:12.2f}" for part in [*memory, memory.total]))
        formula, source = self.formula, "computed" if self.utilisation == UTILISATION else "given"
        lines += [
            f"Host: {formula.saving_host / GIB:.1f} GiB to save the result, {formula.merging_host() / GIB:.1f} GiB to "
            f"merge an adapter and compare ({formula.merging_host(False) / GIB:.1f} without comparing).",
            "",
            f"{'It fits' if self.fits else 'It does not fit'}: needs {self.needed / GIB:.1f} of "
            f"{card.memory_gib:.1f} GiB, with 1 GiB for CUDA and a tenth of copies, activations and logits for what "
            "allocators lose. Computed, not measured on a GPU.",
            f"Micro-batches of at most {self.max_tokens:,} tokens{' (auto)' * (config.max_tokens == 'auto')}.",
            f"Time: {_hours(self.seconds)} for {self.work.steps:,} steps and {self.work.tokens:,.0f} tokens, at "
            f"{self.utilisation:.0%} of {card.tflops:g} TFLOP/s ({source}). Counted: {self.work.source}.",
        ]
        lines += remarks(config, self.work.steps_per_epoch, config.val_set_size > 0)
        if config.fsdp and self.gpus == 1:
            lines.append("fsdp needs two or more GPUs: a run on one refuses it. Give gpus, or fsdp=false.")
        if self.cost is not None:
            lines.append(f"Money: {self.cost:,.2f}, {self.gpus * self.seconds / 3600:.1f} GPU hours at {self.price:g}.")
        if shape.parameters > 5e9:
            lines.append(f"Beside it, {ALPACA}.")
        if not self.fits:
            lines += ["", f"{'What to change':<56}{'GiB needed':>12}{'hours':>9}"]
            for change, plan in self.choices:
                fits = "fits" if plan.fits else "does not fit"
                lines.append(f"  {change:<54}{plan.needed / GIB:12.1f}{plan.seconds / 3600:9.1f}  {fits}")
        return "\n".join(fill(line, 110, subsequent_indent="  ") if len(line) > 130 else line for line in lines)


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return f"{max(math.ceil(seconds / 60), 1)} min"
    return f"{seconds / 3600:.1f} h"
