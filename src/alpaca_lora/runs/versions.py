"""Versions of the packages that made something."""

from __future__ import annotations

from importlib import metadata


_PACKAGES = ("alpaca-lora", "torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")


def versions() -> dict[str, str]:
    """Of the packages at work."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
