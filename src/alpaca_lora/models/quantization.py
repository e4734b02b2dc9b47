"""Frozen weights in 4 or 8 bits, through bitsandbytes; what trains beside them stays in float32."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from .load import Placement


def check_bitsandbytes(setting: str) -> None:
    """Raise MissingDependencyError where bitsandbytes is not installed; `setting` is what needs it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(f"{setting}: needs bitsandbytes. Install it: pip install 'alpaca-lora[quant]'")


def quantization(bits: int, placement: Placement) -> dict[str, Any]:
    """Arguments for `from_pretrained` that quantise the decoder's linear weights; embeddings and head stay whole.

    Args:
        bits: 4 is NF4 with double quantisation, 4.127 bits a weight (arXiv 2305.14314); 8 is LLM.int8 (2208.07339).
        placement: Device the weights go to and dtype of the products.
    """
    check_bitsandbytes(f"{bits}-bit weights")
    from transformers import BitsAndBytesConfig

    if bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=placement.dtype,
        )
    return {"quantization_config": config, "device_map": {"": placement.device}}


def keep_trainable(model: Any) -> None:
    """Have 4-bit weights stay as they can be trained beside.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 lays them out anew at the first forward in evaluation mode, and keeps
    them so; its product on that layout has no gradient, and training after an evaluation would go wrong in silence.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
