"""A tree of replies to a conversation, as OpenAssistant publishes them: a question, its answers, questions to those.

    {"prompt": {"role": "prompter", "text": "Hi", "replies": [                  Hi
        {"role": "assistant", "text": "Hello", "rank": 0, "replies": [          |- Hello
            {"role": "prompter", "text": "Bye", "replies": [...]}]},            |  `- Bye - ...
        {"role": "assistant", "text": "What?", "rank": 1, "replies": []}]}}     `- What?

A tree is one record, not one for each path. Paths share their beginnings: as records of their own they would learn an
answer once for each reply below it, and a split would put one question into training and validation both. The layout
`tree` computes what they share once.

An answer is learned if no other one was ranked above it and review, where a message tells of it, approved it. What was
deleted or refused in review is left out, with all replies to it. What is not learned is counted, by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..columns import list_keys
from ..record import Conversation, Record, is_blank, is_missing
from .row_problem import RowProblem, text_of

_ROLES = {"prompter": "user", "user": "user", "assistant": "assistant", "system": "system"}
_STOPPED = ("aborted", "halted")
READ = ("prompt", "replies", "text", "role", "rank", "deleted", "review_result", "tree_state")
"""Keys of a row that are read."""

DELETED = "deleted"
REFUSED = "refused in review"
UNREVIEWED = "not reviewed"
RANKED_BELOW = "not ranked best"
STOPPED = "of trees that were stopped"
EMPTY = "empty"
BELOW = "below messages that are left out"
_LEFT_OUT = (DELETED, REFUSED, EMPTY)


def tree_of(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first message of a row that is a tree; None if it is none."""
    inner = row.get("prompt")
    if isinstance(inner, Mapping) and "replies" in inner:
        return inner
    return row if "replies" in row and "role" in row else None


def read_tree(row: Mapping[str, Any], unlearned: Counter[str]) -> Record | Conversation:
    """What a row that is a tree holds; `trained` of a conversation is empty if no answer of it may be learned.

    Args:
        row: The row.
        unlearned: Is told the answers that are not learned, by reason.

    Raises:
        RowProblem: a message has no text, role or list of replies, or the assistant begins.
    """
    root = tree_of(row)
    assert root is not None
    messages: list[dict[str, Any]] = []
    parents: list[int] = []
    trained: list[int] = []
    stopped = str(row.get("tree_state", "")).startswith(_STOPPED)
    left: list[tuple[Mapping[str, Any], int, bool, bool]] = [(root, -1, True, stopped)]  # depth first, in order
    while left:
        node, parent, best, lost = left.pop()
        role, text, replies = _read(node)
        if node is root and role == "assistant":
            raise RowProblem("the assistant begins this tree, so there is nothing that it answers.")
        why = _why_lost(node)
        why = STOPPED if stopped else why or (BELOW if lost else "" if best else RANKED_BELOW)
        lost = lost or why in _LEFT_OUT
        if role == "assistant" and why:
            unlearned[why] += 1
        if not lost:
            trained += [len(messages)] if role == "assistant" and not why else []
            messages.append({"role": role, "content": text})
            parents.append(parent)
        place = len(messages) - 1
        ranks = [_rank(reply) for reply in replies if _why_lost(reply) not in _LEFT_OUT]
        top = min((rank for rank in ranks if rank is not None), default=None)
        left += [(reply, place, top is None or _rank(reply) == top, lost) for reply in reversed(replies)]
    return _pruned(messages, parents, trained)


def _read(node: object) -> tuple[str, str, list[Any]]:
    if not isinstance(node, Mapping):
        raise RowProblem(f"a reply is {type(node).__name__}, not an object.", "a reply is no object")
    role, replies = node.get("role"), node.get("replies")
    if role not in _ROLES:
        raise RowProblem(f"a message is from {role!r}; known are {list_keys(_ROLES)}.", f"a message is from {role!r}")
    if "text" not in node:
        raise RowProblem(f"a message has no 'text'; its keys are {list_keys(node)}.", "a message has no 'text'")
    if not is_missing(replies) and not isinstance(replies, list):
        raise RowProblem(f"'replies' is {type(replies).__name__}, not a list.", "'replies' is no list")
    return _ROLES[role], text_of(node["text"], "text"), replies if isinstance(replies, list) else []


def _why_lost(node: Any) -> str:
    """Why a message is not learned, by what it says of itself; "" if nothing speaks against it."""
    if not isinstance(node, Mapping):
        return ""
    if node.get("deleted"):
        return DELETED
    if node.get("review_result") is False:
        return REFUSED
    if isinstance(node.get("text"), str) and is_blank(node["text"]):
        return EMPTY
    return UNREVIEWED if "review_result" in node and is_missing(node["review_result"]) else ""


def _rank(node: Any) -> float | None:
    rank = node.get("rank") if isinstance(node, Mapping) else None
    return None if is_missing(rank) or not isinstance(rank, (int, float)) else rank


def _pruned(messages: list[dict[str, Any]], parents: list[int], trained: list[int]) -> Record | Conversation:
    """The messages that something learned stands on or is; a single exchange is a record."""
    needed = [False] * len(messages)
    for learned in trained:
        at = learned
        while at >= 0 and not needed[at]:
            needed[at], at = True, parents[at]
    kept = [at for at, wanted in enumerate(needed) if wanted]
    place = {at: new for new, at in enumerate(kept)} | {-1: -1}
    said = tuple(messages[at] for at in kept)
    if [message["role"] for message in said] == ["user", "assistant"]:
        return Record(said[0]["content"], "", said[1]["content"])
    return Conversation(said, tuple(place[at] for at in trained), parents=tuple(place[parents[at]] for at in kept))
