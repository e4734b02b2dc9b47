"""Keys and values of answers that grow together, a layer each, in buffers with room to grow.

A step copies only its own token; the buffers are made anew, half as large again, when they are full.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

# Shapes: B rows, H key/value heads, T tokens of the longest row, D head size.


def bytes_per_token(model: Any) -> int:
    """Bytes of one token's keys and values in all layers."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head * torch.finfo(model.dtype).bits // 8


class KeyValues(DynamicLayer):
    """Keys and values (B, H, T, D) at the front of buffers with room for more."""

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Go on with these."""
        self.keys, self.values = keys, values
        self.buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.hold(key_states, value_states)
            return self.keys, self.values
        used, length = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if not self.buffers or length > self.buffers[0].shape[2]:
            room = length + length // 2
            self.buffers = [_with_room(tensor, room) for tensor in (self.keys, self.values)]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, used:length] = new
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)
        return self.keys, self.values


def _with_room(tensor: torch.Tensor, room: int) -> torch.Tensor:
    buffer = tensor.new_empty(*tensor.shape[:2], room, tensor.shape[3])
    buffer[:, :, : tensor.shape[2]] = tensor
    return buffer


def left_padded(tensor: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """The tensor with zeros in front, so that it is `length` long in `dim`."""
    if (gap := length - tensor.shape[dim]) == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = gap
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)
