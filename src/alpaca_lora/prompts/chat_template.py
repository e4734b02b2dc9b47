"""A chat template: Jinja that turns messages into the text a model reads.

Either the tokenizer's own (`prompt_template: chat`) or a `.jinja` file. It is rendered by transformers, in a sandbox: a
template is data from a stranger.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TemplateError
from ..textfiles import read_text_file

CHAT = "chat"
"""Name of the tokenizer's own template."""
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Args:
        name: `chat`, or the path it was loaded from.
        text: The Jinja.
    """

    name: str
    text: str
    warning: str = ""

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTemplate:
        """A tokenizer's own.

        Raises:
            TemplateError: it has none.
        """
        text = tokenizer.chat_template
        if isinstance(text, dict):  # several by name
            text = text.get("default")
        if not text:
            raise TemplateError(
                "prompt_template: the base's tokenizer has no chat template. Give one as a .jinja file, or name a "
                "packaged template."
            )
        return cls(CHAT, text)

    @classmethod
    def load(cls, path: str | Path) -> ChatTemplate:
        """A file's.

        Raises:
            TemplateError: it cannot be read.
        """
        return cls(str(path), read_text_file(path, TemplateError, "Give a Jinja file in UTF-8.", _MAX_BYTES))

    def to_dict(self) -> dict[str, str]:
        """Name and text, as the contract stores them."""
        return {"name": self.name, "chat_template": self.text}

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def render(
        self,
        tokenizer: Any,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The text of messages.

        Args:
            tokenizer: Names the special tokens.
            messages: What was said, each with `role` and `content`.
            tools: JSON schemas of functions the model may call.
            add_generation_prompt: End with what comes before an answer.

        Raises:
            TemplateError: the template refuses them, in its own words, or fails.
        """
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages,
                    tools=tools or None,
                    chat_template=self.text,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                )
            )
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # whatever a stranger's Jinja runs into
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise TemplateError(f"the chat template {self.name!r} refuses: {reason}") from error
