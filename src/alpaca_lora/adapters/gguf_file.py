"""GGUF, the one file that llama.cpp and Ollama read: a model's tensors, its tokenizer and its chat template.

    model.layers.0.self_attn.q_proj.weight      blk.0.attn_q.weight        in the type that gguf_types.py says
    tokenizer.json, SentencePiece               tokens, and scores = -rank of the merge that makes each
    tokenizer.json, byte-level BPE              tokens, merges, and the name of the way text is split before

In a LLaMA (and a Mistral, which is one there) llama.cpp turns neighbouring pairs of each head where transformers turns
halves, so the rows of q and k change places; in a Qwen both turn halves:

    transformers   a0 a1 a2 b0 b1 b2            GGUF   a0 b0 a1 b1 a2 b2          (ai and bi turn together)

Memory: the tensor at hand. The format is at github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..data.tokens import Encoder
from ..errors import MissingDependencyError, ModelError, a
from ..models.load import load_config
from ..models.shards import Shards, is_finite
from .gguf_about import add_about
from .gguf_rope import FREQUENCIES, add_rope, head_size, rope_problem
from .gguf_tokens import add_tokenizer
from .gguf_types import file_type, quantized, tensor_type

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""llama.cpp's name of each model type that is written."""


def gguf_package() -> Any:
    """The `gguf` package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError("GGUF files need the gguf package: pip install 'alpaca-lora[gguf]'.") from error
    return gguf


def gguf_config(folder: str | Path) -> Any:
    """The config of a model whose file would say all there is to say.

    Raises:
        ModelError: another architecture, or one of these with what transformers' GGUF loader could not give back.
    """
    config = load_config(str(folder))
    if config.model_type not in _ARCHITECTURES:
        raise ModelError(
            f"{folder}: is {a(config.model_type)} model; only LLaMA, Mistral, Qwen2 and Qwen3 models are written as "
            "GGUF here. Convert it with llama.cpp's convert_hf_to_gguf.py."
        )
    rope = rope_problem(config)
    for what, found in (
        (rope, rope),
        ("biases", getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)),
        ("sliding windows", getattr(config, "sliding_window", None)),
        (f"activation {config.hidden_act!r}", config.hidden_act != "silu"),
    ):
        if found:
            raise ModelError(
                f"{folder}: has {what}, which could not be verified after writing. Convert it with llama.cpp's "
                "convert_hf_to_gguf.py."
            )
    return config


def write_gguf(folder: Path, path: Path, kind: str, encoder: Encoder, stop_ids: list[int], chat_template: str) -> str:
    """Write a model's folder as one GGUF file.

    Args:
        folder: The model's folder.
        path: The file.
        kind: One of gguf_types.py's `KINDS`.
        encoder: Its tokenizer and template.
        stop_ids: Generation ends at any of these.
        chat_template: Jinja, for runtimes that read it.

    Returns:
        The tokenizer's kind: "llama", or the name of a byte-level tokenizer's splitting.

    Raises:
        ModelError: a tokenizer or tensor that this format cannot hold.
    """
    gguf, config, shards = gguf_package(), gguf_config(folder), Shards(folder)
    architecture = _ARCHITECTURES[config.model_type]
    types = gguf.GGMLQuantizationType
    plan: dict[str, tuple[str, tuple[int, ...], Any]] = {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, entry in shards.entries.items():
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ModelError(f"{folder}: {name!r} is no tensor of {a(architecture)} model, so GGUF has no name for it.")
        layers, tied = config.num_hidden_layers, config.tie_word_embeddings
        plan[name] = new, entry.shape, tensor_type(kind, new, entry.shape, layers, tied)

    writer = gguf.GGUFWriter(path, architecture)
    try:
        _add_settings(writer, config, file_type(kind))
        add_about(writer, folder)
        factors = add_rope(writer, config)
        tokenizer = add_tokenizer(writer, encoder, config.vocab_size, stop_ids)
        writer.add_chat_template(chat_template)
        for new, shape, dtype in plan.values():
            per_block, block_bytes = gguf.GGML_QUANT_SIZES[dtype]
            size = torch.Size(shape).numel() // per_block * block_bytes
            writer.add_tensor_info(new, shape, torch.zeros(0).numpy().dtype, size, raw_dtype=dtype)
        if factors is not None:
            writer.add_tensor_info(FREQUENCIES, factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, (_, _, dtype) in plan.items():
            tensor = shards.read(name).float()
            limit = 65504 * (1 if dtype == types.F16 else 8)  # a block's scale is in half precision
            if not is_finite(tensor) or (dtype != types.F32 and tensor.abs().max() > limit):
                raise ModelError(f"{folder}: {name!r} holds values beyond the range of {dtype.name}; not written.")
            if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                tensor = _interleaved(tensor, head_size(config))
            writer.write_tensor_data(quantized(tensor.numpy(), dtype))
        if factors is not None:
            writer.write_tensor_data(factors)
    finally:
        writer.close()
    return tokenizer


def _interleaved(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of q or k in GGUF's order, shape (heads * head_dim, hidden)."""
    return tensor.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(tensor.shape).contiguous()


def _add_settings(writer: Any, config: Any, file_type: Any) -> None:
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
