"""Attention over a pack, registered with transformers under `IMPLEMENTATION`; no model is patched.

Token i sees token j exactly when `j <= i < subtree_end[j]` (data/packs.py draws it). Three ways to compute it agree:

    dense     one N x N mask for scaled_dot_product_attention: the reference, for tests
    branches  one call a branch of the tree, on its own keys and its ancestors'; nothing masked is computed but the
              upper triangle of each branch. CPUs, and GPUs whose shared memory FlexAttention's kernels may not fit
    blocks    CUDA from compute capability 8.0 on: compiled FlexAttention (arXiv 2412.05496), which skips the 128 x 128
              blocks the mask empties

                 keys   B e l o w .  C a t s ?  D o g s ?
    queries B..  own    \\
            C..  own    x x x x x x  \\
            D..  own    x x x x x x           \\                x: ancestors', whole; \\: own, causal

A forward without a pack (generation, padded batches) runs transformers' own SDPA attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

IMPLEMENTATION = "alpaca_lora_packs"
BLOCK = 128  # FlexAttention's block: it wants packs of a multiple of it
GRAPHS = 64  # of FlexAttention in a process: a model has at most six, and torch's own limit is eight

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
        implementation: "dense", "branches" or "blocks"; chosen by device if "".
    """

    subtree_end: torch.Tensor
    implementation: str = ""
    blocks: Any = field(init=False, default=None)
    """FlexAttention's BlockMask, for "blocks"; here before a layer is, so that no compiled layer makes one."""

    def __post_init__(self) -> None:
        if not self.implementation:
            chosen = "blocks" if takes_blocks(self.subtree_end.device) else "branches"
            object.__setattr__(self, "implementation", chosen)
        if self.implementation == "blocks":
            object.__setattr__(self, "blocks", _block_mask(self.subtree_end))

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
            shape, device = (end - start, before + end - start), self.subtree_end.device
            causal = torch.full(shape, float("-inf"), device=device).triu_(before + 1)
            masks.append(causal if before else None)
        return masks


def _block_mask(subtree_end: torch.Tensor) -> Any:
    """FlexAttention's BlockMask of a pack of a multiple of `BLOCK` tokens.

    With lo and hi the smallest and largest `subtree_end` in a block of keys, a block of queries q after that of the
    keys sees all of it where even lo is not before q's end, and something of it where hi is beyond q's beginning.
    (`create_block_mask` would make N x N masks several times over.)
    """
    from torch.nn.attention.flex_attention import BlockMask

    size, device = len(subtree_end), subtree_end.device
    ends = subtree_end.int()  # a mask of int32 costs half of what one of int64 does
    lowest, highest = ends.view(-1, BLOCK).aminmax(dim=1)
    block = torch.arange(size // BLOCK, device=device)
    queries, keys = block[:, None], block[None]
    whole = (keys < queries) & (lowest[keys] >= (queries + 1) * BLOCK)
    some = ((keys < queries) & (highest[keys] > queries * BLOCK) & ~whole) | (queries == keys)

    def sees(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < ends[key])

    return BlockMask.from_kv_blocks(*_listed(some), *_listed(whole), BLOCK, sees, (size, size))


def _listed(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks of keys each block of queries has, and which, those first: int32, (1, 1, Q) and (1, 1, Q, K)."""
    counts, order = blocks.sum(1, dtype=torch.int32), blocks.int().argsort(dim=1, descending=True, stable=True)
    return counts[None, None], order.int()[None, None]


def takes_blocks(device: torch.device) -> bool:
    """Whether attention over packs is FlexAttention on this device."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


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
    if query.dtype != value.dtype:  # autocast over float32 weights: rotary positions are float32, values are not
        query, key = query.to(value.dtype), key.to(value.dtype)
    if pack_mask.implementation == "dense":
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=pack_mask.dense, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
        )
    elif pack_mask.implementation == "blocks":
        out = _by_blocks(query, key, value, pack_mask, scaling)
    else:
        out = _by_branches(query, key, value, pack_mask, scaling)
    return out.transpose(1, 2).contiguous(), None


@torch.compiler.disable
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
                attn_mask=None if branch_mask is None else branch_mask.to(query.dtype),
                is_causal=branch_mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outs, dim=2)


def _by_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: PackMask, scaling: float | None
) -> torch.Tensor:
    # In a layer that is being compiled, FlexAttention becomes a part of its graph.
    compile_here = query.is_cuda and not torch.compiler.is_compiling()
    out = _flex_attention(compile_here)(
        query, key, value, block_mask=mask.blocks, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
    )
    assert isinstance(out, torch.Tensor)
    return out


_compiled: list[Any] = []


def _flex_attention(compiled: bool) -> Any:
    """FlexAttention, compiled once per process, or as it is (on a CPU, forward only)."""
    from torch.nn.attention.flex_attention import flex_attention

    if not compiled:
        return flex_attention
    if not _compiled:
        _compiled.append(torch.compile(flex_attention))  # packs differ in length: shapes become dynamic
    return _compiled[0]


@contextmanager
def always_compiled() -> Iterator[None]:
    """While FlexAttention is in use: more graphs than torch allows by itself, and an error where they do not suffice.

    Past its limit torch would run FlexAttention uncompiled without a word: all N x N scores of every head, in float32.
    """
    import torch._dynamo

    with torch._dynamo.config.patch(recompile_limit=GRAPHS, fail_on_recompile_limit_hit=True):
        yield


def runs_packs(config: Any) -> bool:
    """Whether a model's attention is plain causal in every layer, so that packs are exact for it."""
    kinds = getattr(config, "layer_types", None)
    plain = kinds is None or all(kind == "full_attention" for kind in kinds)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    special = [getattr(config, name, None) for name in ("attention_chunk_size", "attn_logit_softcapping", "alibi")]
    return plain and not window and not any(special) and not getattr(config, "attention_dropout", 0)


AttentionInterface.register(IMPLEMENTATION, pack_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
