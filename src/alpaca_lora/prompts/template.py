"""The wording that turns a record into prompt and response text.

In: instruction and input. Out: the prompt, byte for byte. A template is alpaca-lora's own JSON, loaded unchanged:

    {"description": "...", "prompt_input": "... {instruction} ... {input} ...",
     "prompt_no_input": "... {instruction} ...", "response_split": "### Response:"}

It may have a `warning`, too: the card of every model trained with it begins with that.

Only the bare fields `{instruction}` and `{input}` are allowed, each is substituted once, and what a record's text
contains is never parsed: `{input}` inside an instruction stays those seven characters. A brace of the template's own
is written twice: `{{"question": "{instruction}"}}`.
"""

from __future__ import annotations

import hashlib
import json
import os
import string
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from ..config import shown
from ..errors import TemplateError, did_you_mean, same_word
from ..textfiles import parse_json, read_text_file

_KEYS = ("description", "prompt_input", "prompt_no_input", "response_split")
_OPTIONAL = {"description": "", "warning": ""}
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Examples:
        >>> Template.load("alpaca_short").prompt("Name a colour.")
        '### Instruction:\\nName a colour.\\n\\n### Response:\\n'
    """

    name: str
    """Packaged name, or the path it was loaded from."""
    description: str
    prompt_input: str
    """Prompt of a record with an input; holds `{instruction}` and `{input}`."""
    prompt_no_input: str
    """Prompt of a record without input; holds `{instruction}`."""
    response_split: str
    """The response header. Kept for other tools: this library never searches for it."""
    warning: str = ""
    """What everybody must know who uses a model trained with it; the model card shows it. Never part of a prompt."""

    def __post_init__(self) -> None:
        _check_fields(self.name, "prompt_input", self.prompt_input, {"instruction", "input"})
        _check_fields(self.name, "prompt_no_input", self.prompt_no_input, {"instruction"})

    @classmethod
    def load(cls, name_or_path: str | Path) -> Template:
        """Load a packaged template by name, or any JSON file in alpaca-lora's format.

        Raises:
            TemplateError: unknown name, unreadable file, a key that is missing or stands twice, or a field other than
                the two allowed.
        """
        text, name = _read(str(name_or_path))
        return cls.from_dict(parse_json(text, name, TemplateError, f"A template is one object with {_KEYS}."), name)

    @classmethod
    def from_dict(cls, fields: object, name: str = "<dict>") -> Template:
        """Build a template from the keys of alpaca-lora's format; `description` and `warning` may be absent."""
        if not isinstance(fields, dict):
            raise TemplateError(f"{name}: a template is one JSON object with {_KEYS}, not {type(fields).__name__}.")
        values = {**_OPTIONAL, **{key: value for key, value in fields.items() if key != "name"}}
        missing = [key for key in _KEYS if key not in values]
        if missing:
            hint = did_you_mean(missing[0], set(values) - {*_KEYS, *_OPTIONAL})
            raise TemplateError(f"{name}: template key {missing[0]!r} is missing.{hint} It needs {_KEYS}.")
        known = {*_KEYS, *_OPTIONAL}
        for key in sorted(known):
            if not isinstance(values[key], str):
                raise TemplateError(f"{name}: template key {key!r} is {type(values[key]).__name__}; it must be text.")
            if any("\ud800" <= letter <= "\udfff" for letter in values[key]):
                raise TemplateError(f"{name}: {key} holds half of a character (a lone surrogate). Remove it.")
        return cls(name=name, **{key: values[key] for key in known})

    def prompt(self, instruction: str, input: str = "") -> str:
        """The prompt for one record; the response follows it directly.

        Args:
            instruction: What to do.
            input: Context; `prompt_no_input` is used if it is empty.
        """
        values = {"instruction": instruction, "input": input}
        text = self.prompt_input if input else self.prompt_no_input
        return "".join(
            literal + (values[field] if field else "") for literal, field, _, _ in string.Formatter().parse(text)
        )

    @property
    def own_text(self) -> str:
        """What it says itself, around instruction and input."""
        return "\n".join((self.prompt("", "x"), self.prompt("", "")))

    def to_dict(self) -> dict[str, str]:
        """The template's name and bytes, as the contract stores them; `warning` only if there is one."""
        return {key: value for key, value in asdict(self).items() if value or key != "warning"}

    @property
    def sha256(self) -> str:
        """Hash over the bytes that reach the model (not the name or the description)."""
        return hashlib.sha256(json.dumps([self.prompt_input, self.prompt_no_input]).encode()).hexdigest()


def template_names() -> list[str]:
    """Names of the packaged templates."""
    folder = resources.files(__package__) / "templates"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def _read(name: str) -> tuple[str, str]:
    """Text and display name of a packaged template or a file."""
    if name in template_names():
        return (resources.files(__package__) / "templates" / f"{name}.json").read_text(encoding="utf-8"), name
    if os.path.isfile(name):
        return read_text_file(name, TemplateError, "Give a text file in UTF-8.", _MAX_BYTES), name
    names = template_names()
    if known := same_word(name, names):
        return _read(known)
    raise TemplateError(
        f"prompt_template: {shown(name)} is neither a packaged template nor a file."
        f"{did_you_mean(name, names)} Packaged: {', '.join(names)}. A chat template: chat, the base's own, "
        "or a .jinja file."
    )


def _check_fields(name: str, key: str, text: str, wanted: set[str]) -> None:
    """Allow bare `{instruction}` and `{input}` only: no attributes, indexes, conversions or format specs."""
    twice = "A brace of the template's own is written twice: '{{' or '}}'."
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(f"{name}: {key}: {error}. {twice}") from error
    found = [field for _, field, _, _ in parts if field is not None]
    for _, field, spec, conversion in parts:
        if field is not None and (field not in wanted or spec or conversion):
            whole = "{" + field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
            whole = whole if len(whole) <= 80 else f"{whole[:80]}..."
            allowed = " and ".join("{" + field + "}" for field in sorted(wanted, reverse=True))
            near = did_you_mean(field, wanted)
            raise TemplateError(
                f"{name}: {key}: field {whole} is not allowed; only the bare {allowed} are.{near} {twice}"
            )
    for field in sorted(wanted):
        if found.count(field) != 1:
            raise TemplateError(f"{name}: {key}: {{{field}}} stands {found.count(field)} times; it must stand once.")
