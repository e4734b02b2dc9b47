"""A model that answers instructions on this machine: adapters on their base, a merged model, or a base.

The prompt is the contract's template, encoded as in training; only new tokens are decoded; generation ends at the
contract's stop ids. Answers are made together (batching.py), each the one it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import psutil
import torch

from ..data.tokens import Encoder
from ..errors import ConfigError, DataError, ModelError, did_you_mean
from ..models.new_tokens import rows_of
from ..models.predictions import PlainHead, plain_head
from ..runs.contract import Contract
from .batching import Answer, Batch, Scheduler
from .beam_search import beam_search
from .completion import Completion
from .key_values import bytes_per_token
from .logprobs import Logprobs
from .prompt_format import (
    BASE,
    PromptFormat,
    Question,
    question_ids,
    questions_of,
)
from .sampling import Sampling
from .streaming import GrowingText

MAX_ROWS = 32
"""Maximum batch size."""


class TooLong(DataError):
    """A prompt is longer than what the model reads."""


class LocalModel:
    """A model and how it is asked; with adapters, each by its name, and the base by the name `base`.

    Args:
        model: A transformers or peft model in evaluation mode.
        encoder: Tokenizer and template.
        stop_ids: Generation ends at any of these.
        contract: What the model was trained with; None for a base or another tool's model.
        name: What it is called among others.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        stop_ids: list[int],
        contract: Contract | None = None,
        name: str = "model",
    ) -> None:
        self.model, self.name = model, name
        self.prompt_formats = {name: PromptFormat(encoder, stop_ids, contract)}
        self._selected = name

    @property
    def encoder(self) -> Encoder:
        """Tokenizer and template of the model, or of its first adapter."""
        return self.prompt_formats[self.name].encoder

    @property
    def stop_ids(self) -> list[int]:
        """Where answers of the model, or of its first adapter, end."""
        return self.prompt_formats[self.name].stop_ids

    @property
    def contract(self) -> Contract | None:
        """What the model, or its first adapter, was trained with."""
        return self.prompt_formats[self.name].contract

    def prompt_format(self, adapter: str | None = None) -> PromptFormat:
        """How `adapter` is asked; the first one where None.

        Raises:
            ConfigError: there is none of this name.
        """
        name = adapter or self.name
        if name not in self.prompt_formats:
            raise ConfigError(
                f"adapter: {name!r} is not loaded.{did_you_mean(name, self.prompt_formats)} "
                f"Loaded: {', '.join(self.prompt_formats)}."
            )
        return self.prompt_formats[name]

    def generate(
        self, instruction: Question, input: str = "", sampling: Sampling | None = None, adapter: str | None = None
    ) -> str:
        """The answer to one instruction, or to a conversation."""
        prompt = question_ids(self.prompt_format(adapter).encoder, instruction, input)
        return self._complete([prompt], sampling or Sampling(), adapter, 1)[0].text

    def answers(
        self,
        requests: Iterable[Question],
        sampling: Sampling | None = None,
        adapter: str | None = None,
        max_rows: int = MAX_ROWS,
    ) -> list[str]:
        """The answers to many instructions, made together.

        Args:
            requests: Each a text, a pair of instruction and input, a mapping of which these are read, or a list of
                messages.
            sampling: How tokens are chosen; greedy if left out.
            adapter: Who answers; the first one if left out.
            max_rows: Maximum batch size.

        Returns:
            Answers in the order of the requests.

        Raises:
            DataError: a prompt is longer than what the model reads, or a request cannot be read.
        """
        prompt_format, sampling = self.prompt_format(adapter), sampling or Sampling()
        prompts = [question_ids(prompt_format.encoder, question) for question in questions_of(requests)]
        return [made.text for made in self._complete(prompts, sampling, adapter, max_rows)]

    def complete(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], sampling: Sampling, stop: Sequence[str] = ()
    ) -> list[Completion]:
        """How texts, without any template, or conversations go on, made together.

        Args:
            prompts: Texts, or lists of messages.
            sampling: How tokens are chosen.
            stop: Texts that end a continuation.
        """
        encoder, sampling = self.encoder, replace(sampling, stop=(*sampling.stop, *stop))
        ids = [encoder.text_ids(one) if isinstance(one, str) else encoder.message_ids(one) for one in prompts]
        return self._complete(ids, sampling, None, MAX_ROWS)

    def stream(
        self, instruction: Question, input: str = "", sampling: Sampling | None = None, adapter: str | None = None
    ) -> Iterator[str]:
        """The answer in pieces as they are made; joined they are what `generate` returns."""
        sampling = sampling or Sampling()
        if sampling.num_beams > 1:  # a beam search knows its first word only at the end
            yield self.generate(instruction, input, sampling, adapter)
            return
        prompt_format = self.prompt_format(adapter)
        answer = self.begin(question_ids(prompt_format.encoder, instruction, input), sampling, adapter)
        text, shown = answer.text, 0
        assert text is not None
        self.select(adapter or self.name)
        batch = self.batch()
        batch.join([answer])
        while True:
            if len(text.certain) > shown:
                yield text.certain[shown:]
                shown = len(text.certain)
            if answer.finish_reason:
                return
            batch.step()

    def begin(
        self,
        prompt: list[int],
        sampling: Sampling,
        adapter: str | None = None,
        growing: bool = True,
        logprobs: Logprobs | None = None,
        prompt_only: bool = False,
    ) -> Answer:
        """An answer that can join a batch.

        Args:
            prompt: Ids of the prompt.
            sampling: How tokens are chosen; what the model's positions have no room for is taken off its limit.
            adapter: Whose stops end it.
            growing: Follow its text.
            logprobs: Keeps the log-probabilities of its tokens.
            prompt_only: End with the prompt.

        Raises:
            DataError: the prompt is longer than what the model reads.
            ModelError: it holds an id that the model does not know; a GPU would be of no use after such a one.
        """
        prompt_format = self.prompt_format(adapter)
        positions = getattr(self.model.config, "max_position_embeddings", None) or 2**31
        if not 0 < len(prompt) < positions:
            raise TooLong(
                f"the prompt has {len(prompt)} tokens; the model reads from 1 to {positions - 1}. Shorten it."
            )
        rows = rows_of(self.model)
        if max(prompt) >= rows:
            raise ModelError(
                f"the tokenizer gives id {max(prompt)}, and the model knows {rows} ids only. Use the tokenizer that "
                "belongs to the model."
            )
        limit = min(sampling.max_new_tokens, positions - len(prompt))
        text = GrowingText(prompt_format.encoder, sampling.stop) if growing or sampling.stop else None
        sampling = replace(sampling, max_new_tokens=limit)
        return Answer(prompt, sampling, prompt_format.stop_ids, text, logprobs, prompt_only)

    def batch(self) -> Batch:
        """An empty batch of this model."""
        return Batch(self.model, self.encoder.eos_id, lambda: self._plain_head)

    @cached_property
    def _plain_head(self) -> PlainHead | None:
        """The head, if logits are plain; found out by a forward pass of its own."""
        return plain_head(self.model)

    def scheduler(self, max_rows: int = MAX_ROWS) -> Scheduler:
        """Batches of this model, bounded by `max_rows` and by a part of the memory that is free now."""
        if self.model.device.type == "cuda":
            free_bytes = torch.cuda.mem_get_info(self.model.device)[0] // 2
        else:
            free_bytes = psutil.virtual_memory().available // 4
        return Scheduler(self.batch, self.select, max(1, free_bytes // bytes_per_token(self.model)), max_rows)

    def select(self, adapter: str) -> None:
        """Answer as this adapter from here on."""
        if adapter == self._selected:
            return
        if adapter == BASE:
            self.model.base_model.disable_adapter_layers()
        else:
            if self._selected == BASE:
                self.model.base_model.enable_adapter_layers()
            self.model.set_adapter("default" if adapter == self.name else adapter)
        self._selected = adapter

    def _complete(
        self, prompts: list[list[int]], sampling: Sampling, adapter: str | None, max_rows: int
    ) -> list[Completion]:
        """Rows of like length are computed together, the longest first; whoever has ended makes room for the next."""
        prompt_format, name = self.prompt_format(adapter), adapter or self.name
        answers = [self.begin(prompt, sampling, adapter, growing=False) for prompt in prompts]
        if sampling.num_beams > 1:
            self.select(name)
            for answer in answers:
                beam_search(self.model, answer, self.encoder.eos_id)
        else:
            waiting = sorted(answers, key=lambda answer: -len(answer.prompt))
            scheduler = self.scheduler(max_rows)
            while waiting or len(scheduler):
                room = scheduler.has_room(waiting)
                # A prompt at a time would be computed badly: wait until a part of the rows is free.
                if room and (not len(scheduler) or room >= min(len(waiting), max_rows // 4)):
                    scheduler.join(name, waiting[:room])
                    waiting = waiting[room:]
                scheduler.step()
        return [
            Completion(
                answer.text.certain if answer.text else prompt_format.encoder.decode(answer.ids),
                "length" if answer.finish_reason == "length" else "stop",
                len(answer.prompt),
                len(answer.ids),
            )
            for answer in answers
        ]
