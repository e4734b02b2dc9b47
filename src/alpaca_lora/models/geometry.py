"""The size of a LLaMA by arithmetic: parameters, floating-point operations and bytes, before any weight is loaded.

In: a model's shape. Out: exact counts, and bytes as the formulas beside them say. Costs microseconds, imports no torch.

    h  hidden size      m  width of the MLP      q  heads x head size     k  key/value heads x head size
    V  vocabulary       L  decoder layers        T  tokens                P  pairs of a token and one it sees
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..errors import ConfigError, did_you_mean
from .lora import DEFAULT_TARGETS, check_pattern

Method = Literal["lora", "qlora", "full"]
Dtype = Literal["float32", "bfloat16", "float16"]
Ranks = Mapping[str, int] | None
Targets = list[str] | str | None  # module names, "all-linear", or None for q_proj and v_proj

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes per parameter, 0.5159: 4 bits, an 8-bit scale for 64, a float32 scale for 256 of those scales (arXiv
2305.14314)."""

OPTIMIZER_BYTES = {"adamw": 8.0, **dict.fromkeys(("adamw_8bit", "paged_adamw_8bit"), 2 * (1 + 4 / 256))}
"""Bytes per trained parameter: two moments in float32, or in 8 bits with a float32 scale for 256 (arXiv 2110.02861)."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def logit_rows(vocab_size: int, on_cpu: bool) -> int:
    """Maximum number of rows of logits that exist at a time (training/loss.py).

    512 keep two CPU cores at their rate. In the product that gives the hidden states' gradient they are half of what
    an H100's multiprocessors want: there 4,096, and fewer where the vocabulary is large, so that a chunk's logits stay
    within 512 MiB in float32.
    """
    return 512 if on_cpu else min(max(2**27 // vocab_size, 512), 4096)


_READ_TOGETHER = {  # linears that read one tensor
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "normalised"),
    **dict.fromkeys(("gate_proj", "up_proj"), "normalised again"),
    "down_proj": "product",
}


class StateBytes(NamedTuple):
    """What training holds whatever the batch."""

    weights: float
    gradients: float
    optimizer: float


@dataclass(frozen=True)
class Geometry:
    """A decoder of LLaMA's kind: RMSNorm, rotary positions, grouped queries, gated MLP, linears without bias.

    Fields are named as in a transformers config: `LlamaConfig(**dataclasses.asdict(geometry))` works.

        >>> f"{SHAPES['llama-7b'].parameters:,}"
        '6,738,415,616'
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 128
    tie_word_embeddings: bool = False

    @classmethod
    def of(cls, config: Any) -> Geometry:
        """The geometry of a transformers config, or of anything with its attributes."""
        sizes = (config.vocab_size, config.hidden_size, config.intermediate_size, config.num_hidden_layers)
        heads = config.num_attention_heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(*sizes, heads, key_heads, head_dim, bool(getattr(config, "tie_word_embeddings", False)))

    @property
    def modules(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear module of a layer."""
        h, m, q, k = self._widths
        attention = {"q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k), "o_proj": (q, h)}
        return {**attention, "gate_proj": (h, m), "up_proj": (h, m), "down_proj": (m, h)}

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear layers: L (2 h q + 2 h k + 3 h m)."""
        return self.num_hidden_layers * sum(inputs * outputs for inputs, outputs in self.modules.values())

    @property
    def head_parameters(self) -> int:
        """Parameters of the head, and of the embedding: h V."""
        return self.hidden_size * self.vocab_size

    @property
    def parameters(self) -> int:
        """All: linears, two norms a layer and a last one, embedding, and the head where it is not the embedding."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        return self.linear_parameters + norms + (2 - self.tie_word_embeddings) * self.head_parameters

    def lora_parameters(self, r: int, targets: Targets = None, pattern: Ranks = None) -> int:
        """Of LoRA's matrices of rank r: r (inputs + outputs), summed over targets and layers (arXiv 2106.09685).

        Args:
            r: Rank.
            targets: As of `add_lora`.
            pattern: Ranks that are not r, as of `add_lora`.

        Raises:
            ConfigError: a target is no linear module of a layer.
        """
        total = 0
        for path in self._paths(targets):
            rank = next((rank for key, rank in (pattern or {}).items() if f".{path}".endswith(f".{key}")), r)
            total += rank * sum(self.modules[path.rsplit(".", 1)[-1]])
        return total

    def rank_problems(self, r: int, targets: Targets = None, pattern: Ranks = None) -> list[str]:
        """A sentence where LoRA's rank is one that no target can have: a matrix's is at most its smaller side; and for
        each pattern that is wrong. Arguments as of `lora_parameters`.

        Raises:
            ConfigError: a target is no linear module of a layer.
        """
        sides = {name: min(self.modules[name]) for name in self._targets(targets)}
        try:
            check_pattern({path: sides[path.rsplit(".", 1)[-1]] for path in self._paths(targets)}, pattern or {})
        except ConfigError as error:
            return error.problems
        widest = max(sides, key=sides.__getitem__)
        if r <= sides[widest]:
            return []
        return [f"lora_r: {r:,} is more than {sides[widest]:,}, {widest}'s smaller side. Lower it."]

    def forward_flops(self, tokens: float, visible_pairs: float, predicted: float) -> float:
        """Operations (2 x multiply-adds) of a forward pass: 2 linears T + 4 q P L + 2 h V predicted.

        Args:
            tokens: T, tokens computed.
            visible_pairs: P, sum over tokens of the tokens each one sees, itself included: n (n + 1) / 2 in a sequence.
            predicted: Tokens whose logits are computed. Norms, rotary positions and softmax are not counted.
        """
        attention = 4 * self._widths[2] * visible_pairs * self.num_hidden_layers
        return 2 * self.linear_parameters * tokens + attention + 2 * self.head_parameters * predicted

    def training_flops(
        self, method: Method, tokens: float, visible_pairs: float, predicted: float, lora: int = 0, again: bool = False
    ) -> float:
        """Operations of a forward and a backward pass; arguments as for `forward_flops`.

        `full`: 3 forwards; the gradients of inputs and of weights cost one each (arXiv 2001.08361). LoRA: frozen
        weights need no gradient of their own, and the first layer's q, k, v none of their input; attention is 3
        forwards; each of the `lora` parameters costs 6 a token. In `qlora`, unpacking weights is not counted. `again`
        adds what activation checkpointing repeats, the layers' forward (not for MFU, which asks for needed work).
        """
        forward = self.forward_flops(tokens, visible_pairs, predicted)
        repeated = again * (self.forward_flops(tokens, visible_pairs, 0) + 2 * lora * tokens)
        if method == "full":
            return 3 * forward + repeated
        h, _, q, k = self._widths
        attention = self.forward_flops(0, visible_pairs, 0)
        return 2 * forward + attention - 2 * h * (q + 2 * k) * tokens + 6 * lora * tokens + repeated

    def flops_per_token(
        self, method: Method, context: float, predicted: float = 1, lora: int = 0, again: bool = False
    ) -> float:
        """`training_flops` of a token that sees `context` tokens in the mean, itself included: (n + 1) / 2 in sequences
        of n. `predicted` is the share of tokens with a loss."""
        return self.training_flops(method, 1, context, predicted, lora, again)

    def state_bytes(
        self,
        method: Method,
        lora: int = 0,
        load_in_8bit: bool = False,
        optimizer: str = "adamw",
        dtype: Dtype = "bfloat16",
    ) -> StateBytes:
        """Weights, gradients and optimizer state, over all GPUs that share them.

        What trains: float32 weight 4, gradient 4, AdamW 8: 16 bytes per parameter (arXiv 1910.02054). What is frozen: 2
        in bfloat16 and 4 in float32, but linears 0.516 in `qlora`, 1 (and a float32 a row) with `load_in_8bit`. 8-bit
        optimizers keep the embedding's moments in float32, as transformers asks them to.
        """
        width = DTYPE_BYTES[dtype]
        if method == "full":
            trained, wide, frozen = self.parameters, self.head_parameters, 0.0
        else:
            rows = self.num_hidden_layers * sum(outputs for _, outputs in self.modules.values())
            linear = self.linear_parameters
            held = NF4_BYTES * linear if method == "qlora" else linear + 4 * rows if load_in_8bit else width * linear
            trained, wide, frozen = lora, 0, held + width * (self.parameters - linear)
        moments = OPTIMIZER_BYTES["adamw"] * wide + OPTIMIZER_BYTES[optimizer] * (trained - wide)
        return StateBytes(frozen + 4 * trained, 4 * trained, moments)

    def gathered_bytes(self, method: Method) -> int:
        """What FSDP2 holds whole on each GPU while the rest is in shards.

        In bfloat16 two layers (one in use, the next arriving), embedding and head; `full`: also the gradients of the
        larger of a layer and these two, in bfloat16 and on their way into a float32 sum, 6 bytes per parameter.
        """
        layer, ends = self.linear_parameters // self.num_hidden_layers, self.parameters - self.linear_parameters
        return 2 * (2 * layer + ends) + (6 * max(layer, ends) if method == "full" else 0)

    def activation_bytes(
        self,
        method: Method,
        checkpointing: bool = False,
        targets: Targets = None,
        dropout: bool = False,
        *,
        dtype: Dtype = "bfloat16",
        sharded: bool = True,
        on_cpu: bool = False,
    ) -> int:
        """Activation bytes per token kept for the backward pass; products in `dtype`, norms in float32, as transformers
        has it.

        After arXiv 2205.05198, equation 2, for a LLaMA whose attention keeps no scores (FlashAttention); w is 2 bytes
        (bfloat16) or 4 (float32). A layer:

            norms, attention     2 x 4 h   w (2 q + 2 k)      inputs in float32; queries, keys, values, output
            MLP                  3 w m                        gate, its activation, up
            full                 w (4 h + m)                  normalised twice; inputs of q k v, of gate and up, of down
            full, not sharded    2 x 4 h   w (5 h + m)        bfloat16: normalised in float32; each linear casts its own
            LoRA                 w inputs of each target      bfloat16: each casts its own; float32: shared
            LoRA, dropout        (w + 1) inputs of each       its own, and a mask, which on a CPU is float32: w + 4

        With checkpointing: a layer's input for each layer, and one layer's all. Not counted: logits and gradients in
        flight (planning/memory.py has them), a rank's worth a target, what allocators lose.
        """
        h, m, q, k = self._widths
        width = DTYPE_BYTES[dtype]
        alone = method == "full" and not sharded and width == 2  # autocast over float32 weights: so is what flows by
        layer = 8 * h + width * (2 * (q + k) + 3 * m)
        if method == "full":
            layer += width * (5 * h + m) + 8 * h if alone else width * (4 * h + m)
        else:
            names = self._targets(targets)
            if dropout:
                layer += (width + (4 if on_cpu else 1)) * sum(self.modules[name][0] for name in names)
            elif width == 2:
                layer += width * sum(self.modules[name][0] for name in names)
            else:  # what o_proj gets is attention's output, counted above
                inputs = {_READ_TOGETHER[name]: self.modules[name][0] for name in names if name in _READ_TOGETHER}
                layer += width * sum(inputs.values())
        stream = 4 if alone else width
        return layer + stream * h * self.num_hidden_layers if checkpointing else layer * self.num_hidden_layers

    @property
    def _widths(self) -> tuple[int, int, int, int]:
        q, k = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return self.hidden_size, self.intermediate_size, q, k

    def _paths(self, targets: Targets) -> list[str]:
        """Paths of the targets in all layers, as a LLaMA has them."""
        parents = {name: "mlp" if name.startswith(("gate", "up", "down")) else "self_attn" for name in self.modules}
        layers, names = range(self.num_hidden_layers), self._targets(targets)
        return [f"model.layers.{layer}.{parents[name]}.{name}" for layer in layers for name in names]

    def _targets(self, targets: Targets) -> list[str]:
        known = self.modules
        names = list(known) if targets == "all-linear" else list(targets or DEFAULT_TARGETS)
        wrong = [name for name in names if name not in known]
        if wrong:
            rule = f"is no linear module of a layer. Choose from: {', '.join(known)}."
            raise ConfigError([f"lora_target_modules: {name!r} {rule}{did_you_mean(name, known)}" for name in wrong])
        return names


SHAPES = {  # arXiv 2302.13971, 2307.09288 and 2407.21783; widths of the MLP from the published config.json
    "llama-7b": Geometry(32_000, 4096, 11_008, 32, 32, 32),
    "llama-13b": Geometry(32_000, 5120, 13_824, 40, 40, 40),
    "llama-30b": Geometry(32_000, 6656, 17_920, 60, 52, 52),
    "llama-65b": Geometry(32_000, 8192, 22_016, 80, 64, 64),
    "llama2-7b": Geometry(32_000, 4096, 11_008, 32, 32, 32),
    "llama2-13b": Geometry(32_000, 5120, 13_824, 40, 40, 40),
    "llama2-70b": Geometry(32_000, 8192, 28_672, 80, 64, 8),
    "llama3-8b": Geometry(128_256, 4096, 14_336, 32, 32, 8),
    "llama3-70b": Geometry(128_256, 8192, 28_672, 80, 64, 8),
}
