"""What a pack's targets are predicted from: last hidden states, or logits where these are not `hidden @ weight.T`.

For M targets and a vocabulary of V, logits (M, V) are the largest tensor there is; whoever wants them all makes a chunk
of rows at a time (`chunks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .attention import PackMask


def chunks(count: int, most: int) -> Iterator[slice]:
    """Even ones: a last chunk of few rows would read all of the head for little."""
    pieces = math.ceil(count / most)
    for piece in range(pieces):
        yield slice(count * piece // pieces, count * (piece + 1) // pieces)


class PlainHead(NamedTuple):
    """The head of a model whose logits are `hidden @ weight.T`, and the decoder that makes the hidden states."""

    linear: torch.nn.Linear
    decoder: torch.nn.Module

    @classmethod
    def of(cls, model: Any) -> PlainHead:
        """A model's head and decoder."""
        return cls(model.get_output_embeddings(), model.get_decoder())

    @contextmanager
    def hidden_states(self) -> Iterator[list[torch.Tensor]]:
        """A list that the decoder's last hidden states are put into, one tensor a forward pass.

        (`output_hidden_states` would keep every layer's: a number selects one from transformers 5.23 on, and no
        earlier; and it hangs hooks into the layers, which then compile in pieces.)
        """
        kept: list[torch.Tensor] = []
        hook = self.decoder.register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
        try:
            yield kept
        finally:
            hook.remove()


def plain_head(model: Any) -> PlainHead | None:
    """The model's head if its logits are `hidden @ weight.T` and nothing else, tried on four tokens; else None.

    Models that scale or cap their logits, or whose head is quantised, take the slower way over their own logits.
    """
    linear = model.get_output_embeddings()
    own = _unwrapped(linear)
    if type(own) is not torch.nn.Linear or own.bias is not None:
        return None
    head, ids = PlainHead.of(model), torch.arange(4, device=own.weight.device)[None]
    with torch.no_grad(), head.hidden_states() as kept:
        logits = model(input_ids=ids, use_cache=False).logits.float()
        expected = (kept[0].to(own.weight.dtype) @ linear.weight.T).float()
    return head if torch.allclose(logits, expected, rtol=1e-3, atol=1e-3) else None


def _unwrapped(linear: Any) -> Any:
    """A head without what trains rows of it: peft's wrapper, whose `weight` is that of the head with these rows."""
    from peft.utils.other import TrainableTokensWrapper

    return linear.original_module if isinstance(linear, TrainableTokensWrapper) else linear


def predicting(
    model: Any, inputs: dict[str, Any], head: PlainHead | None, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, Any]:
    """What the targets of a pack are predicted from, and the model's output.

    Args:
        model: A causal language model, wrapped or not.
        inputs: A collated pack: `predict_at` (M,) are flat token positions, `targets` (M,) what follows them, `weights`
            (M,), if there are any, how often each counts.
        head: The model's head where its logits are plainly `hidden @ weight.T`; None to take the model's logits.
        dtype: Dtype of the head's matrix multiplication; that of its weights if None.

    Returns:
        With a head last hidden states (M, H) in `dtype`, else logits (M, V) in float32.
    """
    masks = {"attention_mask": inputs.get("attention_mask")}
    if "subtree_end" in inputs:
        subtree_end = inputs["subtree_end"]  # a 4-D mask is handed through as it is: transformers builds none
        masks = {"attention_mask": subtree_end[:, None, None], "pack_mask": PackMask(subtree_end[0])}
    tokens = {"input_ids": inputs["input_ids"], "position_ids": inputs["position_ids"], "use_cache": False}
    if head is None:
        outputs = model(**tokens, **masks)
        return outputs.logits.flatten(0, 1)[inputs["predict_at"]].float(), outputs
    no_logits = torch.empty(0, dtype=torch.long, device=inputs["input_ids"].device)
    with head.hidden_states() as kept:
        outputs = model(**tokens, **masks, logits_to_keep=no_logits)
    return kept[0].flatten(0, 1)[inputs["predict_at"]].to(dtype or _unwrapped(head.linear).weight.dtype), outputs
