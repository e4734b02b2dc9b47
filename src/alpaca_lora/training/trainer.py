"""The training step.

`AlpacaTrainer` is transformers' Trainer with a few methods overridden (sampler, a step's batches, loss, log, evaluate);
callbacks, trackers, schedulers, checkpoints and launching stay as users know them. What differs is the step. A dataset
item is a *pack*, one micro-batch of one process; the packs of a step hold exactly `batch_size` examples, and

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
from ..models.attention import PackMask
from .loss import linear_cross_entropy


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
        self.head = plain_head(model)
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
        loss_sum, outputs = pack_loss(model, inputs, self.head)
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
        loader, model = self.get_eval_dataloader(eval_dataset), self.model
        was_training = model.training
        model.eval()
        loss_sum, tokens = 0.0, 0
        with torch.no_grad():
            for batch in loader:
                inputs = self._prepare_inputs(batch)
                loss_sum += pack_loss(model, inputs, self.head)[0].item()
                tokens += len(inputs["targets"])
        model.train(was_training)
        dtype = torch.float32 if self.args.device.type == "mps" else torch.float64  # MPS has no float64
        total = torch.tensor([loss_sum, tokens], dtype=dtype, device=self.args.device)
        loss_sum, all_tokens = self.accelerator.reduce(total, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss_sum / all_tokens}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def pack_loss(model: Any, inputs: dict[str, Any], head: torch.nn.Linear | None) -> tuple[torch.Tensor, Any]:
    """Sum of the token losses of a pack, in float32, and the model's output.

    Args:
        model: A causal language model, wrapped or not.
        inputs: A collated pack: `predict_at` (M,) are flat token positions, `targets` (M,) what follows them.
        head: The model's head where its logits are plainly `hidden @ head.weight.T`; None to take the model's logits.
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
