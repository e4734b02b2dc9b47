"""Step plans: exactly the asked examples, in exactly the asked packs, whatever the layout."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alpaca_lora.data.packs import Layout, build_pack
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.step_dataset import PackDataset, StepDataset, collate
from alpaca_lora.data.tokens import Examples
from alpaca_lora.errors import ConfigError

LAYOUTS: tuple[Layout, ...] = ("padded", "packed", "tree")
EOS = 9
PROMPTS = st.lists(st.integers(1, 3), min_size=1, max_size=6)
RESPONSES = st.lists(st.integers(1, 3), max_size=12)
RECORDS = st.lists(st.tuples(PROMPTS, RESPONSES), min_size=1, max_size=16)
quick = settings(deadline=None, max_examples=70)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def examples_of(records: list[tuple[list[int], list[int]]]) -> Examples:
    rows = [[*prompt, *response, EOS] for prompt, response in records]
    return Examples.from_lists(rows, [len(prompt) for prompt, _ in records])


def sized(*sizes: int) -> Examples:
    """Examples that take `sizes` tokens and share nothing: each prompt is one token, another one each."""
    rows = [[100 + k, *[1] * (size - 1), EOS] for k, size in enumerate(sizes)]
    return Examples.from_lists(rows, [1] * len(sizes))


@st.composite
def conversations(draw: st.DrawFn) -> Examples:
    """Records of several sequences, each of which begins the next."""
    rows: list[list[int]] = []
    prompt_lens: list[int] = []
    numbers: list[int] = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        row: list[int] = []
        for _ in range(draw(st.integers(1, 3))):
            prompt = row + draw(PROMPTS)
            row = [*prompt, *draw(RESPONSES), EOS]
            rows.append(row)
            prompt_lens.append(len(prompt))
            numbers.append(number)
    return Examples.from_lists(rows, prompt_lens, record_numbers=np.asarray(numbers))


def like_alpaca(count: int, seed: int = 0) -> Examples:
    """Two preambles, then an instruction and a response; lengths as in the real data (mean about 130)."""
    rng = np.random.default_rng(seed)
    preambles = [list(range(10, 38)), list(range(10, 20)) + list(range(40, 68))]
    rows, prompt_lens = [], []
    for _ in range(count):
        prompt = preambles[rng.integers(2)] + rng.integers(100, 5_000, rng.integers(10, 40)).tolist()
        response = rng.integers(100, 5_000, min(int(rng.lognormal(3.8, 1.0)) + 1, 440)).tolist()
        rows.append([*prompt, *response, EOS])
        prompt_lens.append(len(prompt))
    return Examples.from_lists(rows, prompt_lens)


def costs(planner: Planner, packs: list[np.ndarray]) -> list[int]:
    """Tokens of packs, measured on the arrays the model gets."""
    return [build_pack(planner.examples, pack, planner.layout, planner.multiple).input_ids.size for pack in packs]


# Which examples


def test_an_epoch_is_a_permutation_without_its_remainder():
    planner = Planner(sized(*[3] * 23), "tree", 100)
    records = planner.step_records(batch_size=5, seed=1, epoch=0)
    assert records.shape == (4, 5)
    assert len(set(records.flatten().tolist())) == 20
    assert records.tolist() == planner.step_records(5, 1, 0).tolist()
    assert records.tolist() != planner.step_records(5, 1, 1).tolist()
    assert records.tolist() != planner.step_records(5, 2, 0).tolist()
    left = [set(range(23)) - set(planner.step_records(5, 1, epoch).flatten().tolist()) for epoch in range(60)]
    assert set().union(*left) == set(range(23))  # the remainder is another one each epoch: nobody always waits


def test_the_permutation_is_pinned():
    """The same examples in every release, on every platform: a run can be repeated years later."""
    assert Planner(sized(*[2] * 8), "tree", 9).step_records(4, 42, 0).tolist() == [[3, 4, 2, 7], [6, 1, 5, 0]]


@each_layout
def test_layouts_hold_the_same_examples_a_step(layout):
    examples = like_alpaca(70)
    plain = Planner(examples, "padded", 512).step_members(16, 3, 1)
    planner = Planner(examples, layout, 512)
    steps = StepDataset(planner, 16, seed=3, epochs=2)
    steps.set_epoch(1)
    for members, plan in zip(plain, steps.plans, strict=True):
        assert sorted(np.concatenate(plan.packs).tolist()) == sorted(members.tolist())
        assert plan.supervised_tokens == examples.supervised[members].sum()
        assert plan.computed_tokens == sum(costs(planner, plan.packs))


# How they are split


@quick
@given(records=RECORDS, layout=st.sampled_from(LAYOUTS), max_tokens=st.integers(1, 60), ranks=st.integers(1, 3))
def test_packs_are_the_asked_number_and_fit(records, layout, max_tokens, ranks):
    planner = Planner(examples_of(records), layout, max_tokens, ranks)
    members = np.arange(len(records))
    needed = planner.packs_needed(members)
    assert needed % ranks == 0
    for packs in range(needed, len(records) + 1):
        plan = planner.plan(members, packs)
        assert len(plan.packs) == packs
        assert all(len(pack) for pack in plan.packs)
        assert sorted(np.concatenate(plan.packs).tolist()) == members.tolist()
        assert plan.computed_tokens == sum(costs(planner, plan.packs))
        for cost, pack in zip(costs(planner, plan.packs), plan.packs, strict=True):
            assert cost <= max_tokens or len(pack) == 1


@quick
@given(records=RECORDS, layout=st.sampled_from(LAYOUTS), max_tokens=st.integers(8, 60))
def test_filled_packs_are_counted_and_fit(records, layout, max_tokens):
    planner = Planner(examples_of(records), layout, max_tokens, multiple=8)
    members = np.arange(len(records))
    plan = planner.plan(members, planner.packs_needed(members))
    found = costs(planner, plan.packs)
    assert plan.computed_tokens == sum(found)
    assert layout == "padded" or all(cost % 8 == 0 for cost in found)
    most = max(max_tokens, 2 * 8)  # filled up to two multiples at least
    assert all(cost <= most or len(pack) == 1 for cost, pack in zip(found, plan.packs, strict=True))


@quick
@given(records=st.lists(st.tuples(PROMPTS, RESPONSES), min_size=1, max_size=7), layout=st.sampled_from(LAYOUTS))
def test_the_costliest_pack_is_as_cheap_as_can_be(records, layout):
    """Against every way to cut the layout's order into runs."""
    planner = Planner(examples_of(records), layout, 1_000)
    count = len(records)
    order = planner.plan(np.arange(count), 1).packs[0]
    for packs in range(1, count + 1):
        cuts = [[0, *inner, count] for inner in combinations(range(1, count), packs - 1)]
        best = min(max(costs(planner, [order[a:b] for a, b in pairwise(cut)])) for cut in cuts)
        assert max(costs(planner, planner.plan(np.arange(count), packs).packs)) == best


