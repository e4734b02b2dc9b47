"""Prompts: the templates that turn a record into text."""

from .template import Template, template_names

__all__ = ["Template", "template_names"]
