"""Versions of the packages that made something."""

from __future__ import annotations

from importlib import metadata

_PACKAGES = ("alpaca-lora", "torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of the packages in use."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
