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
class Pushed:
    """A result on the Hugging Face hub.

    Attributes:
        repo: Its name there.
        url: Its page.
        commit: The commit that holds it; `load(f"{repo}@{commit}")` loads this very result.
        files: Names of what was published.
    """

    repo: str
    url: str
    commit: str
    files: list[str]

    def __str__(self) -> str:
        return f"{self.url}: {', '.join(self.files)} (commit {self.commit})"

    __repr__ = __str__


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
    farthest, limit = f"at most {logits['max_difference']:.1e} from {whose}", f"(limit {logits['limit']:.1e})"
    by_kl = logits.get("judged_by") == "mean_kl"
    return (
        (f"Mean KL divergence {logits['mean_kl']:.1e} {limit}, logits {farthest}; " if by_kl else "")
        + ("" if by_kl else f"Logits are {farthest} {limit}; ")
        + f"{logits['same_greedy_answers']} of {logits['probes']} answers are the same."
    )
