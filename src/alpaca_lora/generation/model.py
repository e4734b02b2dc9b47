"""A model that answers instructions on this machine: adapters on their base, a merged model, or a base.

The prompt is the contract's template, encoded as in training; only new tokens are decoded; generation ends at the
contract's stop ids. Answers are made together (batching.py), each the one it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import GenerationConfig, LogitsProcessorList

from ..data.tokens import Encoder
from ..errors import AdapterError, ConfigError, DataError, ModelError, did_you_mean
from ..models.fingerprint import fingerprint
from ..models.load import Placement, check_pairing, load_model, resolve_base
from ..runs.adapter_files import (
    changes_of_base,
    check_adapter,
    check_finished,
    check_shareable,
    is_adapter,
    load_adapter,
    named_base,
)
from ..runs.contract import Contract, read_contract
from .batching import NOT_FINITE, Answer, Batch, Scheduler, bytes_per_token
from .completion import Completion
from .prompt_format import (
    BASE,
    PromptFormat,
    Question,
    name_of,
    prompt_format_at,
    question_of,
    questions_of,
    stop_ids_of,
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

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base_model: str | None = None,
        prompt_template: str | None = None,
        dtype: str = "auto",
        also: Sequence[str | Path] = (),
        force: bool | None = False,
    ) -> LocalModel:
        """Load an adapter folder, a merged folder, or a base.

        Args:
            path: Folder, hub id of a base, or `demo`.
            base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
            prompt_template: For models without a contract; `alpaca` if left out.
            dtype: "auto", "float32" or "bfloat16".
            also: Further adapters of the same base; each answers under its folder's name.
            force: Continue even if tokenizer, template or base differ from those trained with. None where the
                caller has no such choice to offer.

        Raises:
            AdapterError: an adapter is damaged or belongs to another base.
            ModelError: the base cannot be loaded.
        """
        adapter = is_adapter(path)
        (check_adapter if adapter else check_finished)(path)
        placement = Placement.choose(dtype)
        contract = read_contract(path)
        base_name = str(path)
        if adapter:
            base_name = base_model or (contract.base_model if contract else named_base(path))
        elif also:
            raise AdapterError(f"{path}: is no adapter, so no other adapters can stand beside it; name the adapters.")
        elif base_model is not None:
            raise ConfigError(f"base_model: {path} is no adapter, so it has no base beside it. Leave base_model out.")
        for folder in (path, *also) if also else ():
            check_shareable(folder)
        resolved = resolve_base(base_name)
        base = fingerprint(resolved) if adapter and (contract or also) else ""
        prompt_format = prompt_format_at(path, resolved, base, prompt_template, force)
        model = load_model(resolved, placement)
        check_pairing(prompt_format.encoder.tokenizer, model.config)
        if not contract:
            prompt_format = replace(prompt_format, stop_ids=stop_ids_of(model, prompt_format.encoder))
        if adapter:
            model = load_adapter(model, path, base_name)
        local = cls(model, prompt_format.encoder, prompt_format.stop_ids, prompt_format.contract, name_of(path))
        if adapter and not changes_of_base(path):
            local.prompt_formats[BASE] = prompt_format
        for folder in also:
            local.add(folder, base_name, base, force=force)
        return local

    def add(self, folder: str | Path, base_name: str, base_fingerprint: str, *, force: bool | None = False) -> str:
        """Put one more adapter on the same base, and return its name.

        Raises:
            AdapterError: it is damaged, belongs to another base, or its name is taken.
        """
        name = name_of(folder)
        if name in self.prompt_formats:
            raise AdapterError(f"{folder}: the name {name!r} is taken by another adapter; rename the folder.")
        prompt_format = prompt_format_at(folder, resolve_base(base_name), base_fingerprint, None, force)
        load_adapter(self.model, folder, base_name, name)
        stops = prompt_format.stop_ids or stop_ids_of(self.model, prompt_format.encoder)
        self.prompt_formats[name] = replace(prompt_format, stop_ids=stops)
        return name

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
        """The answer to one instruction."""
        return self.answers([question_of(instruction, input)], sampling, adapter)[0]

    def answers(
        self,
        requests: Iterable[Question],
        sampling: Sampling | None = None,
        adapter: str | None = None,
        max_rows: int = MAX_ROWS,
    ) -> list[str]:
        """The answers to many instructions, made together.

        Args:
            requests: Each a text, a pair of instruction and input, or a mapping of which these are read.
            sampling: How tokens are chosen; greedy if left out.
            adapter: Who answers; the first one if left out.
            max_rows: Maximum batch size.

        Returns:
            Answers in the order of the requests.

        Raises:
            DataError: a prompt is longer than what the model reads, or a request cannot be read.
        """
        prompt_format, sampling = self.prompt_format(adapter), sampling or Sampling()
        prompts = [
            prompt_format.encoder.prompt_ids(instruction, input) for instruction, input in questions_of(requests)
        ]
        return [made.text for made in self._complete(prompts, sampling, adapter, max_rows)]

    def complete(self, prompts: Sequence[str], sampling: Sampling, stop: Sequence[str] = ()) -> list[Completion]:
        """How texts go on, without any template, made together; `stop` are texts that end a continuation."""
        sampling = replace(sampling, stop=(*sampling.stop, *stop))
        return self._complete([self.encoder.text_ids(prompt) for prompt in prompts], sampling, None, MAX_ROWS)

    def stream(
        self, instruction: Question, input: str = "", sampling: Sampling | None = None, adapter: str | None = None
    ) -> Iterator[str]:
        """The answer in pieces as they are made; joined they are what `generate` returns."""
        instruction, input = question_of(instruction, input)
        sampling = sampling or Sampling()
        if sampling.num_beams > 1:  # a beam search knows its first word only at the end
            yield self.generate(instruction, input, sampling, adapter)
            return
        prompt_format = self.prompt_format(adapter)
        answer = self.begin(prompt_format.encoder.prompt_ids(instruction, input), sampling, adapter)
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

    def begin(self, prompt: list[int], sampling: Sampling, adapter: str | None = None, growing: bool = True) -> Answer:
        """An answer that can join a batch.

        Args:
            prompt: Ids of the prompt.
            sampling: How tokens are chosen; what the model's positions have no room for is taken off its limit.
            adapter: Whose stops end it.
            growing: Follow its text.

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
        rows = self.model.get_input_embeddings().num_embeddings
        if max(prompt) >= rows:
            raise ModelError(
                f"the tokenizer gives id {max(prompt)}, and the model knows {rows} ids only. Use the tokenizer that "
                "belongs to the model."
            )
        limit = min(sampling.max_new_tokens, positions - len(prompt))
        text = GrowingText(prompt_format.encoder, sampling.stop) if growing or sampling.stop else None
        return Answer(prompt, replace(sampling, max_new_tokens=limit), prompt_format.stop_ids, text)

    def batch(self) -> Batch:
        """An empty batch of this model."""
        return Batch(self.model, self.encoder.eos_id)

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
                self._search(answer)
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

    def _search(self, answer: Answer) -> None:
        """A beam search, by transformers."""
        sampling = answer.sampling
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        sampled: dict[str, Any] = {}
        if sampling.temperature > 0:
            sampled = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.temperature > 0,
            repetition_penalty=sampling.repetition_penalty,
            num_beams=sampling.num_beams,
            eos_token_id=sorted(answer.stop_ids),
            pad_token_id=self.encoder.eos_id,
            **sampled,
        )
        ids = torch.tensor([answer.prompt], device=self.model.device)
        # transformers fills in what `config` leaves out from the model's own settings, which single answers never see.
        own, self.model.generation_config = self.model.generation_config, GenerationConfig()
        try:
            with torch.no_grad():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([_finite]),
                )
        finally:
            self.model.generation_config = own
        for token in out[0, len(answer.prompt) :].tolist():
            answer.take(token)


def _finite(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """What a beam search adds nothing to; ModelError where there is nothing to choose by."""
    if not bool(scores.max(-1).values.isfinite().all()):
        raise ModelError(NOT_FINITE)
    return scores
