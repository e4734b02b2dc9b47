"""Adapters and tuned models after training: merged, exported, published, as differences to their base, as LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import ConfigError
from .results import Exported, Merged, Pushed, Verified

if TYPE_CHECKING:
    from .extract import Extraction

OutputDtype = Literal["auto", "float32", "bfloat16"]
ExportFormat = Literal["gguf-f16", "gguf-q8_0", "gguf-q5_k_m", "gguf-q4_k_m", "ollama", "chat-template"]


def merge(
    adapter: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | Path,
    *,
    base_model: str | None = None,
    also: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dtype: OutputDtype = "auto",
    certify: bool = True,
    force: bool = False,
) -> Merged:
    """Merge an adapter into its full-precision base and write a plain transformers folder, a tensor at a time.

    Args:
        adapter: Folder of a LoRA adapter, or several, which are merged one after the other.
        out: New or empty folder.
        base_model: Path or hub id of the base, if it is not where the adapter says.
        also: Folders of further adapters, merged after it in this order.
        dtype: Dtype of the merged weights: "float32", "bfloat16", or "auto", the base's own.
        certify: Compare logits with those of base + adapter. This loads the model in float32; without it, merging needs
            little memory.
        force: Merge although the base or tokenizer is not the one trained with; the certificate says so.

    Returns:
        The folder, which is taken for its path, and its certificate: what was merged and what was measured.

    Raises:
        AdapterError: not an adapter, another base, a merged tensor that is not finite, or logits that differ by more
            than rounding explains (float32: 1e-4, or 1e-5 of the largest logit).
        ModelError: the base is quantised or cannot be read.
    """
    from .merging import merge_adapters

    if dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"dtype: {dtype!r} must be auto, float32 or bfloat16.")
    adapters = [*_several(adapter), *_several(also)]
    certificate = merge_adapters(adapters, out, base_model=base_model, dtype=dtype, certify=certify, force=force)
    return Merged(Path(out), certificate)


def _several(given: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    return [Path(given)] if isinstance(given, str | PathLike) else [Path(one) for one in given]


def diff_make(base_model: str | Path, tuned: str | Path, out: str | Path) -> Path:
    """Write the difference between a tuned model and its base, which is of no use without that base.

    Args:
        base_model: The base: a folder, a hub id, or `demo`.
        tuned: The tuned model.
        out: New or empty folder.

    Returns:
        The folder `out`, with differences of all tensors, hashes of base, difference and result, and the tuned
        model's other files.
    """
    from .weight_diff import make_diff

    return make_diff(base_model, tuned, out)


def diff_apply(diff: str | Path, base_model: str | Path, out: str | Path) -> Path:
    """Give back the tuned model, bit for bit, from a difference and its base.

    Args:
        diff: What `diff_make` wrote.
        base_model: The base.
        out: New or empty folder.

    Raises:
        AdapterError: a tensor of diff, base or result is not the one the difference was made with; it is named.
    """
    from .weight_diff import apply_diff

    return apply_diff(diff, base_model, out)


def diff_verify(diff: str | Path, base_model: str | Path | None = None, result: str | Path | None = None) -> Verified:
    """Check a difference, and a base and a result where given, against the hashes it was made with.

    Returns:
        How many tensors were checked: `diff`, `base` and `result`.

    Raises:
        AdapterError: some are not the same; they are named.
    """
    from .weight_diff import verify_diff

    return Verified(**verify_diff(diff, base_model, result))


def extract_lora(
    base_model: str | Path,
    tuned: str | Path,
    out: str | Path,
    *,
    lora_r: int = 16,
    lora_target_modules: list[str] | None = None,
) -> Extraction:
    """The LoRA adapter of rank r that comes nearest to what full fine-tuning did to a base.

    Args:
        base_model: The base.
        tuned: The fully fine-tuned model.
        out: New or empty folder for the adapter, which peft loads.
        lora_r: Rank.
        lora_target_modules: Names of linear modules; all but the head if left out.

    Returns:
        The relative error of each module and of the whole; also in the folder, as extraction.json.
    """
    from .extract import extract

    return extract(base_model, tuned, out, r=lora_r, targets=lora_target_modules)


def export(folder: str | Path, out: str | Path, *, format: ExportFormat) -> Exported:
    """Write a merged or fully fine-tuned model for another program, with the template and stops it was trained with.

    Args:
        folder: The model; its alpaca_lora.json says template and stops.
        out: New or empty folder.
        format: "gguf-f16", "gguf-q8_0" (8 bits), "gguf-q5_k_m" or "gguf-q4_k_m" (5 or 4 bits), a file for llama.cpp
            and Ollama, read back and compared; "ollama", a
            Modelfile that names `folder`; "chat-template", the folder again, for servers that read chat templates.

    Returns:
        Folder, format and files, and for GGUF `logits`, the largest difference and its limit.

    Raises:
        AdapterError: an adapter, no contract, `out` is not empty, or logits beyond the limit.
        ModelError: a model or tokenizer that the format cannot hold.
        MissingDependencyError: GGUF without the gguf package.
    """
    from .exporting import export_model

    report = export_model(folder, out, format)
    return Exported(Path(out), format, report["files"], report.get("logits"))


def push(folder: str | Path, repo: str, *, private: bool = True) -> Pushed:
    """Publish a result on the Hugging Face hub, in one commit: the files of adapter or model, and none beside them.

    Args:
        folder: A finished run, or what merge, extract or export wrote.
        repo: Its name there, OWNER/NAME; made where it is not yet.
        private: Only its owner may see it. Refused where a public one of that name is there already.

    Returns:
        Its page, the commit, and what was published.

    Raises:
        AdapterError: the run has not ended, its result is damaged, it is a checkpoint or no result; or its model card
            is missing, has places to fill in, or a head that the hub cannot read; or a file holds a key.
        ModelError: a model's weights are not those that were written.
        ConfigError: no name on the hub, or a public one.
        HubError: no key, or the hub refuses it or cannot be reached.
    """
    from .publish import push_result

    return push_result(folder, repo, private)
