"""A row to a preference: two answers to one prompt, in the forms that data sets of them have.

    {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}                                       TRL
    {"chosen": "The sky is blue.", "rejected": "The sky is green."}                                 TRL, implicit prompt
    {"prompt": [{"role": "user", ...}], "chosen": [{"role": "assistant", ...}], "rejected": [...]}  TRL, conversational
    {"prompt": "Hi", "chosen": [{"role": "user", "content": "Hi"}, {...}], "rejected": [...]}       UltraFeedback
    {"instruction": "Add.", "input": "2, 3", "chosen": "5", "rejected": "6"}                        LLaMA-Factory
    {"conversations": [{"from": "human", ...}], "chosen": {"from": "gpt", ...}, "rejected": {...}}  LLaMA-Factory
    {"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!", "rejected": "\\n\\nHuman: Hi\\n\\n..."}    Anthropic's HH

What is compared is the last message of each; all before it is the prompt, and has to be the same. What two texts begin
with is their prompt only where no key could hold one (pair_prompts.py).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import a
from ..columns import TURN_KEYS, suggest_pair
from ..record import PAIR_FIELDS, Conversation, Preference, Record, is_blank, is_missing
from .dialogue_texts import go_on, is_dialogue, messages_of, split_texts
from .pair_prompts import PROMPT_KEYS, check_said_once, no_prompt_in, says, without_prompt
from .reader import RowReader
from .row_problem import RowProblem, text_of
from .turns import BESIDE, conversation_of, message_of, read_history, tools_of

_MESSAGES_AS_TEXT = re.compile(r"\s*\[\s*\{(?=.*['\"](?:role|from)['\"]\s*:)", re.DOTALL)
_REPEATED_CHARACTERS = 12  # of a prompt that answers repeat; a shorter one they may begin with by themselves

EMPTY_ANSWER = "empty answer"
SAME_ANSWERS = "chosen and rejected are the same"
OTHER_PROMPT = "chosen and rejected answer different prompts"
"""Why nothing can be learned from a preference."""

Messages = list[dict[str, Any]]


class PreferenceReader(RowReader):
    """Reads rows as preferences; arguments and errors as for `RowReader`, with the fields of `PAIR_FIELDS`."""

    fields = PAIR_FIELDS

    def turns_key(self, row: Mapping[str, Any]) -> str:
        """The key whose turns are the prompt, or ""."""
        return next((key for key in TURN_KEYS if says(row.get(key))), "") if not self._prompt_key(row) else ""

    def keys_read(self, row: Mapping[str, Any]) -> frozenset[str]:
        """The keys of a row that `read` uses, or compares with what it uses."""
        asked = self._mapped.get("instruction", "instruction")
        around = (*BESIDE, "history", asked, "prompt", *TURN_KEYS, self._input_key or "")
        return frozenset([self._keys["chosen"], self._keys["rejected"], *filter(None, around)])

    def _suggest(self, names: list[str]) -> dict[str, str | None]:
        return suggest_pair(names, self.columns)

    def _prompt_key(self, row: Mapping[str, Any]) -> str:
        """The key that holds the prompt by itself, or "" if turns do, or both answers."""
        if "instruction" in self._mapped:
            return self._keys["instruction"]
        return next((key for key in PROMPT_KEYS if says(row.get(key)) and key not in self.left_out), "")

    def _read_row(self, row: dict[str, Any]) -> Preference:
        pair = self._pair(row)
        self._input_seen = self._input_seen or self._input_key in row
        used = self._prompt_key(row) or self.turns_key(row)
        check_said_once(row, pair, used, self._input_key, self.columns)
        return pair

    def _pair(self, row: dict[str, Any]) -> Preference:
        answers = _alike([self._answer(row, field) for field in ("chosen", "rejected")])
        texts = [one for one in answers if isinstance(one, str)]
        asked = self._asked(row)
        if not texts:
            return self._compared(row, asked, [one for one in answers if not isinstance(one, str)])
        if isinstance(asked, Record):
            if asked.input or not is_dialogue(asked.instruction):
                prompt = asked.instruction
                self.repeated += len(prompt) >= _REPEATED_CHARACTERS and all(text.startswith(prompt) for text in texts)
                chosen, rejected = (self._told(row, asked, text) for text in texts)
                return Preference(chosen, rejected)
            texts, asked = [go_on(asked.instruction, text) for text in texts], None
        if asked is not None:
            return self._compared(row, asked, [[_answered(text)] for text in texts])
        if all(map(is_dialogue, texts)):
            return self._compared(row, None, [messages_of(text) for text in texts])
        if problem := without_prompt(row, self.columns, self._answer_keys):
            raise problem
        return Preference(*(self._told(row, one, one.output) for one in split_texts(*texts)))

    @property
    def _answer_keys(self) -> tuple[str, str]:
        return self._keys["chosen"], self._keys["rejected"]

    def _answer(self, row: dict[str, Any], field: str) -> str | Messages:
        """An answer as it stands: a text, or messages."""
        value = self._value(row, field)
        if isinstance(value, Mapping):
            value = [value]
        key = self._keys[field]
        if isinstance(value, str) and _MESSAGES_AS_TEXT.match(value):
            raise RowProblem(
                f"{key!r} holds messages written as text: {reprlib.repr(value)}. Read it with json.loads (with single "
                "quotes, ast.literal_eval), and give the list.",
                f"{key!r} holds messages written as text",
            )
        if isinstance(value, str) or is_missing(value):
            return text_of(value, key)
        return _messages(value, key)

    def _asked(self, row: Mapping[str, Any]) -> Record | Messages | None:
        """What a row says that was asked, beside its answers; None if nothing."""
        if turns := self.turns_key(row):
            return _messages(row[turns], turns)
        key = self._prompt_key(row)
        if key and isinstance(row.get(key), (list, tuple)):
            return _messages(row[key], key)
        if key:
            given = text_of(self._input(row), self._input_key or "input")
            record = Record(text_of(self._value_of(row, key), key), given, "")
            return None if is_blank(record.instruction) and is_blank(given) else record
        return None

    def _value_of(self, row: Mapping[str, Any], key: str) -> Any:
        return self._value(row, "instruction") if key == self._keys["instruction"] else row[key]

    def _told(self, row: Mapping[str, Any], asked: Record, answer: str) -> Record | Conversation:
        """An answer to what a row asks in Alpaca's keys, with what `system`, `history` and `tools` say."""
        return _last_learned(read_history(row, asked._replace(output=answer), self.left_out | self._read))

    def _compared(self, row: Mapping[str, Any], asked: Record | Messages | None, both: list[Messages]) -> Preference:
        """Both lists of messages as answers to what they begin with, or to what is asked beside them."""
        if isinstance(asked, Record):
            told = self._told(row, asked, "-")
            before = [dict(one) for one in told.messages[:-1]] if isinstance(told, Conversation) else []
            asked = before or [{"role": "user", "content": "\n\n".join(filter(None, asked[:2]))}]
        begin = [_without_system(messages[:-1]) for messages in both]
        wanted = _without_system(asked or [])
        if all(messages and messages[0]["role"] != "assistant" for messages in begin):
            said = [one["content"].strip() for one in begin[0]]
            if wanted and begin[0][: len(wanted)] != wanted and wanted[-1]["content"].strip() not in said:
                raise RowProblem(
                    f"the prompt is {reprlib.repr(wanted[-1]['content'])}, and 'chosen' begins with "
                    f"{reprlib.repr(said[0])}. Take out the one that is wrong.",
                    "the prompt is not what 'chosen' begins with",
                )
        elif asked is None:
            raise no_prompt_in(row, self.columns, self._answer_keys)
        else:
            both = [[*asked, *messages] for messages in both]
        system = "" if "system" in self.left_out else text_of(row.get("system"), "system")
        system = _one_system(system, asked or [], both[0])
        tools = [] if "tools" in self.left_out else tools_of(row.get("tools"))
        chosen, rejected = (_conversation(system, messages, tools) for messages in both)
        if isinstance(chosen, Record) and isinstance(rejected, Record):
            return Preference(chosen, rejected)
        return Preference(_as_conversation(chosen), _as_conversation(rejected))  # one may hold a call of a tool


