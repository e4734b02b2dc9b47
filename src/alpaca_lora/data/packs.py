"""A pack: examples computed together in one row of tokens. Enters: `Examples`. Leaves: arrays ready for the model.

`tree`, the default layout, lays examples out as a prefix tree, depth first; tokens that several prompts share stand,
and are computed, once:

    index         0 1 2 3 4 5  | 6 7 8 9 ...        12 ...
    tokens        B e l o w .  | C a t s ? M e o w  | D o g s ? W o o f
    position_ids  0 1 2 3 4 5  | 6 7 ...            | 6 7 ...
    subtree_end   18  ...  18  | 12 ...         12  | 18 ...         18

Token i sees token j exactly when `j <= i < subtree_end[j]`: j stands on i's own path to the root. That one integer a
token is the whole mask (ancestor test on an Euler tour; sharing for preference pairs: arXiv 2410.20305):

            B . C w D f
          B x              B w (root to leaf) is one example, B f another;
          . x x            w never sees D, f never sees C.
          C x x x
          w x x x x
          D x x . . x
          f x x . . x x

`packed` is the same without sharing, `padded` the usual rectangle. What may be shared: prompt tokens, but never the
last one of an example, whose next-token target is that example's own first response token. An example's last token
(EOS) is a target only; nothing is predicted from it, so no layout feeds it to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from .tokens import Examples

Layout = Literal["padded", "packed", "tree"]


class Pack(NamedTuple):
    """Model inputs and targets of one micro-batch; R rows of T tokens, R = 1 unless padded, M supervised tokens."""

    input_ids: np.ndarray
    """int64, shape (R, T)."""
    position_ids: np.ndarray
    """int64, shape (R, T): depth of each token in its example."""
    subtree_end: np.ndarray | None
    """int64, shape (1, T); None when padded."""
    attention_mask: np.ndarray | None
    """int64, shape (R, T), 1 for tokens and 0 for padding; None unless padded."""
    predict_at: np.ndarray
    """int64, shape (M,): index in the flattened (R * T) tokens from which each target is predicted."""
    targets: np.ndarray
    """int64, shape (M,): the token that follows."""


def build_pack(examples: Examples, members: Sequence[int] | np.ndarray, layout: Layout, multiple: int = 1) -> Pack:
    """Lay some examples out.

    Args:
        examples: All examples.
        members: Indices of the pack's examples, in the order a `Planner` gave them.
        layout: "padded", "packed" or "tree".
        multiple: Fill `packed` and `tree` rows up to a multiple of this with tokens that see only themselves.

    Example:
        >>> two = Examples.from_lists([[1, 2, 3, 7, 0], [1, 2, 4, 8, 9, 0]], prompt_lens=[3, 3])
        >>> build_pack(two, [0, 1], "tree")._asdict()  # doctest: +NORMALIZE_WHITESPACE
        {'input_ids': array([[1, 2, 3, 7, 4, 8, 9]]), 'position_ids': array([[0, 1, 2, 3, 2, 3, 4]]),
         'subtree_end': array([[7, 7, 4, 4, 7, 7, 7]]), 'attention_mask': None,
         'predict_at': array([2, 3, 4, 5, 6]), 'targets': array([7, 0, 8, 9, 0])}
    """
    if layout == "padded":
        return _rectangle(examples, members)
    pack = _tree(examples, members, share=layout == "tree")
    return _filled(pack, -pack.input_ids.size % multiple) if multiple > 1 else pack


def _tree(examples: Examples, members: Sequence[int] | np.ndarray, share: bool) -> Pack:
    shared = shared_prefixes(examples, members) if share else np.zeros(len(members), np.int64)
    sizes = examples.lengths[members] - 1 - shared
    total = int(sizes.sum())
    input_ids, position_ids = np.empty(total, np.int64), np.empty(total, np.int64)
    subtree_end = np.full(total, total, np.int64)
    path = np.empty(int(examples.lengths[members].max()), np.int64)  # path[d]: index of the open token at depth d
    depth = start = 0
    predict_at, targets = [], []
    for member, kept in zip(members, shared, strict=True):
        ids = examples[member].ids
        subtree_end[path[kept:depth]] = start  # what the next branch does not share is closed here
        depth, end = len(ids) - 1, start + len(ids) - 1 - kept
        input_ids[start:end] = ids[kept:depth]
        position_ids[start:end] = np.arange(kept, depth)
        path[kept:depth] = np.arange(start, end)
        first = examples.supervised_from[member]
        predict_at.append(path[first - 1 : depth].copy())
        targets.append(ids[first:])
        start = end
    return Pack(
        input_ids[None],
        position_ids[None],
        subtree_end[None],
        None,
        np.concatenate(predict_at),
        np.concatenate(targets).astype(np.int64),
    )


def _filled(pack: Pack, count: int) -> Pack:
    assert pack.subtree_end is not None
    size = pack.input_ids.size
    zeros, alone = np.zeros((1, count), np.int64), np.arange(size + 1, size + count + 1)[None]
    return pack._replace(
        input_ids=np.concatenate([pack.input_ids, zeros], axis=1),
        position_ids=np.concatenate([pack.position_ids, zeros], axis=1),
        subtree_end=np.concatenate([pack.subtree_end, alone], axis=1),
    )


def _rectangle(examples: Examples, members: Sequence[int] | np.ndarray) -> Pack:
    width = int(examples.lengths[members].max()) - 1
    input_ids = np.zeros((len(members), width), np.int64)  # any id will do where the mask is 0
    attention_mask = np.zeros_like(input_ids)
    predict_at, targets = [], []
    for row, member in enumerate(members):
        ids = examples[member].ids
        input_ids[row, : len(ids) - 1] = ids[:-1]
        attention_mask[row, : len(ids) - 1] = 1
        first = examples.supervised_from[member]
        predict_at.append(row * width + np.arange(first - 1, len(ids) - 1))
        targets.append(ids[first:])
    position_ids = np.broadcast_to(np.arange(width), input_ids.shape).copy()
    return Pack(
        input_ids,
        position_ids,
        None,
        attention_mask,
        np.concatenate(predict_at),
        np.concatenate(targets).astype(np.int64),
    )


def shared_prefixes(examples: Examples, members: Sequence[int] | np.ndarray) -> np.ndarray:
    """Tokens each member may share with the one before it: the common part of their prompts, but for the last token.

    Args:
        examples: All examples.
        members: Indices, in `prefix_rank` order: then neighbours share the most.

    Returns:
        int64, shape (len(members),); the first is 0.
    """
    shared = np.zeros(len(members), np.int64)
    ids, starts = examples.ids, examples.offsets
    share = examples.supervised_from - 1
    for k in range(1, len(members)):
        before, this = members[k - 1], members[k]
        most = int(min(share[before], share[this]))
        differ = ids[starts[before] : starts[before] + most] != ids[starts[this] : starts[this] + most]
        at = int(differ.argmax()) if most else 0
        shared[k] = at if most and differ[at] else most
    return shared


def prefix_rank(examples: Examples) -> np.ndarray:
    """Place of each example when prompts are sorted by their ids: int64, shape (n,). Equal prefixes stand together."""
    starts = examples.offsets[:-1]
    ends = starts + examples.supervised_from - 1
    # As big-endian bytes, ids sort the way numbers do.
    keys = [examples.ids[a:b].astype(">u4").tobytes() for a, b in zip(starts, ends, strict=True)]
    rank = np.empty(len(examples), np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return rank
