"""A prompt template in chat servers' words: Jinja.

    prompt_no_input     ### Instruction: {instruction} ### Response:
    Jinja               {{ "<s>### Instruction: " + messages[0]['content'] + " ### Response:" }}

In: an encoder. Out: text; nothing is written here. A chat template is Jinja already.
"""

from __future__ import annotations

import json
import string

from ..data.tokens import Encoder
from ..errors import ModelError
from ..prompts import ChatTemplate
from .certificate import PROBES


def chat_template(encoder: Encoder, glue: str | None = None) -> str:
    """Jinja that renders one user message as the encoder does an instruction without input.

    Args:
        encoder: Tokenizer and template.
        glue: What stands between BOS and prompt; if left out, what gives the encoder's ids is found by trying.

    Raises:
        ModelError: neither nothing nor a space gives the encoder's ids.
    """
    if isinstance(encoder.template, ChatTemplate):
        return encoder.template.text
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
