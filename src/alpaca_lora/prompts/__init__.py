"""Prompts: the templates that turn a record or a conversation into text."""

from .chat_template import CHAT, ChatTemplate
from .template import Template, template_names

__all__ = ["CHAT", "ChatTemplate", "PromptTemplate", "Template", "template_from", "template_names"]

PromptTemplate = Template | ChatTemplate


def template_from(fields: dict[str, str], name: str) -> PromptTemplate:
    """The template that a contract holds."""
    if "chat_template" in fields:
        return ChatTemplate(fields.get("name", name), fields["chat_template"])
    return Template.from_dict(fields, fields.get("name", name))
