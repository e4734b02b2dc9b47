"""The evaluations in a history: which is the best, and whether training has gained by them of late.

In: lines of history.jsonl. Out: decisions that depend on nothing else, so that a run that was killed and goes on
decides as one that was not.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Evaluation(NamedTuple):
    """Validation loss after an optimizer step; step 0 is before the first."""

    step: int
    loss: float


def evaluations_of(history: list[dict[str, Any]]) -> list[Evaluation]:
    """All of them, in order."""
    return [Evaluation(line["step"], line["eval_loss"]) for line in history if "eval_loss" in line]


def best_of(history: list[dict[str, Any]]) -> Evaluation | None:
    """The one with the lowest loss, of equal ones the earliest; None where there is none.

    Those of the untrained model are left out: before the first step, and after steps that changed nothing (of a warm-up
    that begins at learning rate 0, or left out in float16).
    """
    changing = [line["step"] for line in history if line.get("learning_rate", 0) > 0 and "skipped" not in line]
    trained = [found for found in evaluations_of(history) if changing and found.step >= min(changing)]
    return min(trained, key=lambda found: found.loss, default=None)


def last_gain(history: list[dict[str, Any]], patience: int | None, threshold: float) -> Evaluation | None:
    """Where a run is to stop early, the evaluation that none has been better than since; None where it goes on.

    Each evaluation is compared with the last one that was a gain, the first with none before it: it is one itself if
    its loss is lower by more than `threshold`. So slow gains add up.

    Args:
        history: The lines.
        patience: Evaluations in a row without a gain that end the run; None ends none.
        threshold: The least gain, in nats per token.

    Example:
        >>> losses = [3.0, 2.0, 1.995, 1.994, 1.993]
        >>> lines = [{"step": 10 * k, "eval_loss": loss} for k, loss in enumerate(losses)]
        >>> last_gain(lines, 3, 0.01), last_gain(lines, 3, 0.0)
        (Evaluation(step=10, loss=2.0), None)
    """
    gain, waited = None, 0
    for found in evaluations_of(history):
        if gain is None or found.loss < gain.loss - threshold:
            gain, waited = found, 0
        else:
            waited += 1
        if waited == patience:
            return gain
    return None


def why_stopped(history: list[dict[str, Any]], patience: int | None, threshold: float, planned_steps: int) -> str:
    """Why a run ended before its last step, as a sentence without a full stop; "" where it did not.

    Args:
        history: The lines of the whole run.
        patience, threshold: As for `last_gain`.
        planned_steps: Steps it was to take.
    """
    gain, done = last_gain(history, patience, threshold), max((line["step"] for line in history), default=0)
    if gain is None or done >= planned_steps:
        return ""
    none = "the last evaluation was not" if patience == 1 else f"no evaluation of the last {patience} was"
    least = f" by {threshold:g}" if threshold else ""
    return f"stopped early after step {done:,} of {planned_steps:,}: {none} better than step {gain.step:,}'s{least}"