@quick
@given(records=RECORDS, layout=st.sampled_from(LAYOUTS), max_tokens=st.integers(1, 60))
@example(records=[([1], [1])] * 9, layout="packed", max_tokens=5)
def test_no_fewer_packs_would_do(records, layout, max_tokens):
    """`packs_needed` is the least number of runs of the layout's order that fit."""
    planner = Planner(examples_of(records), layout, max_tokens)
    members = np.arange(len(records))
    needed = planner.packs_needed(members)
    if needed > 1:
        packs = planner.plan(members, needed - 1).packs
        assert any(cost > max_tokens and len(pack) > 1 for cost, pack in zip(costs(planner, packs), packs, strict=True))


@quick
@given(examples=conversations(), layout=st.sampled_from(LAYOUTS), max_tokens=st.integers(1, 80))
def test_a_conversation_stays_together_if_it_fits(examples, layout, max_tokens):
    planner = Planner(examples, layout, max_tokens)
    members = np.arange(len(examples))
    needed = planner.packs_needed(members)
    for packs in range(needed, max(examples.records, needed) + 1):
        plan = planner.plan(members, packs)
        assert len(plan.packs) == packs
        assert sorted(np.concatenate(plan.packs).tolist()) == members.tolist()
        assert plan.computed_tokens == sum(costs(planner, plan.packs))
        for cost, pack in zip(costs(planner, plan.packs), plan.packs, strict=True):
            assert cost <= max_tokens or len(pack) == 1
        for record in range(examples.records) if layout != "padded" else ():
            own = examples.sequences_of(np.asarray([record]))
            alone = build_pack(examples, own, layout).input_ids.size
            places = {k for k, pack in enumerate(plan.packs) if set(own.tolist()) & set(pack.tolist())}
            assert alone > max_tokens or len(places) == 1


