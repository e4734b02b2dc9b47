"""A model that is asked: an adapter, a merged model or a base on this machine, or one behind a server.

What it is shows before it is loaded, so that a run that cannot go on, or is over, says so at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import ConfigError, DataError
from ..files import sha256_of_file, sha256_of_json
from ..prompts import PromptTemplate, Template
from .budget import Budget, Spending

if TYPE_CHECKING:
    from ..generation.completion import Completion
    from ..generation.model import LocalModel
    from .client import OnAttempt

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
    """One model and how it is asked; `evaluation.answers.answer` says what each value means."""

    model: str
    base_url: str | None = None
    key: str | None = None
    kind: Literal["chat", "completions"] = "chat"
    prompt_template: str | None = None
    concurrency: int = 8
    budget: Budget = field(default_factory=Budget)
    force: bool | None = False
    base_model: str | None = None
    timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
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
        """What has to be the same for a run to continue."""
        named = {"model": self.model, "kind": self.kind if self.base_url else "local"}
        if self.base_model and "contract" not in self.origin:  # a contract knows its base, wherever that is
            named["base_model"] = self.base_model
        return {**named, "prompt_template": self.prompt_template, **self._weights()}

    @cached_property
    def origin(self) -> dict[str, Any]:
        """For an adapter of this library or what was made from one: its contract's hash, what it learned from, and what
        benchmarks said of it."""
        if self.base_url:
            return {}
        from ..runs.benchmarks import Benchmarks
        from ..runs.run_file import RunFile

        run_file = RunFile.read(self.model)
        if run_file is None:
            return {}
        found: dict[str, Any] = {"contract": sha256_of_json(asdict(run_file.contract))}
        if run_file.data:
            found["training_data"] = run_file.data_files
        if measured := Benchmarks.read(self.model):
            found["benchmarks"] = list(map(str, measured.tasks))
        return found

    @cached_property
    def spending(self) -> Spending:
        """What it has cost."""
        return Spending(self.budget)

    @cached_property
    def writer(self) -> Writer:
        """What answers; loads a model of this machine."""
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
            timeout_seconds=self.timeout_seconds,
            spending=self.spending,
        )

    @property
    def slots(self) -> int:
        """Maximum number of questions in flight."""
        if self.base_url:
            return self.concurrency
        from ..generation.model import MAX_ROWS

        return MAX_ROWS

    def prompt(self, instruction: str, input: str = "", earlier: Sequence[tuple[str, str]] = ()) -> Prompt:
        """The prompt of an instruction: through the template, or as a user's message.

        Args:
            instruction: The text.
            input: What it is about.
            earlier: Turns before it in the conversation, what was asked and what was answered; needs `takes_turns`.
        """
        asked = "\n\n".join(filter(None, (instruction, input)))
        chat = self.base_url and self.kind == "chat"
        if chat and not earlier:
            return asked
        if not chat and isinstance(template := self._template, Template):
            assert not earlier, "a template of one turn"
            return template.prompt(instruction, input)
        turns = [(role, text) for turn in earlier for role, text in zip(("user", "assistant"), turn, strict=True)]
        return [{"role": role, "content": text} for role, text in [*turns, ("user", asked)]]

    def takes_turns(self) -> bool:
        """Whether a prompt may have turns before it; loads a model of this machine."""
        if self.base_url:
            return self.kind == "chat"
        return not isinstance(self._template, Template)

    def refusal(self, prompt: Prompt) -> str:
        """Why a prompt cannot be answered at all, or ""; a server says so by itself."""
        if self.base_url:
            return ""
        from ..generation.sampling import Sampling

        encoder = self._local.encoder
        try:
            ids = encoder.text_ids(prompt) if isinstance(prompt, str) else encoder.message_ids(prompt)
            self._local.begin(ids, Sampling(), growing=False)
        except DataError as problem:
            return str(problem)
        return ""

    @cached_property
    def _local(self) -> LocalModel:
        from ..generation.loading import load_local

        return load_local(
            self.model, base_model=self.base_model, prompt_template=self.prompt_template, force=self.force
        )

    @cached_property
    def _template(self) -> PromptTemplate:
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
