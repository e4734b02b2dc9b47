"""A pack: examples computed together in one row of tokens. Enters: `Examples`. Leaves: arrays ready for the model.

`tree`, the default layout, lays examples out as a prefix tree, depth first; tokens that several of them begin with
stand, and are computed, once:

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

The turns of a conversation are examples that begin one another, so that it costs its own length, not the sum of theirs:

    s u1 a1 $ u2 a2 $ u3 a3 .      tokens; ^k are the targets of turn k's response
         ^1 ^1   ^2 ^2   ^3 ^3

`packed` is the same without sharing, `padded` the usual rectangle. What is shared may be prompt or response: a token on
a path sees exactly what it would see alone. Only the targets differ, so that one position may have several, and one
target may count several times (`weights`). An example's last token (EOS) is a target only; nothing is predicted from
it, so that no layout feeds it to the model unless another example goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from .tokens import Examples

Layout = Literal["padded", "packed", "tree"]


class Pack(NamedTuple):
    """Model inputs and targets of one micro-batch; R rows of T tokens, R = 1 unless padded, M targets."""

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
    weights: np.ndarray | None = None
    """float32, shape (M,): how many examples have this target here; None if each has one."""
    rows: np.ndarray | None = None
    """int64: where in `targets` the supervised tokens of the examples are, one example after the other; None if they
    stand there in this order themselves."""


def build_pack(examples: Examples, members: Sequence[int] | np.ndarray, layout: Layout, multiple: int = 1) -> Pack:
    """Lay some examples out.

    Args:
        examples: All examples.
        members: Indices of the pack's examples, in the order a `Planner` gave them.
        layout: "padded", "packed" or "tree".
        multiple: Fill `packed` and `tree` rows up to `filled_size` with tokens that see only themselves.

    Example:
        >>> two = Examples.from_lists([[1, 2, 3, 7, 0], [1, 2, 4, 8, 9, 0]], prompt_lens=[3, 3])
        >>> build_pack(two, [0, 1], "tree")._asdict()  # doctest: +NORMALIZE_WHITESPACE
        {'input_ids': array([[1, 2, 3, 7, 4, 8, 9]]), 'position_ids': array([[0, 1, 2, 3, 2, 3, 4]]),
         'subtree_end': array([[7, 7, 4, 4, 7, 7, 7]]), 'attention_mask': None,
         'predict_at': array([2, 3, 4, 5, 6]), 'targets': array([7, 0, 8, 9, 0]), 'weights': None, 'rows': None}
    """
    if layout == "padded":
        return _rectangle(examples, members)
    pack = _tree(examples, members, share=layout == "tree")
    size = pack.input_ids.size
    return _filled(pack, filled_size(size, multiple) - size) if multiple > 1 else pack


def per_example(values: np.ndarray, rows: np.ndarray | None, supervised: np.ndarray) -> np.ndarray:
    """Values at targets, summed over those of each example; a target of several examples counts for each of them.

    Args:
        values: Shape (..., M).
        rows: The pack's.
        supervised: int64, shape (n,): supervised tokens of each of its examples, in the pack's order.

    Returns:
        Shape (..., n).
    """
    each = values if rows is None else values[..., rows]
    return np.add.reduceat(each, np.cumsum(supervised) - supervised, axis=-1)


def filled_size(tokens: int, multiple: int) -> int:
    """The least multiple that holds so many tokens; two at least, for a size of one is compiled for itself alone."""
    return tokens if multiple == 1 else max(-(-tokens // multiple), 2) * multiple


def _tree(examples: Examples, members: Sequence[int] | np.ndarray, share: bool) -> Pack:
    shared = shared_prefixes(examples, members) if share else np.zeros(len(members), np.int64)
    sizes = examples.lengths[members] - 1 - shared
    total = int(sizes.sum())
    input_ids, position_ids = np.empty(total, np.int64), np.empty(total, np.int64)
    subtree_end = np.full(total, total, np.int64)
    path = np.empty(int(examples.lengths[members].max()), np.int64)  # path[d]: index of the open token at depth d
    depth = start = 0
    supervised_twice = False
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
        supervised_twice = supervised_twice or kept >= first
        start = end
    positions, following = np.concatenate(predict_at), np.concatenate(targets).astype(np.int64)
    weights = rows = None
    if supervised_twice:
        both = np.stack([positions, following])
        pairs, where, counts = np.unique(both, axis=1, return_inverse=True, return_counts=True)
        if (counts > 1).any():
            (positions, following), weights, rows = pairs, counts.astype(np.float32), where.reshape(-1)
    return Pack(input_ids[None], position_ids[None], subtree_end[None], None, positions, following, weights, rows)


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
    """Tokens each member shares with the one before it, of those that the model is fed.

    Args:
        examples: All examples.
        members: Indices, in the order of `by_prefix`: then neighbours share the most.

    Returns:
        int64, shape (len(members),); the first is 0.
    """
    shared = np.zeros(len(members), np.int64)
    ids, starts, fed = examples.ids, examples.starts, examples.lengths - 1
    for k in range(1, len(members)):
        before, this = members[k - 1], members[k]
        limit = int(min(fed[before], fed[this]))
        differ = ids[starts[before] : starts[before] + limit] != ids[starts[this] : starts[this] + limit]
        at = int(differ.argmax()) if limit else 0
        shared[k] = at if limit and differ[at] else limit
    return shared


def by_prefix(examples: Examples, members: np.ndarray) -> np.ndarray:
    """Members sorted by the ids the model is fed, so that equal prefixes stand together; equal ones by number."""

    def key(member: int) -> tuple[bytes, int]:
        # As big-endian bytes, ids sort the way numbers do.
        return examples.ids[examples.starts[member] : examples.ends[member] - 1].astype(">u4").tobytes(), member

    return np.asarray(sorted(members.tolist(), key=key), np.int64)
