"""The loss of a pack: token cross-entropies in float32, without ever holding all logits.

For M supervised tokens and a vocabulary of V, the logits (M, V) are the largest tensor of a small model's step. Only a
chunk of rows exists at a time; its gradient is taken while it is there, so the head's product is not repeated:

    loss   = sum_m  logsumexp(h_m W^T) - (h_m W^T)[target_m]
    dloss/dh_m = (softmax(h_m W^T) - onehot(target_m)) W

Memory is a chunk's rows (models/geometry.py, `logit_rows`) * V floats whatever M is. The same idea, as a CUDA kernel:
Liger's fused linear cross-entropy (arXiv 2410.10989).

Preference training needs each token's loss before it knows how much it counts. `token_losses` keeps dloss/dh_m for a
weight of 1, and multiplies it in the backward pass; only the gradient of a head that trains needs the product again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ..models.geometry import logit_rows
from ..models.predictions import PlainHead, chunks, predicting


class _LinearCrossEntropy(torch.autograd.Function):
    """Weighted sum of cross-entropies of `hidden @ weight.T` against `targets`; shapes (M, H), (V, H), (M,), (M,)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_M: torch.Tensor,
        weights_M: torch.Tensor | None,
        each_M: torch.Tensor | None,
    ) -> torch.Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_MH) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        ctx.weight_dtype = weight_VH.dtype
        weight_VH = weight_VH.to(hidden_MH.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden_MH.device)
        for rows in _head_chunks(targets_M, weight_VH):
            hidden, targets = hidden_MH[rows], targets_M[rows, None]
            log_probs = torch.log_softmax((hidden @ weight_VH.T).float(), dim=-1)
            likely = log_probs.gather(1, targets)
            if each_M is not None:
                torch.neg(likely[:, 0], out=each_M[rows])
            total -= (likely if weights_M is None else likely * weights_M[rows, None]).sum()
            if needs_hidden or needs_weight:
                slope = _slope(log_probs, targets[:, 0])
                if weights_M is not None:
                    slope *= weights_M[rows, None]
                slope = slope.to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(slope, weight_VH, out=grad_hidden[rows])
                if grad_weight is not None:
                    grad_weight += (slope.T @ hidden).float()
                del slope
            del log_probs  # before the next rows are made
        ctx.save_for_backward(*(grad for grad in (grad_hidden, grad_weight) if grad is not None))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None]:
        (upstream,) = grads
        saved = list(ctx.saved_tensors)
        grad_hidden = saved.pop(0) * upstream if ctx.needs_input_grad[0] else None
        grad_weight = (saved.pop(0) * upstream).to(ctx.weight_dtype) if ctx.needs_input_grad[1] else None
        return grad_hidden, grad_weight, None, None, None


class _TokenLosses(torch.autograd.Function):
    """Each row's cross-entropy of `hidden @ weight.T` against `targets`; shapes (M, H), (V, H), (M,) -> (M,)."""

    @staticmethod
    def forward(ctx: Any, hidden_MH: torch.Tensor, weight_VH: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_MH) if needs_hidden else None
        weight = weight_VH.to(hidden_MH.dtype)
        each_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_MH.device)
        for rows in _head_chunks(targets_M, weight):
            log_probs = torch.log_softmax((hidden_MH[rows] @ weight.T).float(), dim=-1)
            torch.neg(log_probs.gather(1, targets_M[rows, None])[:, 0], out=each_M[rows])
            if grad_hidden is not None:
                torch.mm(_slope(log_probs, targets_M[rows]).to(weight.dtype), weight, out=grad_hidden[rows])
            del log_probs  # before the next rows are made
        ctx.save_for_backward(grad_hidden, *((hidden_MH, weight_VH, targets_M) if needs_weight else ()))
        return each_M

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        (upstream_M,) = grads
        grad_hidden, *again = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * upstream_M[:, None].to(grad_hidden.dtype)
        if not again:
            return grad_hidden, None, None
        hidden_MH, weight_VH, targets_M = again
        weight = weight_VH.to(hidden_MH.dtype)
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32)
        for rows in _head_chunks(targets_M, weight):
            log_probs = torch.log_softmax((hidden_MH[rows] @ weight.T).float(), dim=-1)
            slope = _slope(log_probs, targets_M[rows]).mul_(upstream_M[rows, None]).to(weight.dtype)
            grad_weight += (slope.T @ hidden_MH[rows]).float()
        return grad_hidden, grad_weight.to(weight_VH.dtype), None


def _head_chunks(targets_M: torch.Tensor, weight_VH: torch.Tensor) -> Iterator[slice]:
    return chunks(len(targets_M), logit_rows(len(weight_VH), on_cpu=weight_VH.device.type == "cpu"))


def _slope(log_probs_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """softmax - onehot, in the place of the log-probabilities."""
    slope = log_probs_NV.exp_()
    targets = targets_N[:, None]
    return slope.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=slope.dtype))


def token_losses(hidden_MH: torch.Tensor, weight_VH: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row of `hidden @ weight.T`, float32 (M,); arguments as of `linear_cross_entropy`."""
    each_M: torch.Tensor = _TokenLosses.apply(hidden_MH, weight_VH, targets_M)
    return each_M


def linear_cross_entropy(
    hidden_MH: torch.Tensor,
    weight_VH: torch.Tensor,
    targets_M: torch.Tensor,
    weights_M: torch.Tensor | None = None,
    each_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over rows of the cross-entropy of `hidden @ weight.T`, float32 scalar.

    Args:
        hidden_MH: Last hidden states at the predicting positions; products are in their dtype.
        weight_VH: The language model head's weight.
        targets_M: int64 ids to predict.
        weights_M: float32, how often each row counts; once if None.
        each_M: float32; if given, each row's own loss is put there.
    """
    if not torch.is_grad_enabled():  # an evaluation: a function of autograd would make gradients all the same
        hidden_MH, weight_VH = hidden_MH.detach(), weight_VH.detach()
    result: torch.Tensor = _LinearCrossEntropy.apply(hidden_MH, weight_VH, targets_M, weights_M, each_M)
    return result


def pack_loss(
    model: Any,
    inputs: dict[str, Any],
    head: PlainHead | None,
    dtype: torch.dtype | None = None,
    each_M: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """Sum of the token losses of a pack, in float32, and the model's output.

    Args:
        model, inputs, head, dtype: As for `predicting`.
        each_M: float32 (M,); if given, each target's own loss is put there.
    """
    states, outputs = predicting(model, inputs, head, dtype)
    targets, weights = inputs["targets"], inputs.get("weights")
    if head is not None:
        return linear_cross_entropy(states, head.linear.weight, targets, weights, each_M), outputs
    if weights is None and each_M is None:
        return cross_entropy(states, targets, reduction="sum"), outputs
    losses_M = cross_entropy(states, targets, reduction="none")
    if each_M is not None:
        each_M.copy_(losses_M)
    return (losses_M.sum() if weights is None else losses_M @ weights), outputs


def target_losses(
    model: Any, inputs: dict[str, Any], head: PlainHead | None, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, Any]:
    """The loss of each target of a pack, float32 (M,), and the model's output; arguments as of `pack_loss`."""
    states, outputs = predicting(model, inputs, head, dtype)
    if head is not None:
        return token_losses(states, head.linear.weight, inputs["targets"]), outputs
    return cross_entropy(states, inputs["targets"], reduction="none"), outputs
