"""Commands of adapters and tuned models."""

from __future__ import annotations

from shlex import quote
from typing import Literal

from ..errors import AdapterError
from ..files import read_json_file
from .names import command_name, paths


def merge(
    adapter: str,
    out: str,
    base_model: str | None = None,
    also: list[str] | str | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    certify: bool = True,
    force: bool = False,
) -> None:
    """Merge an adapter into its base: a plain transformers folder that loads without peft.

    Args:
        adapter: Folder of a LoRA adapter.
        out: New folder to write.
        base_model: Where the base is now, if not where the adapter says.
        also: Folders of further adapters, merged after it in this order.
        dtype: Of the merged weights; auto is the base's own.
        certify: Compare logits with those of base + adapter; loads the model, in float32.
        force: Merge although base or tokenizer are not those trained with; the certificate says so.
    """
    from .. import api

    adapters = [adapter, *paths(also)]
    folder = api.merge(adapters, out, base_model=base_model, dtype=dtype, certify=certify, force=force)
    measured = read_json_file(folder / "merge_certificate.json", AdapterError)["logits"]
    print(f"Merged folder: {folder}")
    if certify:
        print(
            f"Logits are at most {measured['max_difference']:.1e} from base + adapter's; "
            f"{measured['same_greedy_answers']} of {measured['probes']} answers are the same."
        )
    print(f'Next:\n  {command_name()} generate {quote(out)} "Write a haiku about the sea."')


def diff_make(base_model: str, tuned: str, out: str) -> None:
    """Write the difference between a tuned model and its base, as Stanford Alpaca released its weights."""
    from .. import api

    print(f"Difference: {api.diff_make(base_model, tuned, out)}")
    print(f"Next:\n  {command_name()} diff apply {quote(out)} {quote(base_model)} RESULT")


def diff_apply(diff: str, base_model: str, out: str) -> None:
    """Give back the tuned model, bit for bit, from a difference and its base."""
    from .. import api

    print(f"Tuned model, bit for bit: {api.diff_apply(diff, base_model, out)}")


def diff_verify(diff: str, base_model: str | None = None, result: str | None = None) -> None:
    """Check a difference, and a base and a result where given, by the hash of every tensor."""
    from .. import api

    found = api.diff_verify(diff, base_model, result)
    print("As they were: " + ", ".join(f"{count} tensors of the {part}" for part, count in found.items()) + ".")


def extract(base_model: str, tuned: str, out: str, r: int = 16, targets: list[str] | None = None) -> None:
    """Extract a LoRA adapter from a fully fine-tuned model, by SVD.

    Args:
        base_model: The base: a folder, a hub id, or `demo`.
        tuned: The fully fine-tuned model.
        out: New folder for the adapter.
        r: Rank.
        targets: Names of linear modules; all but the head if left out.
    """
    from .. import api

    found = api.extract_lora(base_model, tuned, out, r=r, targets=targets)
    width = max(map(len, found.modules))
    for module, error in found.modules.items():
        print(f"{module:{width}}  {error:.4f}")
    print(f"Relative error of these {len(found.modules)} modules: {found.modules_error:.4f}")
    print(f"Of all that changed: {found.error:.4f} ({len(found.left_out)} tensors changed beside them)")
    print(f"Adapter: {out}")


def export(folder: str, out: str, format: Literal["gguf-f16", "gguf-q8_0", "ollama", "chat-template"]) -> None:
    """Write a merged or fully fine-tuned model for another program, with its template and stops.

    Args:
        folder: The model.
        out: New folder to write.
        format: A GGUF file for llama.cpp and Ollama, a Modelfile that names the folder, or the folder again with a
            chat template.
    """
    from .. import api

    report = api.export(folder, out, format=format)
    print(f"{out}: {', '.join(report['files'])}")
    if measured := report.get("logits"):
        print(
            f"Logits are at most {measured['max_difference']:.1e} from the folder's (limit {measured['limit']:.1e}); "
            f"{measured['same_greedy_answers']} of {measured['probes']} answers are the same."
        )
    if "Modelfile" in report["files"]:
        print(f"Next:\n  ollama create NAME -f {out}/Modelfile")
