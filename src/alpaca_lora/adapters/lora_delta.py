"""What an adapter does to the tensors of its base.

    W' = W + s B A                        LoRA, arXiv 2106.09685; s = alpha / r, with rsLoRA alpha / sqrt(r), 2312.03732
    W' = m (W + s B A) / ||W + s B A||    DoRA, arXiv 2402.09353; the norm is that of each output's weights

In: an adapter folder, and the base's shapes. Out: a change for each tensor; nothing of the base is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import AdapterError
from ..models.load import load_config
from ..models.new_tokens import ids_of, rows_for
from ..models.shards import Shards
from ..runs.peft_config import changes_base
from ..runs.saved_adapter import SavedAdapter

_ENDS = ("embed_tokens", "lm_head", "wte")


@dataclass(frozen=True)
class Update:
    """What an adapter does to one weight matrix.

    Args:
        down: A, shape (r, inputs).
        up: B, shape (outputs, r).
        scale: s.
        magnitude: DoRA's m, shape (outputs,); None in LoRA.
        transposed: The matrix is stored as (inputs, outputs), as in embeddings and GPT-2.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix as it is stored."""
        outputs, inputs = self.up.shape[0], self.down.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The updated matrix; `weight`, float32, is overwritten."""
        rows = weight.T if self.transposed else weight
        rows.addmm_(self.up.float(), self.down.float(), alpha=self.scale)
        if self.magnitude is not None:
            rows *= (self.magnitude.float() / torch.linalg.norm(rows, dim=1)).unsqueeze(1)
        return weight


@dataclass(frozen=True)
class Replacement:
    """A tensor that was trained whole beside the matrices (peft's `modules_to_save`)."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.tensor.shape)

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The tensor in the place of `weight`."""
        return self.tensor.float()


@dataclass(frozen=True)
class Rows:
    """Rows of an embedding that were trained, and no others (peft's `trainable_token_indices`).

    Args:
        tensor: The rows as they are now, shape (rows, hidden).
        indices: Their tokens.
        shape: Shape of the whole embedding.
    """

    tensor: torch.Tensor
    indices: list[int]
    shape: tuple[int, ...]

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The embedding with these rows in it, and larger where it has none for them; `weight` is overwritten."""
        if len(weight) < self.shape[0]:
            weight = torch.cat([weight, weight.new_zeros(self.shape[0] - len(weight), self.shape[1])])
        weight[self.indices] = self.tensor.float()
        return weight


Change = Update | Replacement | Rows


def check_mergeable(adapter: SavedAdapter) -> None:
    """Raise AdapterError if an adapter, by its config, is of a kind that is not merged here."""
    config = adapter.config
    if config.peft_type != "LORA":
        raise AdapterError(
            f"{adapter.folder}: is an adapter of the kind {config.peft_type.value!r} (peft_type), and only LoRA is "
            "merged here. Use it unmerged, or merge it with peft (merge_and_unload)."
        )
    if (why := changes_base(config)).startswith("init"):
        raise AdapterError(
            f"{adapter.folder}: was made with {why}, which changes the base, so it does not fit the base as it is. "
            "Convert it to a plain LoRA with peft first (save_pretrained with "
            "path_initial_model_for_weight_conversion)."
        )


def changes_to(shards: Shards, adapters: Sequence[SavedAdapter], name: str) -> dict[str, list[Change]]:
    """What adapters do to each tensor of a base, in order.

    Args:
        shards: The base.
        adapters: The adapters.
        name: What the base is called, for messages.

    Raises:
        AdapterError: an adapter does not fit, is more than LoRA, or changes tied embeddings.
    """
    base = shards.folder
    tied = bool(getattr(load_config(str(base)), "tie_word_embeddings", False))
    changes: dict[str, list[Change]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for adapter in adapters:
        folder = adapter.folder
        for tensor, change in _changes_of(adapter, base, name):
            if tied and tensor.split(".")[-2] in _ENDS and not isinstance(change, Rows):
                raise AdapterError(
                    f"{folder}: changes {tensor!r}, but input embedding and head are one tensor in {name!r}, so the "
                    "merged model could not hold it. Use the adapter unmerged."
                )
            found = shards.entries.get(tensor)
            if found is None or not _fits(change, shapes.get(tensor, found.shape)):
                what = "has no such tensor" if found is None else f"has it in shape {found.shape}"
                raise AdapterError(f"{folder}: changes {tensor!r} of shape {change.shape}, but {name!r} {what}.")
            changes.setdefault(tensor, []).append(change)
            shapes[tensor] = change.shape
    return changes


def _fits(change: Change, shape: tuple[int, ...]) -> bool:
    """Whether a change is of a tensor of this shape, or makes it larger by rows that it brings, all of them."""
    more = range(shape[0], change.shape[0])
    grows = isinstance(change, Rows) and change.shape[1:] == shape[1:] and {*more} <= {*change.indices}
    return change.shape == shape or (grows and len(more) > 0)


def _changes_of(adapter: SavedAdapter, base: Path, name: str) -> list[tuple[str, Change]]:
    """One adapter's changes, in order; peft tells, on shapes without weights, each module's rank and scale."""
    from accelerate import init_empty_weights
    from peft.tuners.lora import Embedding, Linear, LoraLayer
    from peft.utils.other import TrainableTokensWrapper
    from transformers import AutoModelForCausalLM

    shape = load_config(str(base))
    shape.vocab_size = rows_for(ids_of(adapter.config), shape.vocab_size)
    with init_empty_weights():
        empty = AutoModelForCausalLM.from_config(shape, trust_remote_code=False)
    wrapped = adapter.wrap(empty, name, meta=True)
    tensors = dict(adapter.tensors)
    config = wrapped.peft_config["default"]
    updates: list[tuple[str, Change]] = []
    for path, module in wrapped.named_modules():
        if isinstance(module, TrainableTokensWrapper):
            key = f"{path}.token_adapter.trainable_tokens_delta"
            if key in tensors:  # a tied head has none of its own
                tokens = module.token_adapter
                rows = Rows(tensors.pop(key), tokens.token_indices["default"], tuple(tokens.base_layer.weight.shape))
                updates.append((f"{path.removeprefix('base_model.model.')}.weight", rows))
    for path, module in wrapped.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        variant = module.lora_variant.get("default")
        more = (variant is not None and not config.use_dora) or module.lora_bias.get("default")
        if type(module) not in (Embedding, Linear) or more:
            raise AdapterError(
                f"{adapter.folder}: {path!r} is more than LoRA, rsLoRA or DoRA. Use the adapter unmerged."
            )
        embedding = type(module) is Embedding
        down, up = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        update = Update(
            down=tensors.pop(f"{path}.{down}"),
            up=tensors.pop(f"{path}.{up}"),
            scale=module.scaling["default"],
            magnitude=tensors.pop(f"{path}.lora_magnitude_vector", None),
            transposed=embedding or module.fan_in_fan_out,
        )
        updates.append((f"{path.removeprefix('base_model.model.')}.weight", update))
    # What is left was trained whole. A matrix may have both: an embedding that peft saved under its LoRA.
    whole = (
        (key.removeprefix("base_model.model.").replace(".base_layer.", "."), left) for key, left in tensors.items()
    )
    return [*((key, Replacement(left)) for key, left in whole), *updates]
