"""What a history decides: the best evaluation, and when training has gained nothing for too long."""

from __future__ import annotations

import pytest

from alpaca_lora.runs.evaluations import Evaluation, best_of, last_gain, why_stopped


def history(losses, first_rate=0.1):
    """A step and an evaluation each; the first evaluation is before the first step."""
    lines = [{"step": 0, "eval_loss": losses[0]}]
    for step, loss in enumerate(losses[1:], 1):
        lines += [{"step": step, "loss": 9.0, "learning_rate": 0.1 if step > 1 else first_rate}]
        lines += [{"step": step, "eval_loss": loss}]
    return lines


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([9, 3, 1, 2], (2, 1)),
        ([9, 2, 1, 1], (2, 1)),  # the earliest of equal ones
        ([1, 5, 4, 6], (2, 4)),  # never the one before training
        ([9], None),
    ],
)
def test_the_best(losses, best):
    assert best_of(history(losses)) == best


def test_an_evaluation_of_steps_that_changed_nothing_is_not_the_best():
    assert best_of(history([1, 1, 5, 4], first_rate=0.0)) == (3, 4)
    overflowed = history([1, 1, 5, 4])
    overflowed[1]["skipped"] = 1
    assert best_of(overflowed) == (3, 4)
    assert best_of(history([1, 1], first_rate=0.0)) is None


@pytest.mark.parametrize(
    ("losses", "patience", "threshold", "gain"),
    [
        ([9, 8, 7, 6], 1, 0, None),
        ([9, 8, 8], 1, 0, (1, 8)),
        ([9, 8, 8.5, 7, 7.5], 2, 0, None),
        ([9, 8, 8.5, 9], 2, 0, (1, 8)),
        ([1, 2, 3], 2, 0, (0, 1)),  # nothing was gained at all
        ([9, 8.9, 8.8, 8.7], 4, 0.5, None),  # one more and it ends
        ([9, 8.9, 8.8, 8.7], 3, 0.5, (0, 9)),
        ([9, 8.7, 8.4, 8.1, 7.8], 3, 0.5, None),  # slow gains add up
        ([9, 8, 8, 7], 1, 0, (1, 8)),  # what came after the end does not undo it
        ([9, 9, 9, 9], None, 0, None),
    ],
)
def test_when_it_is_over(losses, patience, threshold, gain):
    assert last_gain(history(losses), patience, threshold) == gain


def test_why_in_words():
    lines = history([9, 2, 3, 4, 5])
    said = "stopped early after step 4 of 100: no evaluation of the last 3 was better than step 1's"
    assert why_stopped(lines, 3, 0, 100) == said
    assert why_stopped(lines, 3, 0.01, 100) == f"{said} by 0.01"
    assert why_stopped(lines, 1, 0, 100).endswith(": the last evaluation was not better than step 1's")
    assert why_stopped(lines, 3, 0, 4) == ""  # it took all of its steps
    assert why_stopped(lines, 4, 0, 100) == why_stopped(lines, None, 0, 100) == ""
    assert last_gain(lines, 3, 0) == Evaluation(1, 2)