def why_unusable(pair: Preference) -> str:
    """Why nothing can be learned from a preference, or ""."""
    if any(map(is_blank, pair.answers)) and not any(map(_calls, (pair.chosen, pair.rejected))):
        return EMPTY_ANSWER
    if pair.prompt != pair.turned().prompt:
        return OTHER_PROMPT
    chosen, rejected = (text.strip() for text in pair.answers)
    return SAME_ANSWERS if chosen == rejected and _calls(pair.chosen) == _calls(pair.rejected) else ""


def _calls(told: Record | Conversation) -> Any:
    return told.messages[-1].get("tool_calls") if isinstance(told, Conversation) else None


def _alike(answers: list[str | Messages]) -> list[str | Messages]:
    """Both answers as texts or both as messages, a missing one as the other is."""
    texts = [one for one in answers if isinstance(one, str)]
    if len(texts) != 1:
        return answers
    if not is_blank(texts[0]):
        raise RowProblem(
            "one of 'chosen' and 'rejected' is a text and the other one a list of messages. Write both alike.",
            "one of 'chosen' and 'rejected' is a text and the other one messages",
        )
    (other,) = (one for one in answers if not isinstance(one, str))
    return [[*other[:-1], _answered("")] if isinstance(one, str) else one for one in answers]


def _messages(value: Any, key: str) -> Messages:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(turn, Mapping) for turn in value):
        raise RowProblem(
            f"{key!r} is {reprlib.repr(value)} ({type(value).__name__}); it should be a text, or a list of messages, "
            "each with 'role' and 'content'.",
            f"{key!r} is {a(type(value).__name__)}, neither a text nor messages",
        )
    return [message_of(turn, number, key) for number, turn in enumerate(value, 1)]


