"""lm-eval's results as scores with intervals: a row for each task that was asked for, and for a group its average.

Interval of a share of documents (each counts 0 or 1): Wilson's, which holds at few documents and near 0 and 1 (Brown,
Cai and DasGupta 2001, Statistical Science 16, 101-133). Of anything else, group averages included: 1.96 of lm-eval's
standard errors to either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isclose
from statistics import fmean
from typing import Any

from ...errors import DataError
from ...runs.benchmarks import Score, TaskScores
from ..statistics.intervals import score_interval

_Z = 1.959964


def scores_of(results: Mapping[str, Any], template: str, dtype: str) -> tuple[TaskScores, ...]:
    """The scores.

    Args:
        results: What lm-eval's `simple_evaluate` gave, samples included.
        template: Name of the template that questions were put in; "" for bare text.
        dtype: In which the model was computed.

    Raises:
        DataError: there are none.
    """
    below = results.get("group_subtasks", {})
    inner = {name for group in results.get("groups", {}) for name in _within(group, below)}
    found = tuple(
        TaskScores(
            task=name,
            version=str(results["versions"].get(name, "")),
            num_fewshot=results["n-shot"].get(name),
            documents=sum(counts[leaf]["effective"] for leaf in leaves),
            of=sum(counts[leaf]["original"] for leaf in leaves),
            template=template,
            dtype=dtype,
            lm_eval=str(results["lm_eval_version"]),
            scores=scores,
        )
        for name, entry in results["results"].items()
        if name not in inner and (scores := tuple(_scores(entry, results.get("samples", {}).get(name, ()))))
        for counts in [results["n-samples"]]
        for leaves in [[leaf for leaf in (name, *_within(name, below)) if leaf in counts]]
    )
    if not found:
        raise DataError("benchmark: lm-eval gave no scores. Does the task have a metric?")
    return found


def _within(group: str, below: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """All tasks and groups inside a group."""
    for name in below.get(group, ()):
        yield name
        yield from _within(name, below)


def _scores(entry: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Iterator[Score]:
    """The figures of one task: lm-eval keys them `metric,filter`, and their errors `metric_stderr,filter`."""
    for key, value in entry.items():
        measure, comma, filtered = key.partition(",")
        if not comma or measure.endswith("_stderr") or not isinstance(value, int | float):
            continue
        each = [one.get(measure) for one in samples if one["filter"] == filtered]
        ends = _interval(float(value), entry.get(f"{measure}_stderr,{filtered}"), each)
        yield Score(measure if filtered == "none" else f"{measure} ({filtered})", float(value), *ends)


def _interval(value: float, error: Any, each: Sequence[Any]) -> tuple[float, ...]:
    if each and all(one in (0, 1) for one in each) and isclose(fmean(each), value, abs_tol=1e-9):
        right = round(sum(each))
        return tuple(score_interval(right, len(each) - right))
    return (value - _Z * error, value + _Z * error) if isinstance(error, int | float) else ()
