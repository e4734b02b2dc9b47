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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import AutocastKwargs
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import Trainer

from ..data.plan import Planner, StepPlan
from ..data.steps import collate
from ..errors import TrainingError
from ..models.attention import PackMask
from ..models.distributed import from_first_rank, processes
from ..runs.checkpoints import newest_name
from .loss import linear_cross_entropy
from .out_of_memory import MicroBatch, PackLimit


class AlpacaTrainer(Trainer):
    """Trains on packs.

    Args:
        model: A causal language model; only its trainable tensors (LoRA's, usually) are changed.
        args: TrainingArguments with `per_device_train_batch_size=1` and `gradient_accumulation_steps` = packs a
            process and step.
        train_dataset: A `StepDataset`.
        eval_dataset: A `PackDataset`, or None.
        **kwargs: As for `transformers.Trainer`.
    """

    def __init__(self, *, model: Any, args: Any, **kwargs: Any) -> None:
        super().__init__(model=model, args=args, data_collator=collate, **kwargs)
        first = processes().is_main_process  # of a sharded model only rank 0 has the weights yet
        fused = from_first_rank(first and plain_head(model) is not None)
        self.head = model.get_output_embeddings() if fused else None
        self.dtype = torch.bfloat16 if args.bf16 else None
        if not args.fsdp:  # autocast would keep a bfloat16 copy of every float32 weight for the whole forward pass
            self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole step's supervised tokens
        self.limit = PackLimit()

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

        Where memory runs out, the step begins again in smaller ones.
        """
        step, planner, todo = super().training_step, self.train_dataset.planner, [self.batches[self.batches_done]]
        while True:
            try:
                for batch in todo:
                    parts = self.limit.parts(batch, planner)
                    losses = [step(model, part.inputs, num_items_in_batch) for part in parts]
                self.batches_done += 1
                return torch.stack(losses).sum()
            except torch.OutOfMemoryError as error:
                if self.accelerator.num_processes > 1:  # the others wait for this rank's share of a sum
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

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called after each backward pass and before the optimizer: a gradient that is no number goes no further."""
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(grad_norm):
            records = self.train_dataset.planner.records(np.concatenate(self.plan.packs))
            kept = newest_name(Path(self.args.output_dir))
            raise TrainingError(
                f"step {self.state.global_step + 1}: the gradient is {float(grad_norm)}, at learning rate "
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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's tokens, so that history and trackers have them too."""
        if "loss" in logs:
            tokens = {"supervised_tokens": self.plan.supervised_tokens, "computed_tokens": self.plan.computed_tokens}
            logs = {**logs, **tokens}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss over every supervised token of the evaluation examples (not a mean of batch means)."""
        loader, model = self.get_eval_dataloader(eval_dataset), self.model
        was_training = model.training
        model.eval()
        loss_sum, tokens = 0.0, 0
        with torch.no_grad():
            for batch in self._with_members(loader, loader.dataset.plan):
                loss_sum += self._loss_sum(model, batch, loader.dataset.planner)
                tokens += len(batch.inputs["targets"])
        model.train(was_training)
        dtype = torch.float32 if self.args.device.type == "mps" else torch.float64  # MPS has no float64
        total = torch.tensor([loss_sum, tokens], dtype=dtype, device=self.args.device)
        loss_sum, all_tokens = self.accelerator.reduce(total, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss_sum / all_tokens}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _loss_sum(self, model: Any, batch: MicroBatch, planner: Planner) -> float:
        while True:
            try:
                parts = [self._prepare_inputs(part.inputs) for part in self.limit.parts(batch, planner)]
                return sum(pack_loss(model, part, self.head, self.dtype)[0].item() for part in parts)
            except torch.OutOfMemoryError:
                self.limit.halve(batch, planner, self.state.global_step)


def pack_loss(
    model: Any, inputs: dict[str, Any], head: torch.nn.Linear | None, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, Any]:
    """Sum of the token losses of a pack, in float32, and the model's output.

    Args:
        model: A causal language model, wrapped or not.
        inputs: A collated pack: `predict_at` (M,) are flat token positions, `targets` (M,) what follows them.
        head: The model's head where its logits are plainly `hidden @ head.weight.T`; None to take the model's logits.
        dtype: Dtype of the head's matrix multiplication; that of its weights if None.
    """
    masks = {"attention_mask": inputs.get("attention_mask")}
    if "subtree_end" in inputs:
        subtree_end = inputs["subtree_end"]  # a 4-D mask is handed through as it is: transformers builds none
        masks = {"attention_mask": subtree_end[:, None, None], "pack_mask": PackMask(subtree_end[0])}
    if head is not None:
        nothing = torch.empty(0, dtype=torch.long, device=inputs["input_ids"].device)
        masks |= {"logits_to_keep": nothing, "output_hidden_states": -1}  # -1: the last one is enough
    outputs = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False, **masks)
    if head is None:
        logits_MV = outputs.logits.flatten(0, 1)[inputs["predict_at"]].float()
        return cross_entropy(logits_MV, inputs["targets"], reduction="sum"), outputs
    hidden_MH = outputs.hidden_states[-1].flatten(0, 1)[inputs["predict_at"]]
    hidden_MH = hidden_MH.to(dtype or head.weight.dtype)
    return linear_cross_entropy(hidden_MH, head.weight, inputs["targets"]), outputs


def plain_head(model: Any) -> torch.nn.Linear | None:
    """The model's head if its logits are `hidden @ head.weight.T` and nothing else, tried on four tokens; else None.

    Models that scale or cap their logits, or whose head is quantised, take the slower way over their own logits.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None:
        return None
    ids = torch.arange(4, device=head.weight.device)[None]
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        expected = (out.hidden_states[-1].to(head.weight.dtype) @ head.weight.T).float()
    return head if torch.allclose(out.logits.float(), expected, rtol=1e-3, atol=1e-3) else None
