"""Texts that cannot be new tokens, whatever the tokenizer."""

from __future__ import annotations

import re

_OTHERS = re.compile(
    r"</?s>|<\|(?:im_start|im_end|endoftext|eot_id|eom_id|begin_of_text|end_of_text|start_header_id|end_header_id)\|>"
    r"|<(?:unk|pad|bos|eos|mask|cls|sep)>|\[/?INST\]|\[(?:UNK|PAD|BOS|EOS|MASK|CLS|SEP)\]|<0x[0-9a-f]{2}>",
    re.IGNORECASE,
)


def token_problems(tokens: list[str]) -> list[str]:
    """A sentence for each text that cannot be a new token, whatever the tokenizer."""
    problems = []
    for place, text in enumerate(tokens):
        if not text.strip() or not text.isprintable() or len(text.split()) > 1 or text != text.strip():
            problems.append(f"new_tokens: {text!r} is blank, or holds white space or control characters. Leave it out.")
        elif _OTHERS.fullmatch(text):
            problems.append(
                f"new_tokens: {text!r} is a special token in other models. New tokens are ordinary text: they are "
                "shown in answers and end none. Choose another text, such as '<tool>', or a base that has it."
            )
        elif text in tokens[:place]:
            problems.append(f"new_tokens: {text!r} is named twice. Name it once.")
    return problems
