"""A model as lm-eval asks it: its own `hf` model around the one that is loaded, adapter on its base or merged or base.

So requests, BOS, truncation, batches and answers are those of `lm_eval --model hf`. With a template, a task's text is
the user's message, and what lm-eval calls the chat template is the prompt trained with.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ...adapters.chat_template import chat_template
from ...errors import DataError
from ...generation.model import LocalModel
from .tasks import reason

_ROWS = 8
"""Requests at a time where no GPU is; on one, lm-eval tries how many it takes."""
_RESAMPLES = 1_000
"""For standard errors of what is no mean: good to 2%. lm-eval takes 100,000, which is minutes for perplexities."""
_CUT = ("Combined length of context", "Left truncation applied")


class Harness:
    """Measures one model.

    Args:
        loaded: The model.
        template: Whether questions are put in its prompt.

    Raises:
        ModelError: the template cannot be said as a chat template for this tokenizer.
    """

    def __init__(self, loaded: LocalModel, template: bool) -> None:
        loaded.select(loaded.name)
        encoder, tokenizer = loaded.encoder, deepcopy(loaded.encoder.tokenizer)  # lm-eval may give it a pad token
        if template:
            tokenizer.chat_template = chat_template(encoder)
        self.template = encoder.template.name if template else ""
        self.dtype = str(loaded.model.dtype).removeprefix("torch.")
        rows = "auto" if loaded.model.device.type == "cuda" else _ROWS
        with _heard():
            self._model = _Model(loaded.model, tokenizer, rows, encoder.chats)
        self.positions = self._model.max_length
        self.cut = 0
        """Requests whose beginning was left out."""

    def measure(self, tasks: Sequence[Any], num_fewshot: int | None, limit: int | None) -> dict[str, Any]:
        """lm-eval's results.

        Args:
            tasks: What `load_tasks` gave.
            num_fewshot: As for `benchmark`.
            limit: As for `benchmark`.

        Raises:
            DataError: lm-eval cannot put a task's questions, or not to this model.
        """
        try:
            with _heard() as messages:
                found = simple_evaluate(
                    model=self._model,
                    tasks=list(tasks),
                    num_fewshot=num_fewshot,
                    limit=limit,
                    bootstrap_iters=_RESAMPLES,
                    apply_chat_template=bool(self.template),
                    fewshot_as_multiturn=self._model.chats,
                    task_manager=TaskManager(include_defaults=False),  # they are loaded already
                )
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            names = ", ".join(getattr(one, "task_name", None) or one.name for one in tasks)
            few = " Has a task fewer documents than num_fewshot?" if num_fewshot else ""
            raise DataError(f"{names}: lm-eval cannot measure this: {reason(error)}.{few}") from error
        self.cut = sum(message.startswith(_CUT) for message in messages)
        return found


class _AsItIs:
    """A model whose weights lm-eval does not tie anew, as it does where it sees a module: peft may train some rows of a
    tied embedding, and such a one cannot be."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._model(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Model(HFLM):
    """lm-eval's transformers model, with templates that have a place for one message."""

    def __init__(self, model: Any, tokenizer: Any, rows: int | str, chats: bool) -> None:
        super().__init__(pretrained=_AsItIs(model), tokenizer=tokenizer, backend="causal", batch_size=rows)
        self.chats = chats

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt of messages; without a place for several, all before the answer is the user's one message."""
        if self.chats:
            return super().apply_chat_template(chat_history, add_generation_prompt)
        said = [message["content"] for message in chat_history]
        begun = "" if add_generation_prompt else said.pop()  # what the answer is to begin with
        return super().apply_chat_template([{"role": "user", "content": "".join(said)}]) + begun


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What lm-eval warns of, in place of its log and of what it prints."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("lm_eval")
    propagated, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        with redirect_stdout(sys.stderr):
            yield messages
    finally:
        log.removeHandler(handler)
        log.propagate = propagated
