"""Scaled rotary positions in a GGUF file, as llama.cpp reads them.

    llama3     LLaMA 3.1 and later: a tensor `rope_freqs.weight`, which divides each pair's frequency; not for Qwen
    linear     rope.scaling.type and .factor
    yarn       the same with .original_context_length; llama.cpp computes the rest as transformers does

The frequencies are transformers' own. Others (dynamic, longrope) change with a text's length, which no file can say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

FREQUENCIES = "rope_freqs.weight"
_KEYS = {
    "default": set(),
    "linear": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}


def head_size(config: Any) -> int:
    """Width of an attention head; some configs leave it to be computed."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_problem(config: Any) -> str:
    """What a file could not say of a model's rotary positions, or ""."""
    rope = config.rope_parameters
    kind = rope["rope_type"]
    if kind not in _KEYS or (kind == "llama3" and config.model_type.startswith("qwen")):
        return f"rope type {kind!r}"
    usual = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_KEYS[kind]}
    others = [key for key, value in rope.items() if key not in usual and value is not None]
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        others.append("partial_rotary_factor")
    if kind == "yarn" and rope.get("original_max_position_embeddings") is None:
        return "rope type 'yarn' without original_max_position_embeddings"
    return f"rope type {kind!r} with {', '.join(others)}" if others else ""


def add_rope(writer: Any, config: Any) -> np.ndarray | None:
    """Add a model's rotary positions to a file's metadata.

    Args:
        writer: The file's GGUFWriter.
        config: The model's config, of which `rope_problem` said nothing.

    Returns:
        For llama3 the factors of `FREQUENCIES`, float32, shape (head size / 2,); else None.
    """
    from gguf import RopeScalingType

    rope, width = config.rope_parameters, head_size(config)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = rope["rope_theta"] ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        return (plain / scaled.double()).float().numpy()
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1)
    return None
