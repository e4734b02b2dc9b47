"""What templates, chat formats and tools leave in a text: unfilled variables, markers, values written as text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..record import FIELDS, Record
from ..records.text_warnings import STRAY, is_missing_word
from .findings import Found, excerpt
from .texts import CODE

_VARIABLE = re.compile(
    r"\{\{[^{}\n]{1,40}\}\}"  # Jinja, Mustache
    r"|(?<![\w$])\$\{[A-Za-z_][\w.]{0,30}\}"  # shells, JavaScript
    r"|\[(?:your|insert|enter|add|fill in|recipient|company|client|customer)\b[^\[\]\n]{0,50}\](?!\()"
    r"|\[(?:name|date|address|company|city|position|phone number|e-?mail address)\](?!\()"
    r"|<(?:your|insert|enter)[ _-][\w -]{1,40}>|<(?:name|first_name|last_name|date|username|company_name)>"
    r"|\blorem ipsum dolor\b",
    re.IGNORECASE,
)
_ABOUT_VARIABLES = re.compile(
    r"template|placeholder|variable|lorem|jinja|mustache|handlebars|angular|\bvue|django|\bform(?:at)?\b|latex|"
    r"\bbash\b|shell|script|\bcode\b|program|function|syntax|regex|string",
    re.IGNORECASE,
)
_MARKER = re.compile(r"<\|[a-z][a-z0-9_]{1,30}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
_ABOUT_MARKERS = re.compile(r"token|template|prompt|chat|markup|llama|\bllm|language model|format", re.IGNORECASE)
_ABOUT_LISTS = re.compile(
    r"python|\blists?\b|array|json|dict|tuple|\bset\b|code|program|function|vector|matrix|output|return|bracket|format",
    re.IGNORECASE,
)


def check_leftovers(record: Record) -> Iterator[Found]:
    """Variables, chat markers, control characters, and values that a program wrote as text.

    Code is left alone, and so is a record whose instruction is about such things.
    """
    for field, text in zip(FIELDS, record, strict=True):
        prose = CODE.sub("", text)
        match = _VARIABLE.search(prose)
        # A text that is nothing else is a placeholder, or an input that is missing: other checks say so.
        if match and match[0] != text.strip() and not _ABOUT_VARIABLES.search(record.instruction.replace(match[0], "")):
            yield Found("unfilled", field, excerpt(prose, *match.span()))
        if (match := _MARKER.search(prose)) and not _ABOUT_MARKERS.search(record.instruction.replace(match[0], "")):
            yield Found("chat-marker", field, excerpt(prose, *match.span()))
        if is_missing_word(record, field) or (_is_literal(text) and not _ABOUT_LISTS.search(record.instruction)):
            yield Found("value-as-text", field, excerpt(text))
        if match := STRAY.search(text):
            yield Found("control-character", field, f"U+{ord(match[0]):04X} in {excerpt(text, *match.span())}")


def _is_literal(text: str) -> bool:
    """Whether a text is a Python list, tuple or dict of texts, as `str` writes it."""
    inner = text.strip()
    if not (inner[:2] in ("['", '["', "('", '("', "{'", '{"') and inner[-1] in "])}" and len(inner) < 100_000):
        return False
    try:
        return isinstance(ast.literal_eval(inner), list | tuple | dict)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
