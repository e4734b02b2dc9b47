"""A tuned model and its base, loaded: an adapter that can be switched off, or two models side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from os import PathLike, fspath
from typing import Any

from ..data.plan import Planner
from ..data.records import load_records
from ..data.tokens import Encoder, Examples
from ..errors import ConfigError, ModelError
from ..generation import loaded_model
from ..generation.model import LocalModel
from ..generation.prompt_format import BASE
from ..models.attention import BLOCK, IMPLEMENTATION, runs_packs, takes_blocks
from ..models.fingerprint import fingerprint, same_base
from ..models.load import Placement, load_model, resolve_base
from ..models.new_tokens import make_room, rows_of
from ..planning.steps import CPU_TOKENS
from ..runs.adapter_files import is_adapter
from .divergence import Pair

_GPU_TOKENS = 4096
_LONGEST = 2048  # tokens of a record; what is longer is cut, as `cutoff_len` does


def loaded_pair(
    model: str | PathLike[str] | LocalModel, base_model: str | None, prompt_template: str | None
) -> tuple[Pair, Encoder]:
    """The models, and how the tuned one is asked; arguments and errors as for `regressions`."""
    has_adapter = BASE in model.prompt_formats if isinstance(model, LocalModel) else is_adapter(fspath(model))
    local = loaded_model(model, base_model=base_model if has_adapter else None, prompt_template=prompt_template)
    if BASE in local.prompt_formats:
        local.select(local.name)
        return Pair.of_adapter(local.model), local.encoder
    contract = local.contract
    if not (name := base_model or (contract and contract.pinned_base)):
        raise ConfigError(f"base_model: {model} does not say which base it was made from. Give base_model.")
    folder = resolve_base(name)
    if contract and not same_base(contract.base_fingerprint, fingerprint(folder)):
        raise ConfigError(
            f"base_model: {name!r} is not the base that {model} was trained on ({contract.base_model!r}): its weights "
            "are others. Give that base."
        )
    base = load_model(folder, Placement(local.model.device, local.model.dtype))
    if contract and rows_of(local.model) > rows_of(base):  # trained with new tokens
        make_room(base, [rows_of(local.model) - 1])
    sizes = [rows_of(each) for each in (local.model, base)]
    if len(set(sizes)) > 1:
        raise ModelError(f"base_model: {name!r} knows {sizes[1]:,} token ids, and {model} {sizes[0]:,}: not its base.")
    return Pair(local.model, lambda: nullcontext(base)), local.encoder


@contextmanager
def layout_of(pair: Pair) -> Iterator[Callable[[Examples], Planner]]:
    """How examples are laid out for loaded models; packs, where their attention is plain causal."""
    with pair.base() as base:
        models = [pair.tuned, base]
    before = [model.config._attn_implementation for model in models]
    packs = runs_packs(pair.tuned.config)
    multiple = BLOCK if packs and takes_blocks(pair.device) else 1
    tokens = CPU_TOKENS if pair.device.type == "cpu" else _GPU_TOKENS
    try:
        for model in models if packs else ():
            model.set_attn_implementation(IMPLEMENTATION)
        yield partial(Planner, layout="tree" if packs else "padded", max_tokens=tokens, multiple=multiple)
    finally:
        for model, implementation in zip(models, before, strict=True):
            model.set_attn_implementation(implementation)


def examples_of(encoder: Encoder, data: Any, positions: int) -> Examples:
    """Records as examples, asked with the model's template."""
    return encoder.encode(load_records(data), min(positions, _LONGEST))