def _answered(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _conversation(system: str, messages: Messages, tools: list[Mapping[str, Any]]) -> Record | Conversation:
    if messages[-1]["role"] != "assistant":
        raise RowProblem(
            f"the last message is from {messages[-1]['role']!r}; it should be the assistant's answer.",
            "the last message is not the assistant's",
        )
    learned = [False] * (len(messages) - 1) + [True]
    return conversation_of(system, messages, learned, tools, "chosen")


def _as_conversation(told: Record | Conversation) -> Conversation:
    if isinstance(told, Conversation):
        return told
    return Conversation(({"role": "user", "content": told.instruction}, _answered(told.output)), (1,))


def _last_learned(told: Record | Conversation) -> Record | Conversation:
    return told if isinstance(told, Record) else replace(told, trained=(len(told.messages) - 1,))


def _one_system(beside: str, asked: Sequence[dict[str, Any]], told: Sequence[dict[str, Any]]) -> str:
    """The system text to put before messages that lack one: that of the row, or of its prompt."""
    firsts = [next((one["content"] for one in each if one["role"] == "system"), "") for each in (asked, told)]
    texts = {text.strip(): text for text in (beside, *firsts) if not is_blank(text)}
    if len(texts) > 1:
        raise RowProblem(
            f"two system texts differ: {' and '.join(map(reprlib.repr, texts))}. Take out the one that is wrong.",
            "two system texts differ",
        )
    return "" if not texts or not is_blank(firsts[1]) else next(iter(texts.values()))


def _without_system(messages: Sequence[dict[str, Any]]) -> Messages:
    return [one for one in messages if one["role"] != "system"]
