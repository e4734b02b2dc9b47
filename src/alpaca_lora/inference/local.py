"""A model that answers instructions on this machine: an adapter on its base, a merged model, or a base.

The prompt is the contract's template, encoded as in training; only new tokens are decoded; generation ends at the
contract's stop ids.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ..adapters.contract import Contract, read_contract
from ..adapters.store import check_finished, is_adapter, load_adapter, named_base
from ..data.tokens import Encoder
from ..errors import ConfigError
from ..models.fingerprint import fingerprint
from ..models.load import (
    Placement,
    check_pairing,
    load_model,
    load_tokenizer,
    resolve_base,
)
from ..prompts import Template


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The default is greedy: the likeliest one, the same answer every time.

    Raises:
        ConfigError: a value is out of range.
    """

    max_new_tokens: int = 256
    """Most tokens of an answer."""
    temperature: float = 0.0
    """0 is greedy; higher is more varied."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability, in (0, 1]."""
    top_k: int = 0
    """Sample from this many likeliest tokens; 0 is no limit."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens already used less likely (arXiv 1909.05858)."""
    num_beams: int = 1
    """Beams of a beam search; 1 is none."""
    seed: int | None = None
    """Makes sampling repeatable."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {getattr(self, name)!r} must be {rule}."
            for name, ok, rule in (
                ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
                ("temperature", self.temperature >= 0, "at least 0"),
                ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
                ("top_k", self.top_k >= 0, "at least 0"),
                ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
                ("num_beams", self.num_beams >= 1, "at least 1"),
            )
            if not ok
        ]
        if problems:
            raise ConfigError(problems)


class LocalModel:
    """A model, its encoder and its stops.

    Args:
        model: A transformers or peft model in evaluation mode.
        encoder: Tokenizer and template.
        stop_ids: Generation ends at any of these.
        contract: What the model was trained with; None for a base or another tool's model.
    """

    def __init__(self, model: Any, encoder: Encoder, stop_ids: list[int], contract: Contract | None = None) -> None:
        self.model, self.encoder, self.stop_ids, self.contract = model, encoder, stop_ids, contract

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base_model: str | None = None,
        prompt_template: str | None = None,
        dtype: str = "auto",
    ) -> LocalModel:
        """Load an adapter folder, a merged folder, or a base.

        Args:
            path: Folder, hub id of a base, or `demo`.
            base_model: For an adapter: where its base is now, if not where the adapter says.
            prompt_template: For models without a contract; `alpaca` if left out.
            dtype: "auto", "float32" or "bfloat16".

        Raises:
            AdapterError: the adapter is damaged or belongs to another base.
            ModelError: the base cannot be loaded.
        """
        check_finished(path)
        placement = Placement.choose(dtype)
        contract = read_contract(path)
        adapter = is_adapter(path)
        base_name = str(path)
        if adapter:
            base_name = base_model or (contract.base_model if contract else named_base(path))
        resolved = resolve_base(base_name)
        tokenizer = load_tokenizer(
            str(path) if adapter and (Path(path) / "tokenizer_config.json").exists() else resolved
        )
        if adapter and contract is None and prompt_template is None:
            warnings.warn(
                f"{path}: has no alpaca_lora.json, so it does not say which prompt it was trained with; template "
                "'alpaca' is assumed. Name another one with prompt_template.",
                stacklevel=2,
            )
        template = contract.load_template() if contract and prompt_template is None else None
        encoder = Encoder(tokenizer, template or Template.load(prompt_template or "alpaca"))
        model = load_model(resolved, placement)
        check_pairing(tokenizer, model.config)
        if contract:
            contract.check_encoder(encoder)
        if adapter:
            if contract:
                contract.check_base(fingerprint(resolved), path)
            model = load_adapter(model, path, base_name)
        stops = contract.stop_ids if contract else _stop_ids(model, encoder)
        return cls(model, encoder, stops, contract)

    def generate(self, instruction: str, input: str = "", sampling: Sampling | None = None) -> str:
        """The answer to one instruction."""
        prompt = self.encoder.prompt_ids(instruction, input)
        return self.encoder.decode(self._new_ids(prompt, sampling or Sampling()))

    def stream(self, instruction: str, input: str = "", sampling: Sampling | None = None) -> Iterator[str]:
        """The answer in pieces as they are made; joined they are what `generate` returns."""
        sampling = sampling or Sampling()
        if sampling.num_beams > 1:  # a beam search knows its first word only at the end
            yield self.generate(instruction, input, sampling)
            return
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        prompt = self.encoder.prompt_ids(instruction, input)
        streamer = _TextStreamer(self.encoder, self.stop_ids, pieces)
        thread = threading.Thread(target=self._fill, args=(prompt, sampling, streamer), daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            streamer.stopped = True  # the reader left early: end at the next token
            thread.join()

    def _fill(self, prompt: list[int], sampling: Sampling, streamer: _TextStreamer) -> None:
        try:
            self._new_ids(prompt, sampling, streamer)
        except _ReaderLeft:
            pass
        except BaseException as error:  # handed to the reader's thread, which raises it
            streamer.pieces.put(error)
        finally:
            streamer.pieces.put(None)

    def _new_ids(self, prompt: list[int], sampling: Sampling, streamer: Any = None) -> list[int]:
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
            eos_token_id=self.stop_ids,
            pad_token_id=self.encoder.eos_id,
            **sampled,
        )
        ids = torch.tensor([prompt], device=self.model.device)
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer
            )
        new = out[0, len(prompt) :].tolist()
        return new[:-1] if new and new[-1] in self.stop_ids else new


_BYTE = re.compile("<0x[0-9A-F]{2}>")


class _ReaderLeft(Exception):
    pass


class _TextStreamer(BaseStreamer):
    """Receives new ids from `model.generate` and hands on the text that is certain."""

    def __init__(self, encoder: Encoder, stop_ids: list[int], pieces: SimpleQueue[str | BaseException | None]) -> None:
        self.encoder, self.stop_ids, self.pieces = encoder, stop_ids, pieces
        self.ids: list[int] = []
        self.shown = 0
        self.prompt_seen = self.stopped = False

    def put(self, value: torch.Tensor) -> None:
        if self.stopped:
            raise _ReaderLeft
        if not self.prompt_seen:  # the first call brings the prompt
            self.prompt_seen = True
            return
        new = [token for token in value.flatten().tolist() if token not in self.stop_ids]
        self.ids += new
        # SentencePiece decodes a run of byte tokens as a whole: one more byte can change what the run says.
        if new and _BYTE.fullmatch(self.encoder.tokenizer.convert_ids_to_tokens(new[-1]) or ""):
            return
        text = self.encoder.decode(self.ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose bytes are not all there yet
            self._show(text)

    def end(self) -> None:
        self._show(self.encoder.decode(self.ids))

    def _show(self, text: str) -> None:
        if len(text) > self.shown:
            self.pieces.put(text[self.shown :])
            self.shown = len(text)


def _stop_ids(model: Any, encoder: Encoder) -> list[int]:
    """EOS of the tokenizer, and what the model's own generation config stops at."""
    own = model.generation_config.eos_token_id
    return sorted({encoder.eos_id, *(own if isinstance(own, list) else [own] if own is not None else [])})
