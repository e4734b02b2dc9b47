"""Prompt and answers written as single texts: Anthropic's dialogues, and pairs that begin with their prompt.

"\\n\\nHuman: Hi\\n\\nAssistant: Hello!"                  messages of two speakers
"The sky is blue.", "The sky is green."               a prompt, "The sky is", and two answers
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

from ..record import Record
from .row_problem import RowProblem

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def no_prompt() -> RowProblem:
    """What is wrong with answers to nothing."""
    return RowProblem(
        "there is no prompt: neither 'prompt' nor 'instruction' nor 'messages', and the two answers begin with nothing "
        "that they share. Name the key that holds it with columns={'instruction': ...}.",
        "there is no prompt",
    )


def is_dialogue(text: str) -> bool:
    """Whether a text begins with the name of a speaker."""
    return _SPEAKER.match(text) is not None


def go_on(prompt: str, text: str) -> str:
    """A dialogue that goes on with a text, unless it begins with the prompt itself."""
    if is_dialogue(text):
        return text
    return f"{prompt.rstrip()} {text}" if prompt.rstrip().endswith("Assistant:") else f"{prompt}\n\nAssistant: {text}"


def messages_of(text: str) -> list[dict[str, Any]]:
    """The messages of a dialogue that is written as one text."""
    _, *parts = _SPEAKER.split(text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[name], "content": said.strip()} for name, said in pairs]


def split_texts(chosen: str, rejected: str) -> list[Record]:
    """Two texts that begin with their prompt: it ends before the first word that differs."""
    words = [re.findall(r"\s*\S+", text) for text in (chosen, rejected)]
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*words, strict=False)))
    shared = min(shared, *(len(one) - 1 for one in words))  # both keep an answer
    if shared < 1:
        raise no_prompt()
    prompt = "".join(words[0][:shared])
    return [Record(prompt.strip(), "", "".join(one[shared:]).strip()) for one in words]