def test_a_step_holds_records_not_sequences():
    rows = [[1, 2, EOS], [1, 2, EOS, 3, EOS], [4, 5, EOS], [6, 7, EOS], [6, 7, EOS, 8, EOS]]
    examples = Examples.from_lists(rows, [2, 4, 2, 2, 4], record_numbers=np.asarray([3, 3, 5, 8, 8]))
    assert examples.records == 3
    assert examples.sequences_of(np.asarray([2, 0])).tolist() == [3, 4, 0, 1]
    steps = StepDataset(Planner(examples, "tree", 100), batch_size=2, seed=0, epochs=1)
    assert steps.steps_per_epoch == 1
    (members,) = steps.planner.step_members(2, 0, 0)
    assert len(steps.planner.records(members)) == 2
    assert sorted(np.concatenate(steps.plans[0].packs).tolist()) == sorted(members.tolist())


def test_one_overlong_example_does_not_let_other_packs_grow():
    """A pack may hold more than `max_tokens` only where it holds a single example."""
    planner = Planner(sized(*[5] * 10, 25), "packed", max_tokens=10)
    members = np.arange(11)
    assert planner.packs_needed(members) == 6
    assert sorted(costs(planner, planner.plan(members, 6).packs)) == [10, 10, 10, 10, 10, 25]


def test_splits_by_hand():
    planner = Planner(sized(4, 2, 3, 1, 2), "packed", max_tokens=5)
    assert planner.packs_needed(np.arange(5)) == 3
    assert [pack.tolist() for pack in planner.plan(np.arange(5), 3).packs] == [[0], [1, 2], [3, 4]]
    assert [pack.tolist() for pack in planner.plan(np.arange(5), 4).packs] == [[0], [1], [2], [3, 4]]
    # Padded packs are sorted by length first, so a rectangle wastes little: rows of 1, 2, 2 and of 3, 4.
    planner = Planner(sized(4, 2, 3, 1, 2), "padded", max_tokens=8)
    assert [pack.tolist() for pack in planner.plan(np.arange(5), 2).packs] == [[3, 1, 4], [2, 0]]
    assert planner.plan(np.arange(5), 2).computed_tokens == 3 * 2 + 2 * 4
    # A tree puts shared prompts beside each other: 1 2 _ twice costs 2 + 2 * 2 tokens.
    examples = Examples.from_lists([[1, 2, 5, 6, EOS], [3, 4, 5, 6, EOS], [1, 2, 7, 8, EOS]], [3, 3, 3])
    planner = Planner(examples, "tree", max_tokens=6)
    plan = planner.plan(np.arange(3), 2)
    assert [pack.tolist() for pack in plan.packs] == [[0, 2], [1]]
    assert plan.computed_tokens == 6 + 4


@each_layout
def test_packs_of_real_lengths_are_balanced(layout):
    planner = Planner(like_alpaca(128), layout, 2_048)
    members = np.arange(128)
    packs = planner.packs_needed(members)
    found = costs(planner, planner.plan(members, packs).packs)
    assert packs > 4
    assert max(found) <= 1.25 * np.mean(found)


# The dataset the Trainer walks


