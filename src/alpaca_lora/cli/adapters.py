"""Commands of adapters and tuned models: what is printed."""

from __future__ import annotations

from shlex import quote
from typing import Any

from .. import adapters
from .names import command_name


def merge(out: str, **given: Any) -> None:
    """Print where the merged folder is, and what its certificate measured."""
    print(repr(adapters.merge(out=out, **given)))
    print(f'Next:\n  {command_name()} generate {quote(out)} "Write a haiku about the sea."')


def diff_make(base_model: str, tuned: str, out: str) -> None:
    """Print where the difference is."""
    print(f"Difference: {adapters.diff_make(base_model, tuned, out)}")
    print(f"Next:\n  {command_name()} diff apply {quote(out)} {quote(base_model)} RESULT")


def diff_apply(diff: str, base_model: str, out: str) -> None:
    """Print where the tuned model is."""
    print(f"Tuned model, bit for bit: {adapters.diff_apply(diff, base_model, out)}")


def diff_verify(diff: str, base_model: str | None, result: str | None) -> None:
    """Print what was checked."""
    print(adapters.diff_verify(diff, base_model, result))


def extract(out: str, **given: Any) -> None:
    """Print each module's error."""
    found = adapters.extract_lora(out=out, **given)
    width = max(map(len, found.modules))
    for module, error in found.modules.items():
        print(f"{module:{width}}  {error:.4f}")
    print(f"Relative error of these {len(found.modules)} modules: {found.modules_error:.4f}")
    print(f"Of all that changed: {found.error:.4f} ({len(found.left_out)} tensors changed beside them)")
    print(f"Adapter: {out}")


def export(out: str, **given: Any) -> None:
    """Print the files written, and what was measured."""
    exported = adapters.export(out=out, **given)
    print(repr(exported))
    if "Modelfile" in exported.files:
        print(f"Next:\n  ollama create NAME -f {out}/Modelfile")


def push(**given: Any) -> None:
    """Print what was published, and how it is loaded."""
    pushed = adapters.push(**given)
    print(pushed)
    if not any(name.endswith(".gguf") for name in pushed.files):
        print(f'Next:\n  {command_name()} generate {pushed.repo}@{pushed.commit[:12]} "Write a haiku about the sea."')
