"""The loss of a pack: token cross-entropies in float32, without ever holding all logits.

For M supervised tokens and a vocabulary of V, the logits (M, V) are the largest tensor of a small model's step. Only a
chunk of rows exists at a time; its gradient is taken while it is there, so the head's product is not repeated:

    loss   = sum_m  logsumexp(h_m W^T) - (h_m W^T)[target_m]
    dloss/dh_m = (softmax(h_m W^T) - onehot(target_m)) W

Memory is CHUNK * V floats whatever M is. The same idea, as a CUDA kernel: Liger's fused linear cross-entropy (arXiv
2410.10989).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

CHUNK = 512  # most rows of logits that exist at a time


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of `hidden @ weight.T` against `targets`; shapes (M, H), (V, H), (M,)."""

    @staticmethod
    def forward(ctx: Any, hidden_MH: torch.Tensor, weight_VH: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_MH) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        ctx.weight_dtype = weight_VH.dtype
        weight_VH = weight_VH.to(hidden_MH.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden_MH.device)
        for rows in _chunks(len(targets_M)):
            hidden, targets = hidden_MH[rows], targets_M[rows, None]
            log_probs = torch.log_softmax((hidden @ weight_VH.T).float(), dim=-1)
            total -= log_probs.gather(1, targets).sum()
            if needs_hidden or needs_weight:
                slope = log_probs.exp_()  # softmax - onehot, in place
                slope.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=slope.dtype))
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
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        (upstream,) = grads
        saved = list(ctx.saved_tensors)
        grad_hidden = saved.pop(0) * upstream if ctx.needs_input_grad[0] else None
        grad_weight = (saved.pop(0) * upstream).to(ctx.weight_dtype) if ctx.needs_input_grad[1] else None
        return grad_hidden, grad_weight, None


def _chunks(count: int) -> Iterator[slice]:
    """Even ones: a last chunk of few rows would read all of the head for little."""
    pieces = math.ceil(count / CHUNK)
    for piece in range(pieces):
        yield slice(count * piece // pieces, count * (piece + 1) // pieces)


def linear_cross_entropy(hidden_MH: torch.Tensor, weight_VH: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
    """Sum over rows of the cross-entropy of `hidden @ weight.T`, float32 scalar.

    Args:
        hidden_MH: Last hidden states at the predicting positions; products are in their dtype.
        weight_VH: The language model head's weight.
        targets_M: int64 ids to predict.
    """
    if not torch.is_grad_enabled():  # an evaluation: a function of autograd would make gradients all the same
        hidden_MH, weight_VH = hidden_MH.detach(), weight_VH.detach()
    result: torch.Tensor = _LinearCrossEntropy.apply(hidden_MH, weight_VH, targets_M)
    return result
