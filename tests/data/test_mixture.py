"""Mixed sources: each gets its share of every epoch, and its records come equally often."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_lora.data.mixture import Mixture
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.records import load_records
from alpaca_lora.data.step_dataset import StepDataset
from alpaca_lora.data.tokens import Examples
from alpaca_lora.errors import ConfigError, DataError

EOS = 9


def examples(count: int) -> Examples:
    rows = [[100 + k, 1, EOS] for k in range(count)]
    return Examples.from_lists(rows, [1] * count)


def mixed(sizes, shares, records=None):
    ends = np.cumsum(sizes)
    places = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    names = [f"{number}.json" for number in range(len(sizes))]
    return Mixture(names, places, shares, records or int(ends[-1]))


@settings(deadline=None, max_examples=60)
@given(
    sources=st.lists(st.tuples(st.integers(1, 30), st.floats(0.05, 20)), min_size=1, max_size=5),
    batch=st.integers(1, 8),
    seed=st.integers(0, 3),
)
def test_every_epoch_has_each_share_within_one_record(sources, batch, seed):
    sizes, shares = zip(*sources, strict=True)
    batch = min(batch, sum(sizes))
    mixture = mixed(sizes, shares)
    planner = Planner(examples(sum(sizes)), "tree", 64, mixture=mixture)
    seen = Counter()
    for epoch in range(4):
        taken = planner.step_records(batch, seed, epoch).ravel()
        whole = sum(sizes) // batch * batch
        assert len(taken) == whole
        for places, share in zip(mixture.places, shares, strict=True):
            assert abs(np.isin(taken, places).sum() - whole * share / sum(shares)) < 1
            inside = Counter(taken[np.isin(taken, places)].tolist())
            if inside:  # none comes twice while another of its source waits
                counts = [inside[place] for place in places.tolist()]
                assert max(counts) - min(counts) <= 1
        seen.update(taken.tolist())
    for places in mixture.places:
        counts = [seen[place] for place in places.tolist()]
        assert max(counts) - min(counts) <= 1


def test_an_epoch_is_the_same_whatever_was_drawn_before():
    straight, jumping = mixed([7, 20], [1, 1]), mixed([7, 20], [1, 1])
    expected = [straight.draw(24, 42, epoch).tolist() for epoch in range(6)]
    assert [jumping.draw(24, 42, epoch).tolist() for epoch in (5, 2, 3, 0, 5)] == [expected[e] for e in (5, 2, 3, 0, 5)]
    assert expected[0] != expected[1] and straight.draw(24, 43, 0).tolist() != expected[0]


def test_counts_are_an_epoch(tmp_path):
    names = {"a.jsonl": 10, "b.jsonl": 30}
    for name, count in names.items():
        rows = [json.dumps({"instruction": f"{name} {n}", "output": "x"}) for n in range(count)]
        (tmp_path / name).write_text("\n".join(rows))
    a, b = (str(tmp_path / name) for name in names)

    def planned(*asked, batch=5):
        records = load_records(list(asked))
        found = examples(len(records))
        mixture = Mixture.of(records, found)
        return StepDataset(Planner(found, "tree", 64, mixture=mixture), batch, 0, 1), mixture

    steps, mixture = planned({"path": a, "count": 20}, {"path": b, "count": 5})
    assert steps.steps_per_epoch == 5 and mixture.counts(25) == [20, 5]
    steps, mixture = planned({"path": a, "count": 20}, b)  # all of b
    assert steps.steps_per_epoch == 10 and mixture.counts(50) == [20, 30]
    steps, mixture = planned({"path": a, "weight": 3}, {"path": b, "weight": 1})
    assert steps.steps_per_epoch == 8 and mixture.counts(40) == [30, 10]
    assert mixture.describe() == {a: "30 records an epoch, of 10", b: "10 records an epoch, of 30"}
    steps, mixture = planned({"path": str(tmp_path / "*.jsonl"), "count": 8}, "seeds")  # a pattern is one source
    assert mixture.counts(183) == [8, 175]
    assert planned(a, b)[1] is None
    with pytest.raises(ConfigError, match=r"b.jsonl: there is no weight, and other sources have one"):
        planned({"path": a, "weight": 3}, b)


def test_a_source_of_which_nothing_is_left_is_an_error(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"instruction": name, "output": "x"}))
    asked = [{"path": str(tmp_path / f"{name}.jsonl"), "weight": 1} for name in "ab"]
    records = load_records(asked)
    with pytest.raises(DataError, match=r"b.jsonl: no record of it is left to train on"):
        Mixture.of(records, examples(1))
