"""Conversations that cannot be read, by kind: what they are, and what to do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..columns import TURN_KEYS
from .turns import ROLES, WEIGHTS

_KEYS = (*TURN_KEYS, "conversation", "dialog", "dialogue", "chat", "items")
_ANSWERS = {role for role, plain in ROLES.items() if plain == "assistant"}
_SPEAKERS = {"prompter", "customer", "instructor", "bot", "chatbot", "model", "ai", "chatgpt"}
_ROLE_KEYS = ("role", "from", "speaker")
FORM = "{'messages': [{'role': 'user', 'content': <text>}, {'role': 'assistant', 'content': <text>}]}"

# Kind -> what such conversations are, what to do, and the expression for their records; KEY is the key of the turns.
KINDS = {
    "split": ("conversations, cut into a 'prompt' and a 'completion' that are lists of messages", "Join the two",
              "[{'messages': row.pop('prompt') + row.pop('completion'), **row} for row in rows]"),
    "apart": ("conversations whose last answer stands apart, in 'completion'", "Put it behind the others",
              "[{'messages': [*row.pop('prompt'), {'role': 'assistant', 'content': row.pop('completion')}], **row} "
              "for row in rows]"),
    "parts": ("conversations with images, audio or other parts that are no text",
              "A text model reads text: remove these rows, or write what the parts show in words.", ""),
    "others": ("conversations with turns of unknown speakers",
               f"Known are {', '.join(map(repr, ROLES))}: rename the others, or remove these rows.", ""),
    "names": ("conversations with other names for the speakers or their texts",
              "Give them the usual names: {'role': 'user' or 'assistant', 'content': <text>}.", ""),
    "as text": ("conversations written as JSON inside a text", "Read the texts as JSON",
                "[{'messages': json.loads(row.pop(KEY)), **row} for row in rows]"),
    "answer first": ("conversations that the assistant begins",
                     "Remove the assistant's first turn, or these rows if nothing in them answers a user.", ""),
    "no answer": ("conversations in which nobody answers",
                  "There is nothing in them to train on: remove these rows, or write their first turns as a file of "
                  "questions for alpaca-lora answer MODEL FILE OUT.json.", ""),
    "unlearned": ("conversations of which nothing is to be learned",
                  "Remove these rows, or the marks ('train', 'weight', 'loss_weight') of the turns to learn.", ""),
    "another key": ("conversations under a key that is not read", "Give them the usual key",
                    "[{'messages': row.pop(KEY), **row} for row in rows]"),
}  # fmt: skip


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a row has a key that holds a conversation."""
    return any(key in row for key in _KEYS[:-2]) or bool(_turns(row)[1]) or _is_split(row)


def kind_of(row: Mapping[str, Any]) -> str:
    """Which of KINDS a row is, or "" for another conversation, and for none."""
    if _is_split(row):
        return "split" if isinstance(row["completion"], list) else "apart"
    key, turns = _turns(row)
    if not turns:
        texts = [row[key] for key in TURN_KEYS if isinstance(row.get(key), str)]
        return "as text" if any(text.startswith('[{"') for text in texts) else ""
    roles = [str(next(turn[name] for name in _ROLE_KEYS if name in turn)) for turn in turns]
    text = "content" if "role" in turns[0] else "value"
    if any(_has_other_parts(turn.get(text)) for turn in turns):
        return "parts"
    if not {*map(str.casefold, roles)} <= {*ROLES, *_SPEAKERS}:
        return "others"
    if not {*roles} <= {*ROLES} or any(text not in turn and "tool_calls" not in turn for turn in turns):
        return "names"
    if next((role for role in roles if role != "system"), "") in _ANSWERS:
        return "answer first"
    if not {*roles} & _ANSWERS:
        return "no answer"
    marks = [[turn.get(mark) for mark in WEIGHTS] for turn, role in zip(turns, roles, strict=True) if role in _ANSWERS]
    if all(0 in ours for ours in marks):
        return "unlearned"
    return "another key" if key not in TURN_KEYS else ""


def turns_key(row: Mapping[str, Any]) -> str:
    """The key of a row's turns, or of the text that they are written in."""
    return _turns(row)[0] or next((key for key in TURN_KEYS if key in row), "")


def _turns(row: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The key and the turns of a conversation; ("", ()) if there are none."""
    for key, turns in row.items():
        listed = str(key).casefold() in _KEYS and isinstance(turns, (list, tuple)) and turns
        if listed and all(isinstance(turn, Mapping) and not turn.keys().isdisjoint(_ROLE_KEYS) for turn in turns):
            return str(key), turns
    return "", ()


def _has_other_parts(content: Any) -> bool:
    parts = content if isinstance(content, list) else ()
    return any(isinstance(part, Mapping) and part.get("type", "text") != "text" for part in parts)


def _is_split(row: Mapping[str, Any]) -> bool:
    prompt, completion = row.get("prompt"), row.get("completion")
    return _are_messages(prompt) and (_are_messages(completion) or isinstance(completion, str))


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]
