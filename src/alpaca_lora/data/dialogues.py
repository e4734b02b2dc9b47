"""Rows of conversations that are no single exchange: what they are in plain words, and how to get records of them.

A record is one exchange of a user and an assistant, in `conversations` or `messages`; several turns are not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .columns import TURN_KEYS
from .wrapped import write_records

_KEYS = (*TURN_KEYS, "conversation", "dialog", "dialogue", "chat", "items")
_USER, _ASSISTANT = ("user", "human"), ("assistant", "gpt")
_ROLES = {"role", "from", "speaker"}
_SPEAKERS = {
    **dict.fromkeys((*_USER, "prompter", "customer", "instructor"), "user"),
    **dict.fromkeys((*_ASSISTANT, "bot", "chatbot", "model", "ai", "chatgpt"), "assistant"),
    "system": "system",
}
ONE_EXCHANGE = "A record is one exchange: split each into one record an exchange, or keep the first exchange."


def is_dialogue(row: Mapping[str, Any]) -> bool:
    """Whether a row has a key that holds a conversation."""
    return any(key in row for key in _KEYS[:-2]) or bool(_turns(row)[1]) or _is_split(row)


def kind_of(row: Mapping[str, Any]) -> str:
    """Which of KINDS a row is, or "" for another conversation, and for none."""
    if _is_split(row):
        return "split"
    key, turns = _turns(row)
    if not turns:
        texts = [row[key] for key in TURN_KEYS if isinstance(row.get(key), str)]
        return "as text" if any(text.startswith('[{"') for text in texts) else ""
    roles, text = _roles(turns), _text_key(turns)
    if any(isinstance(turn.get(text), list) for turn in turns):
        return "parts"
    known = {*roles} <= {*_USER, *_ASSISTANT, "system"}
    if known and ("system" in roles or (isinstance(row.get("system"), str) and row["system"].strip())):
        return "system"
    if not {*map(str.lower, roles)} <= {*_SPEAKERS}:
        return "others"
    if not {*roles} <= {*_USER, *_ASSISTANT} or any(text not in turn for turn in turns):
        return "names"
    if roles[0] in _ASSISTANT:
        return "answer first"
    if not {*roles} & {*_ASSISTANT}:
        return "no answer"
    return "several" if len(turns) > 2 else "another key" if key not in TURN_KEYS else ""


def _split(row: Mapping[str, Any], source: str) -> str:
    made = "[{'messages': row['prompt'] + row['completion']} for row in rows]"
    return f"Join the two: {write_records(made, source)}"


def _parts(row: Mapping[str, Any], source: str) -> str:
    key, _ = _turns(row)
    text = "turn['content'] if isinstance(turn['content'], str) else ''.join(part['text'] for part in turn['content'])"
    made = f"[{{'messages': [dict(role=turn['role'], content={text}) for turn in row[{key!r}]]}} for row in rows]"
    return f"Join the parts into texts: {write_records(made, source)}"


def _system(row: Mapping[str, Any], source: str) -> str:
    key, turns = _turns(row)
    text, role = _text_key(turns), "role" if "role" in turns[0] else "from"
    names = ["user", "assistant"] if role == "role" else ["human", "gpt"]
    first = "[row.get('system')] + " if "system" in row else ""
    made = (
        f"[{{'instruction': '\\n\\n'.join(filter(None, {first}[turn[{text!r}] for turn in row[{key!r}][:-1]])), "
        f"'output': row[{key!r}][-1][{text!r}]}} for row in rows "
        f"if [turn[{role!r}] for turn in row[{key!r}]] in ({['system', *names]}, {names})]"
    )
    return (
        "A record has no place for a system text. To put it in front of the user's text, in conversations of one "
        f"exchange: {write_records(made, source)}"
    )


def _answer_first(row: Mapping[str, Any], source: str) -> str:
    key, turns = _turns(row)
    if len(turns) < 3:
        return "Nothing in them answers a user: remove these rows, or correct the order of their turns."
    made = f"[{{'messages': row[{key!r}][1:3]}} for row in rows if len(row[{key!r}]) > 2]"
    return f"To leave out the assistant's first turn and keep the first exchange: {write_records(made, source)}"


def _no_answer(row: Mapping[str, Any], source: str) -> str:
    key, turns = _turns(row)
    made = f"[{{'instruction': row[{key!r}][0][{_text_key(turns)!r}]}} for row in rows]"
    return (
        "There is nothing in them to train on. To have a model answer them, with alpaca-lora answer MODEL FILE "
        f"OUT.json, write a file of questions: {write_records(made, source)}"
    )


def _names(row: Mapping[str, Any], source: str) -> str:
    key, turns = _turns(row)
    role = next(name for name in ("role", "from", "speaker") if name in turns[0])
    text = next((name for name in ("content", "value", "text", "message") if name in turns[0]), "<the key of the text>")
    renamed = f"[dict(role={_SPEAKERS!r}[turn[{role!r}].lower()], content=turn[{text!r}]) for turn in row[{key!r}]]"
    return f"Give them the usual names: {write_records(_messages(renamed), source)}"


def _as_text(row: Mapping[str, Any], source: str) -> str:
    key = next(key for key in TURN_KEYS if key in row)
    return f"Read the texts as JSON: {write_records(_messages(f'json.loads(row[{key!r}])'), source)}"


def _messages(turns: str) -> str:
    return f"[{{'messages': {turns}}} for row in rows]"


def _other_key(row: Mapping[str, Any], source: str) -> str:
    return f"Give them the usual key: {write_records(_messages(f'row[{_turns(row)[0]!r}]'), source)}"


def _several(row: Mapping[str, Any], source: str) -> str:
    key, _ = _turns(row)
    made = f"[{{'messages': row[{key!r}][:2]}} for row in rows]"
    return f"{ONE_EXCHANGE} To keep the first: {write_records(made, source)}"


def _others(row: Mapping[str, Any], source: str) -> str:
    return "A record is a user's text and its answer: remove these rows, or write them without the other turns."


KINDS: dict[str, tuple[str, Callable[[Mapping[str, Any], str], str]]] = {
    "split": ("conversations, cut into a 'prompt' and a 'completion' that are lists of messages", _split),
    "parts": ("conversations whose texts are lists of parts", _parts),
    "system": ("conversations with a system text", _system),
    "others": ("conversations with turns of others than a user and an assistant, such as tools", _others),
    "names": ("conversations with other names for the speakers or their texts", _names),
    "as text": ("conversations written as JSON inside a text", _as_text),
    "answer first": ("conversations that the assistant begins", _answer_first),
    "no answer": ("conversations in which only the user speaks", _no_answer),
    "several": ("conversations of several turns", _several),
    "another key": ("conversations under a key that is not read", _other_key),
}
"""What conversations of a kind are (a plural), and what to do, told by one of them and the name of their source."""


# How programs write a conversation into one text: what stands before the user's text, before the answer and after it,
# and what shows a system text.
_MARKERS = (
    ("### Human:", "### Assistant:", "### Human:", "### System:"),
    ("### Instruction:", "### Response:", "### Instruction:", "### System:"),
    ("<|im_start|>user", "<|im_end|>\n<|im_start|>assistant", "<|im_end|>", "<|im_start|>system"),
    ("[INST]", "[/INST]", "</s>", "<<SYS>>"),
    ("\n\nHuman:", "\n\nAssistant:", "\n\nHuman:", "\n\nSystem:"),
)


def cut_texts(rows: Sequence[Any], source: str) -> str:
    """What to do with rows of one text: the first exchange, where its markers are known."""
    text = next(row["text"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("text"), str))
    for user, assistant, end, system in _MARKERS:
        if user in text and assistant in text:
            parts = f"row['text'].partition({user!r})[2].partition({assistant!r})"
            made = (
                "[{'instruction': told.strip(), 'input': given.strip(), 'output': answer.strip()} for row in rows "
                f"if {system!r} not in row['text'] for asked, _, rest in [{parts}] "
                f"for answer in [rest.partition({end!r})[0]] for told, _, given in [asked.partition('### Input:')] "
                "if told.strip() and answer.strip()]"
            )
            return f"Cut the first exchange out of each that has no system text: {write_records(made, source)}"
    return "A record is an instruction and its answer: split each text into 'instruction', 'input' and 'output'."


def best_replies(rows: Sequence[Any], source: str) -> str:
    """What to do with OpenAssistant's messages: the first prompts with the replies that were ranked best."""
    made = (
        "[{'instruction': by[row['parent_id']]['text'], 'output': row['text']} "
        "for by in [{row['message_id']: row for row in rows}] for row in rows if row['role'] == 'assistant' "
        "and row.get('rank') in (0, None) and row['parent_id'] in by and not by[row['parent_id']]['parent_id']]"
    )
    return f"Take the first prompts with their best replies: {write_records(made, source)}"