@each_layout
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_is_as_many_items_for_every_rank(layout, ranks):
    examples = like_alpaca(50)
    steps = StepDataset(Planner(examples, layout, 400, ranks), batch_size=12, seed=0, epochs=1.5)
    assert steps.steps_per_epoch == 4
    assert steps.packs_per_step % ranks == 0
    assert len(steps) == 4 * steps.packs_per_step
    for epoch in (0, 1):  # both of the 1.5 epochs were planned for
        steps.set_epoch(epoch)
        for step, members in enumerate(steps.planner.step_members(12, 0, epoch)):
            items = [steps[step * steps.packs_per_step + k] for k in range(steps.packs_per_step)]
            targets = sorted(np.concatenate([item.targets for item in items]).tolist())
            assert targets == sorted(
                token for member in members for token in examples[member].ids[examples.prompt_lens[member] :].tolist()
            )
            plan = steps.plan_of(epoch * steps.steps_per_epoch + step)
            assert plan.supervised_tokens == len(targets)
            assert plan.computed_tokens == sum(item.input_ids.size for item in items)
            assert all(item.input_ids.size <= 400 or item.input_ids.shape[0] == 1 for item in items)
            shares = [plan.packs_of(rank, ranks) for rank in range(ranks)]  # item k is of rank k % ranks
            for k, item in enumerate(items):
                part = shares[k % ranks][k // ranks]
                assert item.targets.size == examples.supervised[part].sum()


def test_an_item_is_the_same_however_it_is_reached():
    """Resuming is skipping: nothing depends on what was read before."""
    first, second = (StepDataset(Planner(like_alpaca(40), "tree", 400), 8, seed=5, epochs=3) for _ in range(2))
    first.set_epoch(1)
    first.set_epoch(2)
    _ = first[0]
    second.set_epoch(2)
    for index in range(len(first)):
        for one, other in zip(first[index], second[index], strict=True):
            assert np.array_equal(one, other)


def test_an_evaluation_walks_every_example_once():
    examples = like_alpaca(30)
    packs = PackDataset(Planner(examples, "packed", 500))
    targets = np.concatenate([packs[k].targets for k in range(len(packs))])
    assert len(targets) == examples.supervised.sum()
    assert sum(int((packs[k].targets == EOS).sum()) for k in range(len(packs))) == 30
    assert all(packs[k].input_ids.size <= 500 for k in range(len(packs)))


@each_layout
def test_an_evaluation_divides_over_the_ranks(layout):
    """Else a pack would be walked twice, and its examples counted twice."""
    for count in range(3, 12):
        packs = PackDataset(Planner(sized(*[5] * count), layout, max_tokens=5, ranks=3))
        assert len(packs) == count // 3 * 3
        assert sorted(np.concatenate(packs.plan.packs).tolist()) == list(range(count))


@each_layout
def test_collate_makes_tensors_and_leaves_absent_ones_out(layout):
    steps = StepDataset(Planner(sized(3, 4), layout, 100), 2, seed=0, epochs=1)
    batch = collate([steps[0]])
    absent = {"attention_mask"} if layout != "padded" else {"subtree_end"}
    names = {"input_ids", "position_ids", "subtree_end", "attention_mask", "predict_at", "targets"} - absent
    assert set(batch) == names
    assert {batch[name].dtype for name in names} == {torch.int64}
    assert steps.plan_of(0).supervised_tokens == len(batch["targets"]) == 2 + 3 + 2


def test_counts_that_cannot_work_are_refused():
    examples = sized(*[4] * 6)
    with pytest.raises(ConfigError, match="batch_size: 7 is more than the 6 training examples. Lower batch_size to 6"):
        StepDataset(Planner(examples, "packed", 100), 7, seed=0, epochs=1)
    with pytest.raises(ConfigError, match="batch_size: 2 examples cannot be split over 3 processes"):
        StepDataset(Planner(examples, "packed", 100, ranks=3), 2, seed=0, epochs=1)
    with pytest.raises(ConfigError, match="val_set_size: 6 validation examples are too few for 7 processes"):
        PackDataset(Planner(examples, "packed", 100, ranks=7))
    message = "batch_size: 3 examples need more micro-batches of max_tokens=4 than the 2 that 2 processes can share"
    with pytest.raises(ConfigError, match=message):
        StepDataset(Planner(examples, "packed", 4, ranks=2), 3, seed=0, epochs=1)
    assert StepDataset(Planner(examples, "packed", 8, ranks=2), 3, seed=0, epochs=1).packs_per_step == 2
