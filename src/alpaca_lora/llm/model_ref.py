"""A model that is asked: an adapter, a merged model or a base on this machine, or one behind a server.

What it is shows before it is loaded, so that a run that cannot go on, or is over, says so at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import ConfigError, DataError
from ..files import sha256_of_file, sha256_of_json
from ..prompts import Template
from .budget import Budget, Spending

if TYPE_CHECKING:
    from ..generation.completion import Completion
    from ..generation.model import LocalModel
    from .client import OnAttempt

TIMEOUT_SECONDS = 300.0
Prompt = str | Sequence[Mapping[str, str]]


def check_sampling(temperature: float, max_new_tokens: int = 1) -> None:
    """Refuse what no model can answer with, before one is loaded or paid for.

    Raises:
        ConfigError: every value that is out of range.
    """
    problems = [
        f"{name}: {value!r} must be {rule}."
        for name, value, ok, rule in (
            ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
            ("temperature", temperature, temperature == 0 or 1e-3 <= temperature <= 1e3, "0, or from 0.001 to 1000"),
        )
        if not ok
    ]
    if problems:
        raise ConfigError(problems)


class Writer(Protocol):
    """What writes the answers: an `Endpoint` or a `LocalEndpoint`."""

    kind: Any
    spending: Spending

    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *error: Any) -> None: ...
    async def complete(
        self,
        prompt: Any,
        *,
        max_new_tokens: int,
        temperature: float,
        stop: Sequence[str],
        on_attempt: OnAttempt | None,
    ) -> Completion:
        """The answer to a prompt; see `Endpoint.complete`."""


@dataclass(frozen=True)
class ModelRef:
    """One model and how it is asked.

    Attributes:
        model: An adapter, merged or base folder, a hub id or `demo`; with `base_url`, the server's name for a model.
        base_url: Address of an OpenAI-compatible API; None answers on this machine.
        key: The server's key.
        kind: "chat", or "completions" for text-completion models.
        prompt_template: Template for text completions; a contract's own, or `alpaca`, if left out.
        concurrency: Maximum number of requests in flight at a server.
        budget: Prices and limits; of tokens only, on this machine.
        force: Continue even if tokenizer, template or base differ from those trained with.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
    """

    model: str
    base_url: str | None = None
    key: str | None = None
    kind: Literal["chat", "completions"] = "chat"
    prompt_template: str | None = None
    concurrency: int = 8
    budget: Budget = field(default_factory=Budget)
    force: bool = False
    base_model: str | None = None

    def __post_init__(self) -> None:
        """A model behind a server has no base here."""
        if self.base_url and self.base_model:
            raise ConfigError(
                "base_model: is for an adapter on this machine, and base_url names a server. Leave one out."
            )

    @property
    def name(self) -> str:
        """What it is called in files and reports: a folder's own name, or the server's name for it."""
        if self.base_url:
            return self.model
        from ..generation.prompt_format import name_of

        return name_of(self.model)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What has to be the same for a run to go on."""
        named = {"model": self.model, "kind": self.kind if self.base_url else "local"}
        if self.base_model and "contract" not in self.origin:  # a contract knows its base, wherever that is
            named["base_model"] = self.base_model
        return {**named, "prompt_template": self.prompt_template, **self._weights()}

    @cached_property
    def origin(self) -> dict[str, Any]:
        """For an adapter of this library or what was made from one: its contract's hash, and what it learned from."""
        if self.base_url:
            return {}
        from ..runs.contract import read_run_file, run_file_in_use

        run = read_run_file(self.model) or {}
        found: dict[str, Any] = {}
        with run_file_in_use(self.model):
            if "contract" in run:
                found["contract"] = sha256_of_json(run["contract"])
            if isinstance(run.get("data"), dict):
                found["training_data"] = {key: run["data"].get(key) for key in ("source", "fingerprint", "seal")}
                if several := run["data"].get("sources"):
                    found["training_data"]["sources"] = [one["source"] for one in several]
                if columns := run.get("config", {}).get("columns"):
                    found["training_data"]["columns"] = columns
        return found

    @cached_property
    def spending(self) -> Spending:
        """What it has cost."""
        return Spending(self.budget)

    @cached_property
    def writer(self) -> Writer:
        """What answers; loads the model where it is on this machine."""
        if self.base_url is None:
            from .local_client import LocalEndpoint

            return LocalEndpoint(self._local, concurrency=self.slots, spending=self.spending)
        from .client import Endpoint

        return Endpoint(
            self.base_url,
            self.model,
            key=self.key,
            kind=self.kind,
            concurrency=self.concurrency,
            timeout_seconds=TIMEOUT_SECONDS,
            spending=self.spending,
        )

    @property
    def slots(self) -> int:
        """How many are asked at a time."""
        if self.base_url:
            return self.concurrency
        from ..generation.model import MAX_ROWS

        return MAX_ROWS

    def prompt(self, instruction: str, input: str = "") -> Prompt:
        """An instruction as it is put: through the template, or as a user's message."""
        if self.base_url and self.kind == "chat":
            return "\n\n".join(filter(None, (instruction, input)))
        return self._template.prompt(instruction, input)

    def refusal(self, prompt: Prompt) -> str:
        """Why a prompt cannot be answered at all, or ""; a server says so by itself."""
        if self.base_url:
            return ""
        from ..generation.sampling import Sampling

        assert isinstance(prompt, str)
        try:
            self._local.begin(self._local.encoder.text_ids(prompt), Sampling(), growing=False)
        except DataError as problem:
            return str(problem)
        return ""

    @cached_property
    def _local(self) -> LocalModel:
        from ..generation.model import LocalModel

        return LocalModel.load(
            self.model, base_model=self.base_model, prompt_template=self.prompt_template, force=self.force
        )

    @cached_property
    def _template(self) -> Template:
        return Template.load(self.prompt_template or "alpaca") if self.base_url else self._local.encoder.template

    def _weights(self) -> dict[str, Any]:
        """Hashes that tell an adapter from one trained anew in its folder."""
        if self.base_url:
            return {}
        from ..runs.adapter_files import WEIGHTS, is_adapter

        weights = Path(self.model) / WEIGHTS
        adapter = is_adapter(self.model) and weights.exists()
        return {"contract": self.origin.get("contract"), "weights": sha256_of_file(weights) if adapter else None}

    def settings_text(self, **sampling: Any) -> str:
        """How answers were made, as the text that goes into their file."""
        kind = self.kind if self.base_url else "local"
        return json.dumps({"kind": kind, **sampling, **self.origin}, ensure_ascii=False)
