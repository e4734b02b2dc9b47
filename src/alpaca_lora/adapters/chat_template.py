"""A prompt template in other programs' words: Jinja for chat servers, Go's templates for Ollama.

    prompt_no_input     ### Instruction: {instruction} ### Response:
    Jinja               {{ "<s>### Instruction: " + messages[0]['content'] + " ### Response:" }}
    Modelfile           TEMPLATE ### Instruction: {{ .Prompt }} ### Response:       (Ollama adds BOS itself)

In: an encoder, or a template and the texts of its stops. Out: text; nothing is written here.
"""

from __future__ import annotations

import json
import re
import string

from ..data.tokens import Encoder
from ..errors import ModelError
from ..prompts import Template
from .certificate import PROBES


def modelfile(source: str, template: Template, stops: list[str]) -> str:
    """An Ollama Modelfile. Sampling is left to Ollama's defaults.

    Args:
        source: The GGUF file, or a model's folder.
        template: The prompt template; its separate input field goes into the prompt's text.
        stops: Texts of the ids at which generation ends.
    """
    parts = []
    for literal, field, _, _ in string.Formatter().parse(template.prompt_no_input):
        # Braces and quotes mean something to Go's templates and to the Modelfile: they are written as Go strings.
        parts.append(re.sub('[{"]+', lambda found: "{{" + json.dumps(found[0]) + "}}", literal))
        parts.append("{{ .Prompt }}" if field else "")
    stop_lines = "".join(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}\n" for stop in stops)
    return (
        f"# Template {template.name!r}, one turn: write an input below the instruction, in the same message; a system\n"
        "# message is not passed on, and training had no earlier turns: start a new chat for each instruction.\n"
        f'FROM {source}\nTEMPLATE """{"".join(parts)}"""\n{stop_lines}'
    )


def chat_template(encoder: Encoder, glue: str | None = None) -> str:
    """Jinja that renders one user message as the encoder does an instruction without input.

    Args:
        encoder: Tokenizer and template.
        glue: What stands between BOS and prompt; if left out, what gives the encoder's ids is found by trying.

    Raises:
        ModelError: neither nothing nor a space gives the encoder's ids.
    """
    if glue is None:
        for candidate in ("", " "):  # a SentencePiece tokenizer may put its space only in front of a whole text
            text = chat_template(encoder, candidate)
            if all(_renders(encoder, text, instruction) for instruction, _ in PROBES):
                return text
        raise ModelError(
            "no chat_template gives this tokenizer the ids of the prompts trained with; use another format."
        )
    before, after = _around(encoder.template.prompt_no_input)
    prefix = "".join(encoder.tokenizer.convert_ids_to_tokens(encoder.prefix_ids))
    start = prefix + glue + before if prefix else before
    specials = sorted(token.content for token in encoder.tokenizer.added_tokens_decoder.values() if token.special)
    return (
        "{%- if messages | length != 1 or messages[0]['role'] != 'user' or messages[0]['content'] is not string -%}"
        "{{ raise_exception('This model answers one user message of text: no system message, no earlier turns.') }}"
        "{%- endif -%}"
        f"{{%- for special in {_jinja(specials)} if special in messages[0]['content'] -%}}"
        "{{ raise_exception('The message contains the special token ' + special) }}"
        "{%- endfor -%}"
        f"{{{{ {_jinja(start)} + messages[0]['content'] + {_jinja(after)} }}}}"
    )


def _jinja(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def put_chat_template(encoder: Encoder) -> None:
    """Give the tokenizer that is about to be saved the prompt trained with, in place of its base's own chat.

    Where no template gives the right ids it gets none: programs then ask for one, instead of asking the model wrongly.
    """
    try:
        encoder.tokenizer.chat_template = chat_template(encoder)
    except ModelError:
        encoder.tokenizer.chat_template = None


def _around(text: str) -> tuple[str, str]:
    """What stands before and after the template's one field."""
    parts = list(string.Formatter().parse(text))
    at = next(place for place, (_, field, _, _) in enumerate(parts) if field is not None) + 1
    return "".join(literal for literal, *_ in parts[:at]), "".join(literal for literal, *_ in parts[at:])


def _renders(encoder: Encoder, chat: str, instruction: str) -> bool:
    ids = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": instruction}], chat_template=chat, tokenize=True, return_dict=False
    )
    return list(ids) == encoder.prompt_ids(instruction)
