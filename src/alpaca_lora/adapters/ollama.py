"""A template in Ollama's words: Go's templates, in a Modelfile.

    prompt_no_input   ### Instruction: {instruction} ### Response:
    Modelfile         TEMPLATE ### Instruction: {{ .Prompt }} ### Response:      (Ollama adds BOS itself)

A chat template is written if it is "before + content + after" for every role: its pieces are found by rendering marks.
In: an encoder and the texts of its stops. Out: text; nothing is written here.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.tokens import Encoder
from ..errors import ModelError, TemplateError
from ..prompts import ChatTemplate, Template

_MARKS = [f"mark-{number}-of-a-text" for number in range(6)]


def modelfile(source: str, encoder: Encoder, stops: list[str]) -> str:
    """An Ollama Modelfile. Sampling is left to Ollama's defaults.

    Args:
        source: The GGUF file, or a model's folder.
        encoder: Tokenizer and template; a prompt template's separate input field goes into the prompt's text.
        stops: Texts of the ids at which generation ends.

    Raises:
        ModelError: it is a chat template that Go's templates cannot say.
    """
    template = encoder.template
    if isinstance(template, Template):
        about = (
            f"# Template {template.name!r}, one turn: write an input below the instruction, in the same message; a\n"
            "# system message is not passed on, and training had no earlier turns: start a new chat for each "
            "instruction.\n"
        )
        fields = string.Formatter().parse(template.prompt_no_input)
        text = "".join(_go(literal) + ("{{ .Prompt }}" if field else "") for literal, field, _, _ in fields)
    else:
        about = f"# Chat template {template.name!r}.\n"
        text = ChatPieces.of(encoder).go()
    stop_lines = "".join(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}\n" for stop in stops)
    return f'{about}FROM {source}\nTEMPLATE """{text}"""\n{stop_lines}'


@dataclass(frozen=True)
class ChatPieces:
    """What a chat template writes around each role's text."""

    begin: str
    """In front of a conversation that has no system text."""
    system: tuple[str, str] | None
    """Around a system text, which begins the conversation; None if the template refuses one."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str
    """Where the answer begins."""

    @classmethod
    def of(cls, encoder: Encoder) -> ChatPieces:
        """Of an encoder's chat template.

        Raises:
            ModelError: it writes more than pieces around each text.
        """
        template = encoder.template
        assert isinstance(template, ChatTemplate)
        refusal = ModelError(
            f"format: the chat template {template.name!r} is more than a text before and after each message, which "
            "Ollama's templates cannot say. Export gguf-f16: llama.cpp reads the chat template from the file."
        )

        def rendered(roles: str, more: bool = False) -> str:
            words = {"s": "system", "u": "user", "a": "assistant"}
            said: list[dict[str, Any]] = [
                {"role": words[role], "content": mark} for role, mark in zip(roles, _MARKS, strict=False)
            ]
            return template.render(encoder.tokenizer, said, add_generation_prompt=more)

        def between(text: str, before: str, after: str | None) -> str:
            start = text.index(before) + len(before) if before else 0
            return text[start : text.index(after, start)] if after else text[start:]

        one, two, three = _MARKS[:3]
        try:
            turns = rendered("uau")
            first, to_assistant = between(turns, "", one), between(turns, one, two)
            to_user, end = between(turns, two, three), between(turns, three, None)
            if not to_assistant.startswith(end):
                raise refusal
            assistant_before = to_assistant[len(end) :]
            ended = rendered("ua")
            assistant_after = between(ended, two, None)
            if not to_user.startswith(assistant_after):
                raise refusal
            user_before = to_user[len(assistant_after) :]
            if not first.endswith(user_before):
                raise refusal
            begin, asked = first[: len(first) - len(user_before)], rendered("u", more=True)
            answer = between(asked, one, None)[len(end) :]
            try:
                told = rendered("su")
            except TemplateError:
                system = None
            else:
                to_first = between(told, one, two)
                if not to_first.endswith(user_before):
                    raise refusal
                system = between(told, "", one), to_first[: len(to_first) - len(user_before)]
            found = cls(begin, system, (user_before, end), (assistant_before, assistant_after), answer)
            for roles in ("u", "ua", "uau", "uauau", *(("su", "sua", "suau") if system else ())):
                for more in (True, False):
                    if found.text(roles, more) != rendered(roles, more):
                        raise refusal
        except (ValueError, TemplateError) as error:
            raise refusal from error
        bos = encoder.tokenizer.bos_token or ""
        if encoder.prefix_ids and bos:  # Ollama adds it
            system = (system[0].removeprefix(bos), system[1]) if system else None
            found = cls(begin.removeprefix(bos), system, found.user, found.assistant, answer)
        return found

    def text(self, roles: Sequence[str], more: bool) -> str:
        """Marked texts of roles (s, u, a), put together."""
        parts = [] if roles[0] == "s" else [self.begin]
        for role, mark in zip(roles, _MARKS, strict=False):
            before, after = {"s": self.system or ("", ""), "u": self.user, "a": self.assistant}[role]
            parts.append(before + mark + after)
        return "".join(parts) + (self.answer if more else "")

    def go(self) -> str:
        """The same as a Go template over `.Messages`."""
        begin = "{{ if eq $place 0 }}" + _go(self.begin) + "{{ end }}" if self.begin else ""
        roles = {"user": (begin + _go(self.user[0]), _go(self.user[1]))}
        roles["assistant"] = (_go(self.assistant[0]), _go(self.assistant[1]))
        if self.system:
            roles["system"] = (_go(self.system[0]), _go(self.system[1]))
        written = [
            f'{{{{ {word} eq $message.Role "{role}" }}}}{before}{{{{ $message.Content }}}}{after}'
            for word, (role, (before, after)) in zip(("if", "else if", "else if"), roles.items(), strict=False)
        ]
        return "{{ range $place, $message := .Messages }}" + "".join(written) + "{{ end }}{{ end }}" + _go(self.answer)


def _go(literal: str) -> str:
    """A literal text; braces and quotes, which mean something to Go's templates and to the Modelfile, as Go strings."""
    return re.sub('[{"]+', lambda found: "{{" + json.dumps(found[0]) + "}}", literal)
