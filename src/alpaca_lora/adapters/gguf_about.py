"""What a GGUF file says of its model beside what computes it: name, licence, base, sampling.

Nothing is made up: the licence is the one in the head of the folder's model card, sampling that of its
generation_config.json (without it llama.cpp has defaults of its own). What is not said there is not written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import ModelError
from ..runs.model_card import card_head
from ..runs.result import CARD
from ..textfiles import read_json_file, read_text_file


def add_about(writer: Any, folder: Path) -> None:
    """Add a name, licence and base as the folder's card has them, and how answers are sampled if the folder says so.

    Raises:
        ModelError: generation_config.json or the card's head cannot be read.
    """
    writer.add_name(folder.resolve().name)
    _add_card(writer, folder / CARD)
    path = folder / "generation_config.json"
    generation = read_json_file(path, ModelError) if path.exists() else {}
    if generation.get("do_sample") is False:
        writer.add_sampling_temp(0.0)
    elif generation.get("do_sample"):
        for key, add in (
            ("temperature", writer.add_sampling_temp),
            ("top_p", writer.add_sampling_top_p),
            ("top_k", writer.add_sampling_top_k),
            ("min_p", writer.add_sampling_min_p),
            ("repetition_penalty", writer.add_sampling_penalty_repeat),
        ):
            if generation.get(key) is not None:
                add(generation[key])


def _add_card(writer: Any, path: Path) -> None:
    """Licence and base of a model card's head; what it does not say is not written."""
    try:
        head = card_head(read_text_file(path, ModelError)) if path.is_file() else None
    except yaml.YAMLError as error:
        raise ModelError(
            f"{path}: its head is no YAML: {' '.join(str(error).split())[:200]}. Mend it, or leave the card out."
        ) from None
    if not isinstance(head, dict):
        return
    for key, add in (
        ("license", writer.add_license),
        ("license_name", writer.add_license_name),
        ("license_link", writer.add_license_link),
    ):
        if isinstance(head.get(key), str):
            add(head[key])
    named = head.get("base_model") or []
    bases = [base for base in (named if isinstance(named, list) else [named]) if str(base).count("/") == 1]
    if bases:
        writer.add_base_model_count(len(bases))
    for number, base in enumerate(bases):
        owner, name = base.split("/")
        writer.add_base_model_name(number, name)
        writer.add_base_model_organization(number, owner)
        writer.add_base_model_repo_url(number, f"https://huggingface.co/{base}")
