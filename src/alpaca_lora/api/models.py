"""Models that answer: loaded, asked, talked to, served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..generation.model import LocalModel
    from ..generation.moderation import Moderation


def load(
    path: str | Path,
    *,
    base_model: str | None = None,
    prompt_template: str | None = None,
    also: Sequence[str | Path] = (),
    force: bool = False,
) -> LocalModel:
    """Load an adapter folder, a merged folder or a base for generation.

    Args:
        path: Folder, hub id of a base, or `demo`.
        base_model: For an adapter: where its base is now, if not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        also: Further adapters of the same base, each called by its folder's name; `base` is the base itself.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.

    Raises:
        AdapterError: an adapter is damaged, or not for this base, tokenizer or template.
        ModelError: the base cannot be loaded.
    """
    from ..generation.model import LocalModel

    return LocalModel.load(path, base_model=base_model, prompt_template=prompt_template, also=also, force=force)


def generate(
    model: str | Path | LocalModel,
    instruction: str,
    input: str = "",
    *,
    adapter: str | None = None,
    base_model: str | None = None,
    **sampling: Any,
) -> str:
    """The answer to one instruction; for many, `load(...).answers([...])` makes them together, several times as fast.

    Args:
        model: What `load` returned, or anything it takes.
        instruction: What to do.
        input: Context, may be empty.
        adapter: Which of several adapters answers; `base` is none of them.
        base_model: As for `load`.
        **sampling: Fields of `Sampling`: max_new_tokens, temperature, top_p, top_k, repetition_penalty, num_beams,
            seed, stop.

    Raises:
        ConfigError: a value is out of range.
        DataError: nothing is asked. Both are told before a model is loaded.
        AdapterError, ModelError: as `load`.
    """
    from ..generation.sampling import sampling_of

    chosen = sampling_of(sampling)
    _check_asked(instruction, input)
    return _loaded(model, base_model).generate(instruction, input, chosen, adapter)


def stream(
    model: str | Path | LocalModel,
    instruction: str,
    input: str = "",
    *,
    adapter: str | None = None,
    base_model: str | None = None,
    prompt_template: str | None = None,
    force: bool = False,
    **sampling: Any,
) -> Iterator[str]:
    """As `generate`, in pieces as they are made; `prompt_template` and `force` as for `load`."""
    from ..generation.sampling import sampling_of

    chosen = sampling_of(sampling)
    _check_asked(instruction, input)
    loaded = _loaded(model, base_model, prompt_template=prompt_template, force=force)
    return loaded.stream(instruction, input, chosen, adapter)


def chat(
    model: str | Path | LocalModel,
    *,
    moderation: Moderation | None = None,
    write: Callable[..., Any] = print,
    base_model: str | None = None,
    prompt_template: str | None = None,
    also: Sequence[str | Path] = (),
    force: bool = False,
    **sampling: Any,
) -> None:
    """Answer instructions typed in the terminal, each by itself, until the end of input; see `generate` and `load`."""
    from ..generation.chat import chat as talk
    from ..generation.sampling import sampling_of

    chosen = sampling_of(sampling)
    loaded = _loaded(model, base_model, prompt_template=prompt_template, also=also, force=force)
    talk(loaded, chosen, moderation, write=write)


def serve(
    model: str | Path | LocalModel,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    web: bool = False,
    max_rows: int = 32,
    max_waiting: int = 64,
    moderation: Moderation | None = None,
    also: Sequence[str | Path] = (),
    base_model: str | None = None,
    prompt_template: str | None = None,
    force: bool = False,
    ready: Callable[[str], None] = print,
    allow_host: Sequence[str] = (),
) -> None:
    """Serve a model over HTTP, in OpenAI's protocol, until Ctrl-C or SIGTERM.

    Args:
        model: What `load` returned, or anything it takes.
        host: What to bind.
        port: 0 takes one that is free.
        token: What clients must present; needed where `host` is not this machine's own.
        web: With a page for people at /, too.
        max_rows: Most answers made at once.
        max_waiting: Most requests that wait; one more is refused with status 429.
        moderation: Called with each prompt and each answer; returns why it is refused, or None.
        also: Further adapters, as for `load`.
        base_model: As for `load`.
        prompt_template: As for `load`.
        force: As for `load`.
        ready: Called with the address once requests are answered.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.

    Raises:
        ConfigError: the port is taken, or the address needs a token.
        AdapterError, ModelError: as `load`.
        MissingDependencyError: the extra `serve`, or `web`, is not installed.
    """
    from ..serving.serve import serve_model

    def loaded() -> LocalModel:
        return _loaded(model, base_model, also=also, prompt_template=prompt_template, force=force)

    serve_model(
        loaded,
        host=host,
        port=port,
        token=token,
        web=web,
        max_rows=max_rows,
        max_waiting=max_waiting,
        moderation=moderation,
        ready=ready,
        allow_host=allow_host,
    )


def _check_asked(instruction: str, input: str) -> None:
    if not f"{instruction}{input}".strip():
        raise DataError("instruction: is empty. Say what to do.")


def _loaded(model: str | Path | LocalModel, base_model: str | None, **more: Any) -> LocalModel:
    """The model, loaded where it is not yet."""
    if isinstance(model, str | Path):
        return load(model, base_model=base_model, **more)
    if base_model is not None:
        raise ConfigError("base_model: this model is loaded already, on its base. Give base_model to load.")
    return model
