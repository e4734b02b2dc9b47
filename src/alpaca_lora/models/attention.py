"""Attention over a pack, registered with transformers under `IMPLEMENTATION`; no model is patched.

Token i sees token j exactly when `j <= i < subtree_end[j]` (data/packs.py draws it). Three ways to compute it agree:

    dense     one N x N mask for scaled_dot_product_attention: the reference, for tests
    branches  CPU: one call a branch of the tree, on its own keys and its ancestors'; nothing masked is computed but
              the upper triangle of each branch
    blocks    CUDA: compiled FlexAttention (arXiv 2412.05496), which skips the 128 x 128 blocks the mask empties

                 keys   B e l o w .  C a t s ?  D o g s ?
    queries B..  own    \\
            C..  own    x x x x x x  \\
            D..  own    x x x x x x           \\                x: ancestors', whole; \\: own, causal

A forward without a pack (generation, padded batches) runs transformers' own SDPA attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

IMPLEMENTATION = "alpaca_lora_packs"
BLOCK = 128  # FlexAttention's block: the CUDA path wants packs of a multiple of it

# Shapes: B = 1 (one pack), H query heads, G key/value heads, N tokens of the pack, D head size.


class Branch(NamedTuple):
    """A run of tokens that sees its ancestors whole and itself causally."""

    start: int
    end: int
    ancestors: tuple[int, ...]
    """Indices of the branches on its path to the root, root first."""


@dataclass(frozen=True, eq=False)
class PackMask:
    """Who sees whom in one pack, in the form each implementation wants; made once, used by every layer.

    Args:
        subtree_end: int64, shape (N,).
        implementation: "dense", "branches" or "blocks"; chosen by device where None.
    """

    subtree_end: torch.Tensor
    implementation: str | None = None

    @cached_property
    def dense(self) -> torch.Tensor:
        """bool, shape (1, 1, N, N): True where the row's token sees the column's."""
        index = torch.arange(len(self.subtree_end), device=self.subtree_end.device)
        return ((index[None] <= index[:, None]) & (index[:, None] < self.subtree_end[None]))[None, None]

    @cached_property
    def branches(self) -> list[Branch]:
        """The tree's branches, in the order of their tokens."""
        ends = self.subtree_end.tolist()
        starts = [i for i in range(len(ends)) if i == 0 or ends[i - 1] <= i or ends[i - 1] != ends[i]]
        branches: list[Branch] = []
        open_branches: list[int] = []
        for start, end in zip(starts, [*starts[1:], len(ends)], strict=True):
            while open_branches and ends[branches[open_branches[-1]].start] <= start:
                open_branches.pop()
            branches.append(Branch(start, end, tuple(open_branches)))
            open_branches.append(len(branches) - 1)
        return branches

    @cached_property
    def branch_masks(self) -> list[torch.Tensor | None]:
        """For each branch with ancestors: float32, shape (own, ancestors + own), 0 where seen and -inf where not."""
        masks: list[torch.Tensor | None] = []
        for start, end, ancestors in self.branches:
            before = sum(self.branches[a].end - self.branches[a].start for a in ancestors)
            causal = torch.full((end - start, before + end - start), float("-inf")).triu_(before + 1)
            masks.append(causal if before else None)
        return masks

    @cached_property
    def blocks(self) -> Any:
        """FlexAttention's BlockMask."""
        from torch.nn.attention.flex_attention import create_block_mask

        subtree_end = self.subtree_end

        def sees(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return (key <= query) & (query < subtree_end[key])

        size = len(subtree_end)
        return create_block_mask(sees, None, None, size, size, device=subtree_end.device, BLOCK_SIZE=BLOCK)


def pack_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    pack_mask: PackMask | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface.

    Args:
        module: The attention layer.
        query: Shape (B, H, N, D).
        key: Shape (B, G, N, D).
        value: Shape (B, G, N, D).
        attention_mask: For ordinary forwards, as transformers made it.
        scaling: Scale of the attention scores; 1 / sqrt(D) if None.
        dropout: Must be 0 for packs.
        pack_mask: Who sees whom; None for an ordinary forward.
        **kwargs: For transformers' own attention.

    Returns:
        Shape (B, N, H, D), and None for the weights.
    """
    if pack_mask is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if dropout:
        raise ValueError(f"attention_dropout={dropout}: packs need attention without dropout.")
    if pack_mask.implementation == "dense":
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=pack_mask.dense, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
        )
    elif pack_mask.implementation == "blocks" or (pack_mask.implementation is None and query.is_cuda):
        out = _by_blocks(query, key, value, pack_mask, scaling)
    else:
        out = _by_branches(query, key, value, pack_mask, scaling)
    return out.transpose(1, 2).contiguous(), None


def _by_branches(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: PackMask, scaling: float | None
) -> torch.Tensor:
    # One split each: the backward of a slice would fill a tensor of the pack's size with zeros, for every branch.
    sizes = [branch.end - branch.start for branch in mask.branches]
    queries, keys, values = (tensor.split(sizes, dim=2) for tensor in (query, key, value))
    grouped = key.shape[1] != query.shape[1]
    outs = []
    for own, (branch, branch_mask) in enumerate(zip(mask.branches, mask.branch_masks, strict=True)):
        path = [*branch.ancestors, own]
        outs.append(
            scaled_dot_product_attention(
                queries[own],
                torch.cat([keys[b] for b in path], dim=2) if branch.ancestors else keys[own],
                torch.cat([values[b] for b in path], dim=2) if branch.ancestors else values[own],
                attn_mask=branch_mask,
                is_causal=branch_mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outs, dim=2)


def _by_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: PackMask, scaling: float | None
) -> torch.Tensor:
    out = _flex_attention(query.is_cuda)(
        query, key, value, block_mask=mask.blocks, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
    )
    assert isinstance(out, torch.Tensor)
    return out


_compiled: list[Any] = []


def _flex_attention(on_cuda: bool) -> Any:
    """FlexAttention, compiled once per process on CUDA, eager elsewhere, forward only."""
    from torch.nn.attention.flex_attention import flex_attention

    if not on_cuda:
        return flex_attention
    if not _compiled:
        _compiled.append(torch.compile(flex_attention))  # packs differ in length: shapes become dynamic
    return _compiled[0]


def runs_packs(config: Any) -> bool:
    """Whether a model's attention is plain causal in every layer, so that packs are exact for it."""
    kinds = getattr(config, "layer_types", None)
    plain = kinds is None or all(kind == "full_attention" for kind in kinds)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    special = [getattr(config, name, None) for name in ("attention_chunk_size", "attn_logit_softcapping", "alibi")]
    return plain and not window and not any(special) and not getattr(config, "attention_dropout", 0)


AttentionInterface.register(IMPLEMENTATION, pack_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
