"""The training step.

`AlpacaTrainer` is transformers' Trainer with a few methods overridden (sampler, a step's batches, a micro-batch, loss,
gradient norm, log, evaluate); callbacks, trackers, schedulers, checkpoints and launching stay as users know them. What
differs is the step. A dataset item is a *pack*, one micro-batch of one process; the packs of a step hold exactly
`batch_size` examples, and

    loss = sum of token losses over the step's supervised tokens / their number,

over all micro-batches and processes, whatever the layout and however the step was split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import AutocastKwargs
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from ..data.plan import Planner, StepPlan
from ..data.step_dataset import PackDataset, collate
from ..errors import TrainingError
from ..models.distributed import average, from_first_rank, processes
from ..models.predictions import PlainHead, plain_head
from ..runs.checkpoints import newest_name
from .loss import pack_loss
from .neftune import EmbeddingNoise
from .out_of_memory import MicroBatch, PackLimit


class AlpacaTrainer(Trainer):
    """Trains on packs.

    Args:
        model: A causal language model; only its trainable tensors (LoRA's, usually) are changed.
        args: TrainingArguments with `per_device_train_batch_size=1` and `gradient_accumulation_steps` = packs a
            process and step.
        train_dataset: A `StepDataset`.
        eval_dataset: A `PackDataset`, or None.
        keep_losses: Called at each evaluation, by one process, with the step and each validation record's sum of token
            losses, float64.
        noise: Added to the embeddings in training steps.
        **kwargs: As for `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: Any,
        keep_losses: Callable[[int, np.ndarray], None] | None = None,
        noise: EmbeddingNoise | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, args=args, data_collator=collate, **kwargs)
        self.keep_losses, self.noise = keep_losses, noise
        first = processes().is_main_process  # of a sharded model only rank 0 has the weights yet
        fused = from_first_rank(first and plain_head(model) is not None)
        self.head = PlainHead.of(model) if fused else None
        self.dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
        if args.fp16 and self.accelerator.scaler is None:  # accelerate 1.15 has neither autocast nor scaler on a CPU
            self.accelerator.native_amp, self.accelerator.scaler = True, torch.amp.GradScaler(args.device.type)
        if not args.fsdp:  # autocast would keep a bfloat16 copy of every float32 weight for the whole forward pass
            self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole step's supervised tokens
        self.limit = PackLimit()
        self.skipped = False  # float16: the step's gradient overflowed, and the optimizer leaves it out

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # the planner has already shuffled

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int | None]:
        """The packs of one step, and the supervised tokens of the whole step, over all processes."""
        packs, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not packs:
            return packs, None
        self.plan = self.train_dataset.plan_of(self.state.global_step)
        self.batches, self.batches_done = list(self._with_members(packs, self.plan)), 0
        return packs, self.plan.supervised_tokens

    def _with_members(self, packs: Iterable[dict[str, Any]], plan: StepPlan) -> Iterator[MicroBatch]:
        """This process's packs of a plan, each with its examples."""
        members = plan.packs_of(self.accelerator.process_index, self.accelerator.num_processes)
        return (MicroBatch(*pair) for pair in zip(packs, members, strict=True))

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of the step's next micro-batch.

        Where memory runs out, the step begins again in smaller ones. Of several processes each does so for itself, for
        none waits for another before the step's last micro-batch is done: then gradients are averaged, and all take the
        smallest limit. Shards are gathered in every layer, so that a sharded run cannot.
        """
        if self.accelerator.num_processes == 1 or self.is_fsdp_enabled:
            return self._micro_batch(model, num_items_in_batch)
        with self.accelerator.no_sync(model):
            loss = self._micro_batch(model, num_items_in_batch)
        if self.batches_done == len(self.batches):
            average(tensor.grad for tensor in model.parameters() if tensor.grad is not None)
            self.limit.share()
        return loss

    def _micro_batch(self, model: Any, num_items_in_batch: Any) -> torch.Tensor:
        planner, todo = self.train_dataset.planner, [self.batches[self.batches_done]]
        while True:
            try:
                for batch in todo:
                    parts = self.limit.parts(batch, planner)
                    losses = [self._part(model, part, num_items_in_batch) for part in parts]
                self.batches_done += 1
                return torch.stack(losses).sum()
            except torch.OutOfMemoryError as error:
                if self.is_fsdp_enabled:  # the others wait for this rank's shards
                    raise TrainingError(
                        f"step {self.state.global_step + 1}: out of memory on rank {self.accelerator.process_index}. "
                        f"Set max_tokens below {batch.tokens} and go on with resume=auto."
                    ) from error
                self.limit.halve(batch, planner, self.state.global_step + 1)
            # A backward pass that broke off has left some gradients: all packs of the step are done again.
            model.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            todo = self.batches[: self.batches_done + 1]

    def _part(self, model: Any, part: MicroBatch, num_items_in_batch: Any) -> torch.Tensor:
        with self.noise.on(part, self.state.global_step) if self.noise else nullcontext():
            return super().training_step(model, part.inputs, num_items_in_batch)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called after each backward pass and before the optimizer: a gradient that is no number goes no further.

        In float16 the scaler leaves such a step out and halves its scale; where even unscaled gradients overflow, the
        run ends.
        """
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        scaler = self.accelerator.scaler
        self.skipped = not math.isfinite(grad_norm) and scaler is not None and scaler.get_scale() > 1
        if not (self.skipped or math.isfinite(grad_norm)):
            unscaled = "" if scaler is None else f" even at a loss scale of {scaler.get_scale():g}"
            records = self.train_dataset.planner.records(np.concatenate(self.plan.packs))
            kept = newest_name(Path(self.args.output_dir))
            raise TrainingError(
                f"step {self.state.global_step + 1}: the gradient is {float(grad_norm)}{unscaled}, at learning rate "
                f"{self._get_learning_rate():.3g}, on records {', '.join(map(str, records))}. Nothing of it was "
                f"applied and no adapter written; the newest good checkpoint is {kept or 'none'}. Lower learning_rate, "
                "or look at those records and at the base model's weights."
            )
        return grad_norm

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This pack's share of the step's loss.

        Args:
            model: The (wrapped) model.
            inputs: A collated pack.
            return_outputs: Also return the model's output.
            num_items_in_batch: Supervised tokens of the whole step.
        """
        loss_sum, outputs = pack_loss(model, inputs, self.head, self.dtype)
        # Data-parallel wrappers average gradients over processes; the sum is what the definition asks for.
        loss = loss_sum / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """What trains, and no more: peft would write the whole embedding where it has new rows, and ask the hub."""
        if state_dict is not None or output_dir is None or not hasattr(self.model, "peft_config"):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            self.model.save_pretrained(output_dir, save_embedding_layers=False)
            torch.save(self.args, Path(output_dir) / TRAINING_ARGS_NAME)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's tokens, so that history and trackers have them too; leave out the samples per second, for the
        Trainer takes packs for samples."""
        logs = {name: value for name, value in logs.items() if name != "train_samples_per_second"}
        if "loss" in logs:
            tokens = {"supervised_tokens": self.plan.supervised_tokens, "computed_tokens": self.plan.computed_tokens}
            logs = {**logs, **tokens}
            if self.skipped:
                logs = {"skipped": 1, **{key: value for key, value in logs.items() if key != "grad_norm"}}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss over every supervised token of the evaluation examples (not a mean of batch means)."""
        loader, model = self.get_eval_dataloader(eval_dataset), self.model
        planner: Planner = loader.dataset.planner
        was_training = model.training
        model.eval()
        loss_sum, losses = self._losses(model, loader, loader.dataset)
        model.train(was_training)
        found, by_record = self._evaluation(planner, loss_sum, losses)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        if self.keep_losses and self.is_world_process_zero():
            self.keep_losses(self.state.global_step, by_record)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _losses(self, model: Any, loader: Iterable[dict[str, Any]], packs: PackDataset) -> tuple[float, np.ndarray]:
        """Sum of the token losses of this process's packs, and each example's own, 0 for those of other processes."""
        loss_sum, losses = 0.0, np.zeros(len(packs.planner.examples))
        with torch.no_grad():
            for batch in self._with_members(loader, packs.plan):
                loss_sum += self._loss_sum(model, batch, packs.planner, losses)
        return loss_sum, losses

    def _evaluation(self, planner: Planner, loss_sum: float, losses: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Metrics of an evaluation, and each record's loss, from those of this process's examples."""
        by_record = np.add.reduceat(losses, planner.examples.record_starts[:-1])
        loss_sum, *summed = self._over_processes(np.append(loss_sum, by_record))
        return {"loss": loss_sum / int(planner.examples.supervised.sum())}, np.asarray(summed)

    def _over_processes(self, values: np.ndarray) -> list[float]:
        """Sums over processes; each example is one process's."""
        dtype = torch.float32 if self.args.device.type == "mps" else torch.float64  # MPS has no float64
        summed: list[float] = self.accelerator.reduce(
            torch.tensor(values, dtype=dtype, device=self.args.device), "sum"
        ).tolist()
        return summed

    def _loss_sum(self, model: Any, batch: MicroBatch, planner: Planner, losses: np.ndarray) -> float:
        """A micro-batch's sum of token losses; each of its examples' own is put into `losses`."""
        while True:
            loss_sum = 0.0
            try:
                for part in self.limit.parts(batch, planner):
                    inputs = self._prepare_inputs(part.inputs)
                    each_M = torch.empty(len(inputs["targets"]), dtype=torch.float32, device=self.args.device)
                    loss_sum += pack_loss(model, inputs, self.head, self.dtype, each_M)[0].item()
                    losses[part.members] = part.by_example(each_M, planner.examples.supervised)
                return loss_sum
            except torch.OutOfMemoryError:
                self.limit.halve(batch, planner, self.state.global_step)
