"""Known GPUs: memory and peak rate, as their makers' data sheets have them.

Gigabytes are GiB, less the sixteenth that cards with GDDR6 and error correction keep for it (24 -> 22.5). Rates are
dense: where a sheet's figure assumes sparsity, half of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError, did_you_mean
from ..models.geometry import Dtype

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    memory_gib: float
    tflops: float
    """10^12 operations per second at peak, dense, in `dtype`, summed in float32."""
    dtype: Dtype = "bfloat16"
    """float16 for cards without bfloat16: what a run on them chooses."""


CARDS = {
    card.name: card
    for card in (
        Card("a100-40g", 40, 312),
        Card("a100-80g", 80, 312),
        Card("h100-80g", 80, 989),  # SXM
        Card("h100-pcie", 80, 756),
        Card("h200", 139, 989),  # sold as 141 GB
        Card("l4", 22.5, 121),
        Card("l40s", 45, 362),
        Card("a10g", 22.5, 70),
        Card("rtx3090", 24, 71),
        Card("rtx4090", 24, 165),
        Card("t4", 15, 65, "float16"),
        Card("v100-16g", 16, 125, "float16"),  # SXM2
        Card("v100-32g", 32, 125, "float16"),
    )
}


def find_card(name: str, memory_gib: float | None = None, tflops: float | None = None) -> Card:
    """A known card, or one described by its figures; those given win.

    Raises:
        ConfigError: an unknown name without both figures, or figures that are no positive numbers.
    """
    given = {"gpu_memory": memory_gib, "gpu_tflops": tflops}
    low = {key: value for key, value in given.items() if value is not None and not value > 0}
    if low:
        raise ConfigError([f"{key}: {value!r} must be a number above 0." for key, value in low.items()])
    known = CARDS.get(name.lower())
    if known is None and (memory_gib is None or tflops is None):
        raise ConfigError(
            f"gpu: {name!r} is not in the table.{_nearest(name)} Known: {', '.join(CARDS)}. For another, "
            "give gpu_memory (GiB) and gpu_tflops (dense bfloat16) too."
        )
    if known is None:
        assert memory_gib is not None and tflops is not None
        return Card(name, memory_gib, tflops)
    return Card(known.name, memory_gib or known.memory_gib, tflops or known.tflops, known.dtype)


def _nearest(name: str) -> str:
    """Cards that begin with the name, as `a100` has two; else the one most like it."""
    begin = [card for card in CARDS if card.startswith(name.lower())] if name else []
    return f" Did you mean {' or '.join(begin)}?" if begin else did_you_mean(name, CARDS)
