"""Peak memory of a run on each device, by what holds it.

In: settings, a model's shape, the largest micro-batch. Out: bytes, for training, evaluating and saving, and what a
merge takes of the host. A step's memory has three moments at which it can be highest:

    forward ... [loss] [last layer's backward] ... backward ... [end]
    activations  all    all, and gradients in      fewer ...     none
                        flight
    logits       2 x    none                                     none
                 256
    gradients    those of the step's earlier micro-batches ...   all

Bytes of parts: models/geometry.py, with sources. Counted here, from the code that allocates them: logits (training/
loss.py), the layouts' attention (models/attention.py), copies of weights. Not counted: CUDA's context, libraries'
workspaces, what an allocator loses; `ROOM` leaves room for those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..config import FinetuneConfig
from ..models.geometry import DTYPE_BYTES, Dtype, Geometry, StateBytes, logit_rows
from .cards import GIB

FILE_BYTES = 2 * 10**9  # training/fsdp.py: of the model's files, each of which is put together on the host
CUDA_BYTES, ROOM = GIB, 0.1  # CUDA itself; what the allocator loses, of all that comes and goes


class MicroBatchSize(NamedTuple):
    """What a micro-batch holds; fields as in data/counts.py."""

    tokens: int
    predicted: int
    pairs: float
    row: int
    copied_keys: int = 0


class Memory(NamedTuple):
    """Bytes on one device at the highest moment."""

    weights: float
    gradients: float
    optimizer: float
    copies: float
    """Weights gathered from other ranks, cast to bfloat16, or unpacked from 4 bits, for the time of their use."""
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """Bytes of all tensors."""
        return sum(self)

    @property
    def needed(self) -> float:
        """GPU memory needed: 10% more for temporaries, and 1 GiB for CUDA."""
        return self.total + ROOM * (self.copies + self.activations + self.logits) + CUDA_BYTES


@dataclass(frozen=True)
class MemoryModel:
    """A run's memory by formula.

    Args:
        config: Its settings.
        shape: The model's.
        dtype: Dtype of matrix multiplications and frozen weights.
        ranks: Devices that share the state with `fsdp`.
        on_cpu: Attention and dropout as they are on a CPU.
    """

    config: FinetuneConfig
    shape: Geometry
    dtype: Dtype = "bfloat16"
    ranks: int = 1
    on_cpu: bool = False

    def training(self, batch: MicroBatchSize, first: bool = False) -> Memory:
        """The highest moment of a micro-batch's forward and backward pass, once the optimizer has its state.

        Args:
            batch: The micro-batch.
            first: It is the first of its step, so that no gradients are there yet.
        """
        weights, gradients, optimizer = self._state
        earlier = 0.0 if first else gradients
        loss = Memory(weights, earlier, optimizer, self._copies, self._kept(batch, at_loss=True), self._logits(batch))
        flying = self._kept(batch, at_loss=False) + self._in_flight(batch)
        backward = Memory(weights, earlier, optimizer, self._copies + self._unpacked, flying, 0.0)
        return max(loss, backward, Memory(weights, gradients, optimizer, 0.0, 0.0, 0.0), key=lambda each: each.total)

    def evaluation(self, batch: MicroBatchSize) -> Memory:
        """The highest moment of an evaluation: one layer's activations at a time, most in its MLP (gate, up and their
        product; up's LoRA beside it); no gradients."""
        h, m = self.shape.hidden_size, self.shape.intermediate_size
        state = self._state
        held = Memory(state.weights, 0.0, state.optimizer, self._gathered or self._unpacked, 0.0, 0.0)
        wide = 4 if "up_proj" in (self.config.lora_target_modules or ()) or self._everywhere else 3
        layer = held._replace(activations=self._width * (4 * h + wide * m) * batch.tokens)
        hidden = self._width * h * (batch.tokens + batch.predicted)
        loss = held._replace(activations=hidden, logits=self._rows_of_logits(batch) + self._head_copy)
        return max(layer, loss, key=lambda each: each.total)

    def saving(self) -> Memory:
        """While a checkpoint or the result is written: tensors go to the host one at a time, gathered with `fsdp`."""
        weights, _, optimizer = self._state
        gathered = 4 * self.shape.head_parameters if self._shards > 1 and self.config.method == "full" else 0.0
        return Memory(weights, 0.0, optimizer, gathered, 0.0, 0.0)

    @property
    def saving_host(self) -> float:
        """Bytes of the first rank's host memory: a file of the model, and the largest tensor in float32; or LoRA's."""
        if self._full:
            return min(FILE_BYTES, self._width * self.shape.parameters) + 4 * self.shape.head_parameters
        return 4 * self._lora

    def merging_host(self, certify: bool = True) -> float:
        """Bytes of host memory a merge takes: the model in float32 and a tenth where logits are compared
        (adapters/certificate.py), else the adapter and three times the largest tensor (adapters/merging.py)."""
        return 4.4 * self.shape.parameters if certify else 4 * self._lora + 12 * self.shape.head_parameters

    @property
    def _full(self) -> bool:
        return self.config.method == "full"

    @property
    def _width(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def _lora(self) -> int:
        if self._full:
            return 0
        rows = len(self.config.new_tokens or ()) * self.shape.hidden_size * (2 - self.shape.tie_word_embeddings)
        return self.shape.lora_parameters(*self.config.lora_shape) + rows

    @property
    def _shards(self) -> int:
        return self.ranks if self.config.fsdp else 1

    @property
    def _state(self) -> StateBytes:
        config = self.config
        state = self.shape.state_bytes(config.method, self._lora, config.load_in_8bit, config.optimizer, self.dtype)
        held = 0 if config.cpu_offload else 1 / self._shards
        return StateBytes(*(part * held for part in state))

    @property
    def _gathered(self) -> float:
        return self.shape.gathered_bytes(self.config.method) if self._shards > 1 else 0.0

    @property
    def _copies(self) -> float:
        """Held through the loss: gathered layers, or the bfloat16 copies that autocast makes of float32 weights, which
        wait for the backward pass as the activations do."""
        if self._gathered or not self._full or self._width == 4 or self.config.gradient_checkpointing:
            return self._gathered
        return 2.0 * self.shape.linear_parameters

    @property
    def _unpacked(self) -> float:
        """One module's weights in `dtype`, for its product: from 4 or 8 bits, or cast from float32."""
        largest = max(inputs * outputs for inputs, outputs in self.shape.modules.values())
        if self.config.method == "qlora" or self.config.load_in_8bit:
            return self._width * largest
        again = self._full and not self._gathered and self._width == 2 and self.config.gradient_checkpointing
        return 2.0 * self.shape.linear_parameters / self.shape.num_hidden_layers if again else 0.0

    @property
    def _head_copy(self) -> float:
        return 2.0 * self.shape.head_parameters if self._full and not self._gathered and self._width == 2 else 0.0

    def _logits(self, batch: MicroBatchSize) -> float:
        """A chunk's logits and their log-softmax in float32; hidden states and their gradients; `full`: the head's
        gradient in float32 and a chunk's."""
        shape, width = self.shape, self._width
        narrow = width == 2  # products of bfloat16 are cast
        hidden = 2 * width * batch.predicted * shape.hidden_size
        rows = self._rows_of_logits(batch)
        if not self._full:
            # With new tokens the head is copied with their rows in it, and has a gradient, of which theirs are kept.
            new = 2 * width + 4 + 4 * narrow if self.config.new_tokens else 0
            return rows + hidden + new * shape.head_parameters
        chunk = (4 + 2 * narrow) * self._chunk_rows(batch) * shape.vocab_size
        chunk += (width + 4 * narrow) * shape.head_parameters
        return 4 * shape.head_parameters + max(rows, chunk) + hidden + self._head_copy

    def _rows_of_logits(self, batch: MicroBatchSize) -> float:
        """A chunk's logits and log-softmax, in float32."""
        return 8.0 * self._chunk_rows(batch) * self.shape.vocab_size

    def _kept(self, batch: MicroBatchSize, at_loss: bool) -> float:
        """Activations at the loss, or in the last layer's backward pass: with checkpointing, that layer's are there
        again. Beside the layers': the last norm's input and output."""
        config, shape, layers = self.config, self.shape, self.shape.num_hidden_layers

        def bytes_a_token(checkpointing: bool) -> int:
            return shape.activation_bytes(
                config.method,
                checkpointing,
                config.lora_target_modules,
                config.lora_dropout > 0,
                dtype=self.dtype,
                sharded=self._shards > 1,
                on_cpu=self.on_cpu,
            )

        layer = bytes_a_token(False) / layers
        inputs = bytes_a_token(True) - layer
        layer = layer * batch.tokens + self._attention(batch)
        ends = (4 + 2 * self._width) * shape.hidden_size * batch.tokens
        if config.gradient_checkpointing:
            return inputs * batch.tokens + (0 if at_loss else layer) + ends
        return layers * layer + ends

    def _attention(self, batch: MicroBatchSize) -> float:
        """What the layouts add to a layer. `padded`: keys and values once for each query head, and a mask as numbers.
        The others on a CPU: a branch's keys and values joined with its ancestors', and its output before all of a pack
        are joined, which o_proj keeps where it learns."""
        shape, width = self.shape, self._width
        q, k = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
        if self.config.layout == "padded":
            return width * (2 * (q - k) + batch.row) * batch.tokens
        if not self.on_cpu:
            return 0.0
        learns = "o_proj" in (self.config.lora_target_modules or ()) or self._everywhere
        twice = self._full or (learns and self.config.lora_dropout == 0)
        return width * (2 * k * batch.copied_keys + twice * q * batch.tokens)

    def _in_flight(self, batch: MicroBatchSize) -> float:
        """Gradients between a layer's operations, most in the MLP: its output's, and those of gate, up and their
        product. What down_proj keeps to learn is gone when the third is made. `full`: a weight's."""
        config, shape = self.config, self.shape
        learns = self._full or "down_proj" in (config.lora_target_modules or ()) or self._everywhere
        wide = 2 if learns else 3
        weight = 4 * shape.hidden_size * shape.intermediate_size if self._full else 0
        return self._width * (shape.hidden_size + wide * shape.intermediate_size) * batch.tokens + weight

    @property
    def _everywhere(self) -> bool:
        return self.config.lora_target_modules == "all-linear"

    def _chunk_rows(self, batch: MicroBatchSize) -> int:
        """Rows of the largest chunk of logits: chunks are even."""
        most = logit_rows(self.shape.vocab_size, self.on_cpu)
        return math.ceil(batch.predicted / max(math.ceil(batch.predicted / most), 1))
