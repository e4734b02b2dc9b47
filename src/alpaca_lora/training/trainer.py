"""The training step.

`AlpacaTrainer` is transformers' Trainer with three documented methods overridden; callbacks, trackers, schedulers,
checkpoints and launching stay as users know them. What differs is the step. A dataset item is a *pack*, one
micro-batch of one process; the packs of a step hold exactly `batch_size` examples, and

    loss = sum of token losses over the step's supervised tokens / their number,

over all micro-batches and processes, whatever the layout and however the step was split.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import Trainer

from ..data.collator import collate


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
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole step's supervised tokens
        self.step_tokens = {"supervised_tokens": 0, "computed_tokens": 0}

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # the planner has already shuffled

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int | None]:
        """The packs of one step, and the supervised tokens of the whole step, over all processes."""
        packs, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not packs:
            return packs, None
        self.step_tokens = {
            "supervised_tokens": packs[0]["supervised_in_step"],
            "computed_tokens": packs[0]["computed_in_step"],
        }
        return packs, packs[0]["supervised_in_step"]

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
        loss_sum, outputs = pack_loss(model, inputs)
        # Data-parallel wrappers average gradients over processes; the sum is what the definition asks for.
        loss = loss_sum / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's tokens, so that history and trackers have them too."""
        super().log({**logs, **self.step_tokens} if "loss" in logs else logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss over every supervised token of the evaluation examples (not a mean of batch means)."""
        loader = self.get_eval_dataloader(eval_dataset)
        model = self._wrap_model(self.model, training=False)
        was_training = model.training
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for batch in loader:
                inputs = self._prepare_inputs(batch)
                loss_sum, _ = pack_loss(model, inputs)
                total += torch.stack([loss_sum.double(), torch.tensor(len(inputs["targets"])).to(total)])
        model.train(was_training)
        loss_sum, tokens = self.accelerator.reduce(total, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss_sum / tokens}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def pack_loss(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """Sum of the token losses of a pack, in float32, and the model's output.

    Args:
        model: A causal language model.
        inputs: A collated pack: `predict_at` (M,) are flat token positions, `targets` (M,) what follows them.
    """
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs.get("attention_mask"),
        position_ids=inputs["position_ids"],
        use_cache=False,
    )
    logits_MV = outputs.logits.flatten(0, 1)[inputs["predict_at"]].float()
    return cross_entropy(logits_MV, inputs["targets"], reduction="sum"), outputs
