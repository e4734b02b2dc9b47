"""A model that answers over HTTP: OpenAI's protocol, and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING

from ..errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from ..generation.model import LocalModel
    from ..generation.moderation import Moderation


def serve(
    model: str | PathLike[str] | LocalModel,
    *,
    also: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    base_model: str | None = None,
    prompt_template: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: str | Sequence[str] = (),
    web: bool = False,
    max_rows: int = 32,
    max_waiting: int = 64,
    moderation: str | Moderation | None = None,
    force: bool = False,
    token: str | None = None,
    key: str | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve a model over HTTP, in OpenAI's protocol and with a page for people, until Ctrl-C or SIGTERM.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`; or what `load` returned.
        also: Folders of further adapters; requests name them as `model`; `base` disables them all.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        host: Address to bind. Another than this machine's own needs a token.
        port: 0 takes one that is free.
        allow_host: Names beside this machine's own under which a tunnel or proxy passes requests on.
        web: Add a page for people at /.
        max_rows: Maximum number of answers made at once.
        max_waiting: Maximum number of requests that wait; one more is refused with status 429.
        moderation: A file with one word or phrase per line that are refused, or the URL of an OpenAI-compatible
            moderation endpoint; in Python also a function that returns why a text is refused, or None.
        force: Continue even if tokenizer, template or base differ from those trained with.
        token: What clients must present.
        key: Key of the moderation endpoint.
        ready: Called with the address once requests are answered.

    Raises:
        ConfigError: the port is taken, or the address needs a token.
        AdapterError, ModelError: as `load`.
        MissingDependencyError: the extra `serve`, or `web`, is not installed.
    """
    from ..generation import loaded_model
    from ..generation.moderation import moderation_from
    from .listening import listen, run, url_of

    limits = (("max_rows", max_rows), ("max_waiting", max_waiting))
    if problems := [f"{name}: {value!r} must be at least 1." for name, value in limits if value < 1]:
        raise ConfigError(problems)
    if web and not find_spec("gradio"):
        raise MissingDependencyError("the page needs more packages: pip install 'alpaca-lora[web]'")
    looks = moderation_from(moderation, key) if isinstance(moderation, str) else moderation
    names = [allow_host] if isinstance(allow_host, str) else allow_host
    with listen(host, port, token, names) as listening:
        from .engine import Engine
        from .server import make_app

        loaded = loaded_model(model, base_model=base_model, prompt_template=prompt_template, also=also, force=force)
        engine = Engine(loaded, max_rows=max_rows, max_waiting=max_waiting)
        app = make_app(engine, looks)
        if web:
            from .page import add_page

            app = add_page(app, engine, looks)
        ready(url_of(listening, token))
        run(app, listening, token, engine.close, names)
