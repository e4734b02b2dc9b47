"""Which type each tensor of a GGUF file gets, and its values in that type.

    f32, f16    every matrix
    q8_0        32 neighbours of a row as 8-bit integers and one half-precision scale, max / 127
    q4_k_m      4 bits and q5_k_m 5 bits, in blocks of 256 whose scales are quantised again; the head, and in three of
                eight layers what attention's values and the MLP's last product read, get 6 bits

The mixture of the last two is llama.cpp's own (llama-quantize, without an importance matrix), and so is the quantiser:
it is called inside the package xllamacpp. Rows that 256 does not divide get the types that llama.cpp then takes. Norms
stay float32.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingDependencyError

KINDS = ("f32", "f16", "q8_0", "q4_k_m", "q5_k_m")
_FILE_TYPES = {"f32": "ALL_F32"} | {kind: f"MOSTLY_{kind.upper()}" for kind in KINDS[1:]}
_OF_256 = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What stands in for a type whose blocks are of 256."""


def file_type(kind: str) -> Any:
    """The file's own word for its kind."""
    from gguf import LlamaFileType

    return LlamaFileType[_FILE_TYPES[kind]]


def tensor_type(kind: str, name: str, shape: tuple[int, ...], layers: int, tied: bool) -> Any:
    """The type of a tensor.

    Args:
        kind: One of `KINDS`.
        name: Its name in GGUF.
        shape: Its shape, rows first.
        layers: Layers of the model.
        tied: The model's head is its embedding.
    """
    from gguf import GGMLQuantizationType as Types

    if len(shape) == 1 or kind == "f32":
        return Types.F32
    if kind == "f16" or shape[-1] % 32:
        return Types.F16
    if kind == "q8_0":
        return Types.Q8_0
    wanted = "Q6_K" if _gets_more(name, layers, tied) else kind[:4].upper()
    return Types[wanted if shape[-1] % 256 == 0 else _OF_256[wanted]]


def _gets_more(name: str, layers: int, tied: bool) -> bool:
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return True
    found = re.fullmatch(r"blk\.(\d+)\.(?:attn_v|ffn_down)\.weight", name)
    if found is None:
        return False
    layer, eighth = int(found[1]), layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def quantized(values: np.ndarray, dtype: Any) -> np.ndarray:
    """A matrix (or a vector in float32) as a GGUF file holds it.

    Raises:
        MissingDependencyError: a type of llama.cpp's own without xllamacpp.
    """
    import gguf

    if dtype.name in ("F32", "F16", "Q8_0"):
        return gguf.quantize(values, dtype)
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[dtype]
    rows, columns = values.shape
    values = np.ascontiguousarray(values, np.float32)
    out = np.zeros((rows, columns // per_block * block_bytes), np.uint8)
    written = quantizer()(dtype.value, values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    assert written == out.nbytes
    return out


@cache
def quantizer() -> Any:
    """llama.cpp's `ggml_quantize_chunk`.

    Raises:
        MissingDependencyError: xllamacpp is not installed, or has it no more.
    """
    advice = "pip install 'alpaca-lora[gguf]', or export gguf-q8_0."
    try:
        import xllamacpp

        (library,) = Path(xllamacpp.__path__[0]).glob("*.so")
        function = ctypes.CDLL(str(library)).ggml_quantize_chunk
    except (ImportError, OSError, ValueError, AttributeError) as error:
        raise MissingDependencyError(f"4 and 5 bits are llama.cpp's own work: {advice}") from error
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes, function.restype = [ctypes.c_int, pointer, pointer, *[number] * 3, pointer], ctypes.c_size_t
    return function
