"""Tokens: records as token ids.

text_codec.py    text -> ids and back                encoder.py    records -> examples, by a prompt template
chat_encoder.py  conversations, by a chat template   examples.py   examples, in a few arrays
cache.py         examples on the disk
"""

from __future__ import annotations

from typing import Any

from ...prompts import CHAT, ChatTemplate, PromptTemplate, Template
from .chat_encoder import ChatEncoder, user_message
from .encoder import Encoder
from .examples import Example, Examples

__all__ = ["Encoder", "Example", "Examples", "encoder_for", "template_named", "user_message"]


def encoder_for(tokenizer: Any, template: str | PromptTemplate) -> Encoder:
    """The encoder of a tokenizer and a template, or of a template's name as `prompt_template` has it.

    Raises:
        TemplateError: there is no such template, or it cannot be used with this tokenizer.
        ModelError: the tokenizer cannot be used.
    """
    if isinstance(template, str):
        template = template_named(template, tokenizer)
    return ChatEncoder(tokenizer, template) if isinstance(template, ChatTemplate) else Encoder(tokenizer, template)


def template_named(name: str, tokenizer: Any) -> PromptTemplate:
    """`chat` is the tokenizer's own, `.jinja` a file with a chat template; else as for `Template.load`."""
    if name == CHAT:
        return ChatTemplate.of(tokenizer)
    return ChatTemplate.load(name) if name.endswith((".jinja", ".jinja2")) else Template.load(name)
