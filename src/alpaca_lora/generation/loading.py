"""Loads a model that answers: adapters on their base, a merged or fully tuned model, or a base.

Each folder's files are read once. Everything that can be refused without the base's weights is refused before they are
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AdapterError, ConfigError
from ..models.fingerprint import fingerprint
from ..models.hub import downloaded, split_revision
from ..models.load import Placement, check_pairing, load_model, resolve_base
from ..runs.adapter_files import is_adapter
from ..runs.contract import Contract
from ..runs.run_file import RunFile, run_of_checkpoint
from ..runs.saved_adapter import SavedAdapter, check_finished
from ..runs.whole_model import check_weights
from .model import LocalModel
from .prompt_format import BASE, PromptFormat, name_of, prompt_format_of, stop_ids_of


def load_local(
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
        path: Folder, name on the hub (also `owner/name@revision`), or `demo`.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        dtype: "auto", "float32", "bfloat16" or "float16".
        also: Further adapters of the same base; each answers under its folder's name.
        force: Continue even if tokenizer, template or base differ from those trained with. None if the caller has no
            such choice to offer.

    Raises:
        AdapterError: an adapter is damaged or belongs to another base, or two have the same name.
        ModelError: the base cannot be loaded.
    """
    called, placement = [path, *also], Placement.choose(dtype, float16=True)
    path, *others_at = [downloaded(str(one)) for one in called]
    if not is_adapter(path):
        if also:
            raise AdapterError(f"{path}: is no adapter, so no other adapters can stand beside it; name the adapters.")
        if base_model is not None:
            raise ConfigError(f"base_model: {path} is no adapter, so it has no base beside it. Leave base_model out.")
        return _whole_model(path, name_of_hub(called[0]), placement, prompt_template, force)

    adapters = [SavedAdapter.read(folder) for folder in (path, *others_at)]
    names = [name_of_hub(one) for one in called]
    for number, (adapter, name) in enumerate(zip(adapters, names, strict=True)):
        if also:
            adapter.check_shareable()
        if name in names[:number]:
            raise AdapterError(f"{adapter.folder}: the name {name!r} is taken by another adapter; rename the folder.")
    base_name = base_model or adapters[0].named_base
    base = resolve_base(base_name)
    base_fingerprint = fingerprint(base) if also or adapters[0].contract else ""

    def prompt_format_for(adapter: SavedAdapter, template: str | None) -> PromptFormat:
        return prompt_format_of(adapter.folder, adapter.contract, base, base_fingerprint, template, force)

    formats = [prompt_format_for(adapters[0], prompt_template), *(prompt_format_for(one, None) for one in adapters[1:])]
    model = _loaded(base, placement, formats[0])
    for number, (adapter, name) in enumerate(zip(adapters, names, strict=True)):
        model = adapter.put_on(model, base_name, name if number else "default")
    first, *others = [_with_stops(prompt_format, model) for prompt_format in formats]
    local = LocalModel(model, first.encoder, first.stop_ids, first.contract, names[0])
    if not adapters[0].changes_of_base:
        local.prompt_formats[BASE] = first
    local.prompt_formats |= dict(zip(names[1:], others, strict=True))
    return local


def _whole_model(
    path: str | Path, name: str, placement: Placement, template: str | None, force: bool | None
) -> LocalModel:
    """A base, or what was merged or fully tuned; a run's checkpoint has its run's contract."""
    run_file = RunFile.read(path)
    check_finished(path, run_file)
    run_file = run_file or run_of_checkpoint(path)
    contract: Contract | None = run_file.contract if run_file else None
    base = resolve_base(str(path))
    prompt_format = prompt_format_of(path, contract, base, None, template, force)
    model = _loaded(base, placement, prompt_format)
    prompt_format = _with_stops(prompt_format, model)
    return LocalModel(model, prompt_format.encoder, prompt_format.stop_ids, contract, name)


def name_of_hub(path: str | Path) -> str:
    """`name_of`, for names on the hub without their revision."""
    return name_of(split_revision(str(path))[0])


def _loaded(base: str, placement: Placement, prompt_format: PromptFormat) -> Any:
    check_weights(base)
    model = load_model(base, placement)
    check_pairing(prompt_format.encoder.tokenizer, model.config)
    return model


def _with_stops(prompt_format: PromptFormat, model: Any) -> PromptFormat:
    """The same; without a contract, with the model's own stops."""
    return replace(prompt_format, stop_ids=prompt_format.stop_ids or stop_ids_of(model, prompt_format.encoder))
