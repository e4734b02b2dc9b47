"""What a folder is, by the files in it: for messages about one that is not what was asked for.

In: a path. Out: a few words, and what to do with it. Costs a listing of the folder; no file is opened.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

_SAFE = "Only safetensors are read here: save it as safetensors where you trust it"
# The first row with a pattern among the names of a folder's files and folders says what it is.
_KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("adapters.safetensors", "adapters.npz"),
        "an adapter of MLX",
        "Fuse it into its base with mlx_lm.fuse, dequantised, and give the folder that writes.",
    ),
    (
        ("lit_model.pth*", "lit_config.json"),
        "a checkpoint of LitGPT",
        "Convert it with litgpt merge_lora and litgpt convert_from_litgpt, save it as safetensors with transformers, "
        "and give that folder.",
    ),
    (
        ("adapter_*.pt", "hf_model_*.pt", "torchtune_config.yaml", "recipe_state"),
        "a checkpoint of torchtune",
        "Have torchtune write safetensors in Hugging Face's format (FullModelHFCheckpointer), and give that folder.",
    ),
    (
        ("pytorch_lora_weights.*", "model_index.json"),
        "a folder of Diffusers, for images",
        "Give an adapter of a language model.",
    ),
    (
        ("*.gguf", "*.ggml"),
        "a file for llama.cpp and Ollama (GGUF)",
        "Give the transformers or peft folder it was made from.",
    ),
    (
        ("zero_to_fp32.py", "global_step*", "zero_pp_rank_*"),
        "a sharded checkpoint of DeepSpeed",
        "Put it together with DeepSpeed's zero_to_fp32.py, as safetensors, beside its config.",
    ),
    (
        ("*.distcp", "pytorch_model_fsdp*"),
        "a sharded checkpoint of FSDP",
        "Put it together with accelerate merge-weights, beside its config.",
    ),
    (
        ("consolidated.*.pth",),
        "a LLaMA in Meta's own format",
        "Convert it with transformers' convert_llama_weights_to_hf.py.",
    ),
    (
        ("adapter_model.bin",),
        "an adapter whose weights are a pickle (adapter_model.bin), which can run code when it is read",
        f"{_SAFE} (load it with peft, then save_pretrained).",
    ),
    (("diff.json",), "a weight difference", "Put it on its base first: alpaca-lora diff apply."),
    (
        ("*model*.bin", "*model*.pt", "*model*.pth", "*.ckpt"),
        "a model whose weights are a pickle, which can run code when it is read",
        f"{_SAFE} (load it with transformers, then save_pretrained).",
    ),
    (
        ("*.h5", "*.msgpack", "*.onnx", "*.nemo", "*.npz"),
        "a model of another framework",
        f"{_SAFE}, as a transformers model of PyTorch.",
    ),
)
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def what_is(path: str | Path) -> tuple[str, str]:
    """What lies at a path, as "a tokenizer without a model", and what to do, as a sentence.

    Example:
        >>> what_is("/nowhere")[0]
        'no such folder'
    """
    path = Path(os.path.expanduser(path))
    if not os.path.exists(path):
        return "no such folder", "Give the folder finetune wrote."
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    for patterns, what, advice in _KINDS:
        # What is whole is not named after what lies beside it: an optimizer's state, a GGUF copy.
        if not _is_model(path) and any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
            return what, advice
    if not path.is_dir():
        return f"a file ({path.name}), not a folder", "Give the folder it lies in."
    if _is_model(path):
        return "a whole model, not an adapter", "It needs no adapter and no merge: use it as it is."
    if "config.json" in names:
        return "a model's folder without weights", "Copy its safetensors files there."
    if any(fnmatchcase(name, "adapter_model*.safetensors") for name in names):
        if "adapter_config.json" in names:
            return "an adapter of another tool", "Convert it to peft's format with that tool."
        return "an adapter's weights without their adapter_config.json", "Copy that from where it was made."
    if any(name.endswith(".safetensors") for name in names):
        return "weights without a config.json beside them", "Copy that from where they were made."
    if "adapter_config.json" in names:
        return "an adapter without weights", "Copy adapter_model.safetensors there from where it was made."
    if inside := _inside(path):
        listed = ", ".join(str(folder) for folder in inside[:3]) + (", ..." if len(inside) > 3 else "")
        return "a folder of such folders", f"Give one of them: {listed}."
    if "history.jsonl" in names or "checkpoints" in names:
        return "the folder of a run that has not ended", "Continue it with the same command and --resume auto."
    if any(name in names for name in _TOKENIZER):
        return "a tokenizer without a model", "Give the folder of the adapter or model it belongs to."
    if not names:
        return "an empty folder", "Give the folder finetune wrote."
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"no adapter or model (it holds {listed})", "Give the folder finetune wrote."


def _is_model(path: Path) -> bool:
    return (path / "config.json").exists() and any(path.glob("*.safetensors"))


def _inside(path: Path) -> list[Path]:
    """Adapters and models in a folder's folders, the last checkpoint last."""
    folders = [folder for depth in ("*", "checkpoints/*") for folder in path.glob(depth) if folder.is_dir()]
    found = [folder for folder in folders if _is_model(folder) or (folder / "adapter_config.json").exists()]
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))
