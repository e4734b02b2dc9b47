"""Contamination: whether the data that a model was trained on holds instructions that it is then judged by.

The outputs file of `alpaca-lora answer` names the training data of the adapter that answered, with a fingerprint and
the seal of the user who trained on it (runs/identity.py). With one's own seal the data is read again, if it has
not moved; what a file from elsewhere names is not opened, be it a file, a pipe or a hub id. It is compared with the
evaluation instructions by the rules of `alpaca-lora lint --against` (data/lint/overlap.py): 13 words in a row, 70% of a
text's 8-word sequences, or a ROUGE-L of 0.7. 1,000 records against 252 instructions take about a second. What the base
model was trained on is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..data.lint.overlap import EvaluationSet
from ..data.record import as_record
from ..data.records import load_records
from ..errors import AlpacaLoraError, counted
from ..runs.identity import seal_of
from .comparison import Comparison
from .pairs import Pair

_SHOWN = 200  # characters of a name


class Overlap(NamedTuple):
    """A training record that shares text with an evaluation instruction; `found` says what, and names the item."""

    record: int
    field: str
    found: str


@dataclass(frozen=True)
class Contamination:
    """What was found out about one model.

    Attributes:
        model: Its name.
        source: Its training data, as the run named it; "" if the answers do not tell.
        records: Records compared; 0 if nothing could be checked.
        overlaps: Those that share text with an evaluation instruction. Items are numbered from 1, in the order of the
            comparison's pairs.
        unchecked: Why nothing could be checked; "" otherwise.
    """

    model: str
    source: str
    records: int = 0
    overlaps: list[Overlap] = field(default_factory=list)
    unchecked: str = ""

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        if not self.source:
            return f"{self.model}: not checked; its answers do not say what it was trained on"
        if self.unchecked:
            return f"{self.model}: {self.source} could not be checked: {self.unchecked}"
        count, total = len(self.overlaps), f"{counted(self.records, 'record')} of {self.source}"
        if not count:
            return f"{self.model}: none of the {total} shares text with the evaluation instructions"
        return (
            f"{self.model}: {count:,} of the {total} share{'s' if count == 1 else ''} text with the evaluation "
            "instructions, so its win rate may be too high"
        )


def contamination_of(comparison: Comparison) -> list[Contamination]:
    """The check for both models of a comparison."""
    found = []
    for side, model in (("a", comparison.a), ("b", comparison.b)):
        training = comparison.sources[side].get("settings", {}).get("training_data")
        found.append(check_contamination(model, training, comparison.pairs))
    return found


def check_contamination(model: str, training: Mapping[str, Any] | None, pairs: Sequence[Pair]) -> Contamination:
    """Compares a model's training data with evaluation instructions.

    Args:
        model: Its name.
        training: `data` of the adapter's alpaca_lora.json: `source`, `fingerprint`, `seal`, `sources` if there were
            several, `columns` if the records were read with other keys, `objective` if they are preferences. None if
            it is unknown.
        pairs: What the model is judged by.
    """
    source = training.get("source") if isinstance(training, Mapping) else ""
    if not isinstance(training, Mapping) or not isinstance(source, str) or not source:
        return Contamination(model, "")
    if not training.get("seal") or training["seal"] != seal_of(training):
        return Contamination(
            model,
            source[:_SHOWN],
            unchecked="nothing shows that you trained on it on this machine, so it is not opened. If you have it, "
            "look for yourself: alpaca-lora lint DATA --against ANSWERS.json",
        )
    try:
        objective: Literal["sft", "dpo"] = "sft" if training.get("objective") in (None, "sft") else "dpo"
        sources = training.get("sources") or source
        records = load_records(sources, columns=training.get("columns"), objective=objective)
        if records.fingerprint != training.get("fingerprint"):
            return Contamination(
                model,
                source,
                unchecked=f"its content is no longer what the model was trained on (fingerprint "
                f"{records.fingerprint[:12]}, then {str(training.get('fingerprint'))[:12]})",
            )
        evaluation = EvaluationSet([{"instruction": pair.instruction, "input": pair.input} for pair in pairs])
    except AlpacaLoraError as problem:
        return Contamination(model, source, unchecked=str(problem))
    overlaps = [
        Overlap(number, found.field, found.excerpt)
        for number, record in zip(records.numbers, records.records, strict=True)
        for found in evaluation.check(as_record(record))
    ]
    return Contamination(model, source, len(records), overlaps)