def best_branches(rows: Sequence[Any], source: str) -> str:
    """The same for its trees."""
    row = next(row for row in rows if isinstance(row, Mapping) and ("replies" in row or "prompt" in row))
    top = "row['prompt']" if isinstance(row.get("prompt"), Mapping) else "row"
    made = (
        f"[{{'instruction': {top}['text'], 'output': one['text']}} for row in rows "
        f"for one in {top}['replies'] if one.get('rank') in (0, None)]"
    )
    return f"Take the first prompts with their best replies: {write_records(made, source)}"


def _turns(row: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The key and the turns of a conversation; ("", ()) where there are none."""
    for key, turns in row.items():
        listed = str(key).casefold() in _KEYS and isinstance(turns, (list, tuple)) and turns
        if listed and all(isinstance(turn, Mapping) and not _ROLES.isdisjoint(turn) for turn in turns):
            return str(key), turns
    return "", ()


def _roles(turns: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(next(turn[name] for name in ("role", "from", "speaker") if name in turn)) for turn in turns]


def _text_key(turns: Sequence[Mapping[str, Any]]) -> str:
    return "content" if "role" in turns[0] else "value"


def _is_split(row: Mapping[str, Any]) -> bool:
    both = row.get("prompt"), row.get("completion")
    return all(isinstance(one, list) and one and isinstance(one[0], Mapping) and "role" in one[0] for one in both)
