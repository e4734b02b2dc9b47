"""A row's turns to a conversation, or to a record if they are a single exchange.

    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}            ShareGPT
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}        OpenAI
    {"system": "Be brief.", "history": [["Hi", "Hello"]], "instruction": "Bye.", "output": "Bye"}       LLaMA-Factory

A turn with `"train": false`, `"weight": 0` or `"loss_weight": 0` is context only. Texts may be lists of text parts.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import a
from ..columns import list_keys
from ..record import Conversation, Record, is_blank, is_missing
from .row_problem import RowProblem, text_of

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "observation", "function"), "tool"),
    "function_call": "assistant",
}
"""Names of speakers -> how chat templates call them."""
WEIGHTS = ("train", "weight", "loss_weight")
_KEPT = ("tool_calls", "reasoning_content", "tool_call_id", "name")
READ = {"role", "content", "from", "value", *_KEPT, *WEIGHTS}
"""Keys of a turn that are read."""
BESIDE = ("system", "tools")
"""Keys of a row that are read beside its turns."""


def read_turns(row: Mapping[str, Any], key: str, left_out: frozenset[str]) -> Record | Conversation:
    """The conversation under a row's key; its answers may be blank, which the caller counts.

    Raises:
        RowProblem: it is no list of turns, a turn has no role or text, or nobody answers.
    """
    turns = row[key]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowProblem(
            f"{key!r} is {reprlib.repr(turns)}; it should be a list of turns, each with 'from' and 'value'.",
            f"{key!r} is no list of turns",
        )
    messages = [message_of(turn, number, key) for number, turn in enumerate(turns, 1)]
    trained = [_is_trained(turn, number, key) for number, turn in enumerate(turns, 1)]
    system = "" if "system" in left_out else text_of(row.get("system"), "system")
    tools = [] if "tools" in left_out else tools_of(row.get("tools"))
    return conversation_of(system, messages, trained, tools, key)


def read_history(row: Mapping[str, Any], record: Record, left_out: frozenset[str]) -> Record | Conversation:
    """An Alpaca row with what its `system`, `history` and `tools` say; the record itself if they say nothing.

    Raises:
        RowProblem: one of them is of another kind.
    """
    system = "" if "system" in left_out else text_of(row.get("system"), "system")
    pairs: Any = None if "history" in left_out else row.get("history")
    tools = [] if "tools" in left_out else tools_of(row.get("tools"))
    if is_missing(pairs) or pairs == "":
        pairs = []
    listed = isinstance(pairs, (list, tuple)) and all(isinstance(pair, (list, tuple)) for pair in pairs)
    if not listed or any(len(pair) != 2 for pair in pairs):
        raise RowProblem(
            f"'history' is {reprlib.repr(pairs)}; it should be a list of pairs, each a question and its answer.",
            "'history' is no list of pairs",
        )
    if is_blank(system) and not pairs and not tools:
        return record
    said = [text_of(text, "history") for pair in pairs for text in pair]
    asked = "\n\n".join(filter(None, (record.instruction, record.input)))
    roles = ["user", "assistant"] * (len(pairs) + 1)
    texts = [*said, asked, record.output]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return conversation_of(system, messages, [True] * len(messages), tools, "history")


def conversation_of(
    system: str, messages: list[dict[str, Any]], trained: list[bool], tools: list[Mapping[str, Any]], key: str
) -> Record | Conversation:
    if system and not is_blank(system):
        messages, trained = [{"role": "system", "content": system}, *messages], [False, *trained]
    kept = [place for place, one in enumerate(messages) if one["role"] != "system" or not is_blank(one["content"])]
    messages, trained = [messages[place] for place in kept], [trained[place] for place in kept]
    roles = [message["role"] for message in messages]
    spoken = [role for role in roles if role != "system"]
    if "assistant" not in spoken:
        who = ", ".join(dict.fromkeys(roles)) or "nobody"
        raise RowProblem(f"{key!r}: nobody answers (turns: {who}).", "nobody answers in this conversation")
    if spoken[0] == "assistant":
        raise RowProblem(
            f"{key!r}: the assistant begins this conversation, so there is nothing its first turn answers.",
            "the assistant begins this conversation",
        )
    learned = tuple(place for place, role in enumerate(roles) if role == "assistant" and trained[place])
    if not learned:
        raise RowProblem(f"{key!r}: no turn of the assistant is to be learned.", "no turn is to be learned")
    messages, roles = messages[: learned[-1] + 1], roles[: learned[-1] + 1]  # nothing is learned from what follows
    plain = all(message.keys() == {"role", "content"} for message in messages)
    if roles == ["user", "assistant"] and plain and not tools:
        return Record(messages[0]["content"], "", messages[1]["content"])
    return Conversation(tuple(messages), learned, tuple(tools))


def role_of(turn: Mapping[str, Any]) -> str | None:
    """Who says a turn, as chat templates call them; None if it is not known."""
    said = turn.get("role", turn.get("from"))
    return ROLES.get(said) if isinstance(said, str) else None


def message_of(turn: Mapping[str, Any], number: int, key: str) -> dict[str, Any]:
    role_key, text_key = ("role", "content") if "role" in turn else ("from", "value")
    said = turn.get(role_key)
    role = role_of(turn)
    if role is None:
        raise RowProblem(
            f"{key!r}: turn {number} is from {said!r}; known are {list_keys(ROLES)}.",
            f"{key!r}: a turn is from {said!r}",
        )
    more = {name: turn[name] for name in _KEPT if not is_missing(turn.get(name)) and turn[name] not in ("", [])}
    if text_key not in turn and "tool_calls" not in more:
        raise RowProblem(
            f"{key!r}: turn {number} has no {text_key!r}; its keys are {list_keys(turn)}.",
            f"{key!r}: a turn has no {text_key!r}",
        )
    text = _content(turn.get(text_key), f"{key}[{number - 1}].{text_key}")
    if said == "function_call":
        call = {"type": "function", "function": _called(text, number, key)}
        return {"role": role, "content": "", "tool_calls": [call]}
    return {"role": role, "content": text, **more}


def _content(value: Any, where: str) -> str:
    """A text, or the texts of its parts put together."""
    if not isinstance(value, list):
        return text_of(value, where)
    texts = []
    for part in value:
        said = part if isinstance(part, dict) else {"text": part}
        kind, text = said.get("type", "text"), said.get("text", said.get("value"))
        if kind != "text" or not isinstance(text, str):
            raise RowProblem(
                f"{where!r} holds {a(str(kind))} part, which a text model cannot read.",
                f"a text holds {a(str(kind))} part",
            )
        texts.append(text_of(text, where))
    return "".join(texts)


def _called(text: str, number: int, key: str) -> Mapping[str, Any]:
    try:
        call = json.loads(text)
    except ValueError:
        call = None
    if not isinstance(call, dict) or "name" not in call:
        raise RowProblem(
            f"{key!r}: turn {number} is a function call, but its text is no JSON object with a 'name'.",
            f"{key!r}: the text of a function call is no JSON object with a 'name'",
        )
    return call


def tools_of(value: Any) -> list[Mapping[str, Any]]:
    if is_missing(value) or value in ("", [], "[]"):
        return []
    try:
        tools = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        tools = None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowProblem(
            f"'tools' is {reprlib.repr(value)}; it should be a list of JSON schemas.",
            "'tools' is no list of JSON schemas",
        )
    return tools


def _is_trained(turn: Mapping[str, Any], number: int, key: str) -> bool:
    """Whether a turn is to be learned, if it is the assistant's."""
    for name in WEIGHTS:
        value = turn.get(name)
        if is_missing(value):
            continue
        if value not in (0, 1):  # True and False are, too
            raise RowProblem(
                f"{key!r}: {name!r} of turn {number} is {value!r}; a turn is learned (1) or not (0).",
                f"{key!r}: {name!r} of a turn is neither 0 nor 1",
            )
        if not value:
            return False
    return True


def blank_answer(record: Record | Conversation) -> bool:
    """Whether an answer that is to be learned is empty."""
    if isinstance(record, Record):
        return is_blank(record.output)
    learned: Sequence[Mapping[str, Any]] = [record.messages[place] for place in record.trained]
    return any(is_blank(message["content"]) and not message.get("tool_calls") for message in learned)
