"""Merging: an adapter and its full-precision base become one plain transformers folder.

The merged folder loads without peft. Its logits are compared with those of base + adapter before it is called done.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from ..data.tokens import Encoder
from ..errors import AdapterError
from ..models.load import Placement, load_model
from .contract import Contract, write_run_file

_PROBES = (
    ("Name three primary colours.", ""),
    ("Translate the sentence to French.", "The cat sleeps on the chair."),
    ("Write a haiku about rain.", ""),
)
_MOST_DIFFERENCE = 1e-4  # of float32 logits up to 10; larger ones round coarser, in proportion


def merge_into_folder(model: Any, encoder: Encoder, contract: Contract | None, out: Path) -> float:
    """Merge a peft model (consumed) into its base and write a plain transformers folder.

    Args:
        model: Base + adapter on the CPU.
        encoder: The adapter's encoder; its tokenizer is saved along.
        contract: Written into the merged folder, so that generation keeps template and stops.
        out: New or empty folder.

    Returns:
        Largest absolute difference of logits between base + adapter and the folder as it loads back.

    Raises:
        AdapterError: `out` is not empty or cannot be written, or the merged model differs: in float32 by more than
            1e-4, or than 1e-5 of the largest logit. (The demo model's logits reach 33, and the order of float32's
            sums alone moves them by up to 1.3e-4; in float64 merged and unmerged are equal.)
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out}: exists and is not an empty folder; name a new one.")
    prompts = [torch.tensor([encoder.prompt_ids(*probe)]) for probe in _PROBES]
    before = _logits(model, prompts)
    dtype = model.dtype
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        room = tempfile.TemporaryDirectory(dir=out.parent)
    except OSError as error:
        raise AdapterError(f"{out}: cannot be written: {error.strerror}. Name another folder.") from error
    with room as scratch:
        part = Path(scratch) / out.name
        model.merge_and_unload(safe_merge=True).save_pretrained(part, max_shard_size="2GB")
        encoder.tokenizer.save_pretrained(part)
        after = _logits(load_model(str(part), Placement(torch.device("cpu"), dtype)), prompts)
        difference = max((a - b).abs().max().item() for a, b in zip(after, before, strict=True))
        largest = max(logits.abs().max().item() for logits in before)
        most = _MOST_DIFFERENCE * max(1, largest / 10) if dtype == torch.float32 else float("inf")
        if not difference <= most:
            raise AdapterError(
                f"{out}: merged and unmerged logits differ by {difference:.2g}, more than the {most:.2g} that rounding "
                "explains; not kept. Train the adapter again with a lower learning_rate."
            )
        if contract is not None:
            write_run_file(part, contract, merge={"dtype": str(dtype), "max_logit_difference": difference})
        if out.exists():
            out.rmdir()
        part.rename(out)
    return difference


def _logits(model: Any, prompts: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(input_ids=ids).logits.float() for ids in prompts]
