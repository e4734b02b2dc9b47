"""What the functions of this room give back: values to go on with, which a notebook shows as sentences.

As text, and for whatever takes a path, a written folder is its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, repr=False)
class Merged:
    """A merged model.

    Attributes:
        folder: Where it is.
        certificate: What merge_certificate.json says: base, adapters, tensors, and the logits compared.
    """

    folder: Path
    certificate: Mapping[str, Any]

    def __fspath__(self) -> str:
        return str(self.folder)

    __str__ = __fspath__

    def __repr__(self) -> str:
        logits = self.certificate["logits"]
        lines = [f"Merged folder: {self.folder}"]
        return "\n".join([*lines, _compared(logits, "base + adapter's")] if isinstance(logits, Mapping) else lines)


@dataclass(frozen=True, repr=False)
class Exported:
    """A model written for another program.

    Attributes:
        folder: Where it is.
        format: As it was asked for.
        files: Names of what was written.
        logits: For GGUF: `max_difference`, `limit`, `same_greedy_answers` and `probes`; None for other formats.
    """

    folder: Path
    format: str
    files: list[str]
    logits: Mapping[str, Any] | None = None

    def __fspath__(self) -> str:
        return str(self.folder)

    __str__ = __fspath__

    def __repr__(self) -> str:
        written = f"{self.folder}: {', '.join(self.files)}"
        return written if self.logits is None else "\n".join([written, _compared(self.logits, "the folder's")])


@dataclass(frozen=True, repr=False)
class Verified:
    """How many tensors were checked against their hashes; None for what was not given."""

    diff: int
    base: int | None = None
    result: int | None = None

    def __str__(self) -> str:
        counts = [f"{count} tensors of the {part}" for part, count in vars(self).items() if count is not None]
        return f"As they were: {', '.join(counts)}."

    __repr__ = __str__


def _compared(logits: Mapping[str, Any], whose: str) -> str:
    return (
        f"Logits are at most {logits['max_difference']:.1e} from {whose} (limit {logits['limit']:.1e}); "
        f"{logits['same_greedy_answers']} of {logits['probes']} answers are the same."
    )
