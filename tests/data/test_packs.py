"""Packs: whatever the layout, every supervised token is predicted from exactly its own example's prefix."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alpaca_lora.data.packs import Layout, Pack, build_pack, by_prefix, filled_size, shared_prefixes
from alpaca_lora.data.tokens import Examples

LAYOUTS: tuple[Layout, ...] = ("padded", "packed", "tree")
EOS = 9

# Prompts over three ids, so that prefixes collide, prompts start other prompts, and whole records repeat.
PROMPTS = st.lists(st.integers(1, 3), min_size=1, max_size=5)
RESPONSES = st.lists(st.integers(1, 3), max_size=3)
RECORDS = st.lists(st.tuples(PROMPTS, RESPONSES), min_size=1, max_size=8)
quick = settings(deadline=None, max_examples=100)


def examples_of(records: list[tuple[list[int], list[int]]], train_on_inputs: bool = False) -> Examples:
    rows = [[*prompt, *response, EOS] for prompt, response in records]
    return Examples.from_lists(rows, [len(prompt) for prompt, _ in records], train_on_inputs=train_on_inputs)


@st.composite
def conversations(draw: st.DrawFn) -> Examples:
    """Records of several sequences: a turn begins with what came before, or rewrites its last token."""
    rows: list[list[int]] = []
    prompt_lens: list[int] = []
    numbers: list[int] = []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        before: list[int] = []
        for _ in range(draw(st.integers(1, 3))):
            if before and draw(st.booleans()):
                before = before[:-1]  # such as a template that strips what it showed before
            prompt = before + draw(PROMPTS)
            before = [*prompt, *draw(RESPONSES), EOS]
            rows.append(before)
            prompt_lens.append(len(prompt))
            numbers.append(number)
    trained = draw(st.booleans())
    return Examples.from_lists(rows, prompt_lens, record_numbers=np.asarray(numbers), train_on_inputs=trained)


def predictions(examples: Examples, members: list[int]) -> list[tuple[list[int], int]]:
    """What a pack has to learn, said without packs: (everything before a supervised token, that token), sorted."""
    found = []
    for member in members:
        ids = examples[member].ids.tolist()
        found += [(ids[:at], ids[at]) for at in range(int(examples.supervised_from[member]), len(ids))]
    return sorted(found)


def seen(pack: Pack) -> list[tuple[list[int], int]]:
    """What a pack teaches, sorted: (tokens visible where a target is predicted, the target); checks positions."""
    rows, width = pack.input_ids.shape
    found: list[tuple[list[int], int]] = []
    weights = [1] * len(pack.targets) if pack.weights is None else pack.weights.astype(int).tolist()
    for at, target, weight in zip(pack.predict_at.tolist(), pack.targets.tolist(), weights, strict=True):
        row, column = divmod(at, width)
        if pack.subtree_end is not None:
            visible = [j for j in range(column + 1) if column < pack.subtree_end[row, j]]
        else:
            assert pack.attention_mask is not None
            assert pack.attention_mask[row, column] == 1
            visible = [j for j in range(column + 1) if pack.attention_mask[row, j]]
        assert pack.position_ids[row, visible].tolist() == list(range(len(visible)))
        found += [(pack.input_ids[row, visible].tolist(), target)] * weight
    assert rows == 1 or pack.subtree_end is None
    return sorted(found)


def in_order(examples: Examples) -> list[int]:
    return by_prefix(examples, np.arange(len(examples))).tolist()


def trie_size(examples: Examples) -> int:
    """Tokens of the prefix tree, counted as a set of prefixes instead of being laid out."""
    rows = [examples[k].ids.tolist() for k in range(len(examples))]
    return len({tuple(ids[: end + 1]) for ids in rows for end in range(len(ids) - 1)})


def test_the_tree_by_hand():
    """
    index         0 1 2 3 4 5 6
    tokens        1 2 3 7 . . .      first: 1 2 3 | 7 $
                      . . 4 8 9      second: 1 2 4 | 8 9 $
    """
    two = Examples.from_lists([[1, 2, 3, 7, 0], [1, 2, 4, 8, 9, 0]], prompt_lens=[3, 3])
    pack = build_pack(two, [0, 1], "tree")
    assert pack.input_ids.tolist() == [[1, 2, 3, 7, 4, 8, 9]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 4]]
    assert pack.subtree_end is not None
    assert pack.subtree_end.tolist() == [[7, 7, 4, 4, 7, 7, 7]]
    assert pack.predict_at.tolist() == [2, 3, 4, 5, 6]
    assert pack.targets.tolist() == [7, 0, 8, 9, 0]
    assert pack.attention_mask is None
    assert {array.dtype for array in pack if array is not None} == {np.dtype(np.int64)}


def test_the_other_layouts_by_hand():
    two = Examples.from_lists([[1, 2, 3, 7, 0], [1, 2, 4, 8, 9, 0]], prompt_lens=[3, 3])
    packed = build_pack(two, [0, 1], "packed")
    assert packed.input_ids.tolist() == [[1, 2, 3, 7, 1, 2, 4, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert packed.subtree_end is not None
    assert packed.subtree_end.tolist() == [[4, 4, 4, 4, 9, 9, 9, 9, 9]]
    assert packed.predict_at.tolist() == [2, 3, 6, 7, 8]

    padded = build_pack(two, [0, 1], "padded")
    assert padded.input_ids.tolist() == [[1, 2, 3, 7, 0], [1, 2, 4, 8, 9]]
    assert padded.position_ids.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert padded.attention_mask is not None
    assert padded.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert padded.subtree_end is None
    assert padded.predict_at.tolist() == [2, 3, 7, 8, 9]
    assert packed.targets.tolist() == padded.targets.tolist() == [7, 0, 8, 9, 0]


def test_a_branch_may_close_several_levels_at_once():
    """
    1 - 2 - 3 - 4   (prompts 1 2 3 4 x, 1 2 3 5 x, 1 6 x, 7 x; x stands for the last prompt token)
          |   ` 5
          ` 6           7
    """
    rows = [[1, 2, 3, 4, 8, EOS], [1, 2, 3, 5, 8, EOS], [1, 6, 8, EOS], [7, 8, EOS]]
    examples = Examples.from_lists(rows, prompt_lens=[5, 5, 3, 2])
    assert shared_prefixes(examples, [0, 1, 2, 3]).tolist() == [0, 3, 1, 0]
    assert in_order(examples) == [0, 1, 2, 3]
    pack = build_pack(examples, [0, 1, 2, 3], "tree")
    assert pack.input_ids.tolist() == [[1, 2, 3, 4, 8, 5, 8, 6, 8, 7, 8]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 1, 2, 0, 1]]
    assert pack.subtree_end is not None
    assert pack.subtree_end.tolist() == [[9, 7, 7, 5, 5, 7, 7, 9, 9, 11, 11]]
    assert pack.predict_at.tolist() == [4, 6, 8, 10]


@quick
@given(records=RECORDS, train_on_inputs=st.booleans())
@example(records=[([1], [])] * 3, train_on_inputs=False)  # prompts of one token, no response but EOS
@example(records=[([1, 2], [3]), ([1, 2], [3]), ([1, 2, 3], []), ([1], [2, 3])], train_on_inputs=False)
@example(records=[([1, 1], [1]), ([1, 1, 1], [1]), ([1], [1, 1])], train_on_inputs=True)
def test_every_layout_teaches_the_same(records, train_on_inputs):
    examples = examples_of(records, train_on_inputs)
    members = in_order(examples)
    expected = predictions(examples, members)
    assert len(expected) == examples.supervised.sum()
    for layout in LAYOUTS:
        assert seen(build_pack(examples, members, layout)) == expected


@quick
@given(records=RECORDS, train_on_inputs=st.booleans())
def test_the_tree_is_the_prefix_trie(records, train_on_inputs):
    examples = examples_of(records, train_on_inputs)
    members = in_order(examples)
    assert build_pack(examples, members, "tree").input_ids.size == trie_size(examples)
    assert build_pack(examples, members, "packed").input_ids.size == (examples.lengths - 1).sum()
    shape = (len(examples), examples.lengths.max() - 1)
    assert build_pack(examples, members, "padded").input_ids.shape == shape


@quick
@given(records=RECORDS, data=st.data())
def test_any_order_is_exact(records, data):
    """Another order shares less, but never what differs."""
    examples = examples_of(records)
    members = data.draw(st.permutations(range(len(examples))))
    pack = build_pack(examples, members, "tree")
    assert seen(pack) == predictions(examples, list(members))
    assert pack.input_ids.size >= trie_size(examples)


@quick
@given(records=RECORDS)
def test_any_common_prefix_is_shared(records):
    examples = examples_of(records)
    members = in_order(examples)
    shared = shared_prefixes(examples, members)
    assert shared[0] == 0
    for k in range(1, len(members)):
        before, this = members[k - 1], members[k]
        most = min(examples.lengths[before], examples.lengths[this]) - 1
        equal = (examples[before].ids[:most] == examples[this].ids[:most]).tolist()
        assert shared[k] == (equal.index(False) if False in equal else most)


@quick
@given(examples=conversations(), layout=st.sampled_from(LAYOUTS), data=st.data())
def test_conversations_are_taught_as_their_sequences_alone(examples, layout, data):
    members = data.draw(st.permutations(range(len(examples))) | st.just(in_order(examples)))
    assert seen(build_pack(examples, members, layout)) == predictions(examples, members)


@quick
@given(examples=conversations())
def test_conversations_are_stored_once(examples):
    """However they are stored, they are read as they were given; a sequence that begins the next takes no room."""
    assert examples.record_starts[-1] == len(examples)
    assert examples.records == len(set(examples.record_numbers.tolist()))
    for a, b in itertools.pairwise(range(len(examples))):
        first, second = examples[a].ids.tolist(), examples[b].ids.tolist()
        begins = first == second[: len(first)] and examples.record_numbers[a] == examples.record_numbers[b]
        assert (examples.starts[a] == examples.starts[b]) == begins


def test_a_conversation_costs_its_own_length():
    """
    tokens   1 2 3 9 4 5 9 6 7 .       prompts 1 2 and 1 2 3 9 4 and 1 2 3 9 4 5 9 6
               ^3 9  ^5 9  ^7 9        each answered with a token and EOS
    """
    rows = [[1, 2, 3, 9], [1, 2, 3, 9, 4, 5, 9], [1, 2, 3, 9, 4, 5, 9, 6, 7, 9]]
    examples = Examples.from_lists(rows, [2, 5, 8], record_numbers=np.asarray([1, 1, 1]))
    assert examples.ids.tolist() == rows[2]
    pack = build_pack(examples, [0, 1, 2], "tree")
    assert pack.input_ids.tolist() == [rows[2][:-1]]
    assert pack.subtree_end is not None
    assert pack.subtree_end.tolist() == [[9] * 9]
    assert pack.predict_at.tolist() == [1, 2, 4, 5, 7, 8]
    assert pack.targets.tolist() == [3, 9, 5, 9, 7, 9]
    assert pack.weights is None


def test_two_answers_to_one_prompt():
    two = Examples.from_lists([[1, 2, 3, 7, EOS], [1, 2, 3, 8, EOS]], prompt_lens=[3, 3])
    pack = build_pack(two, [0, 1], "tree")
    assert pack.input_ids.tolist() == [[1, 2, 3, 7, 8]]
    assert pack.predict_at.tolist() == [2, 3, 2, 4]
    assert pack.targets.tolist() == [7, EOS, 8, EOS]
    assert pack.weights is None


@quick
@given(records=RECORDS, layout=st.sampled_from(LAYOUTS), multiple=st.integers(1, 16))
def test_filling_a_row_up_changes_nothing(records, layout, multiple):
    """Tokens that fill a row see themselves only, and nobody sees them."""
    examples = examples_of(records)
    members = in_order(examples)
    plain, filled = build_pack(examples, members, layout), build_pack(examples, members, layout, multiple)
    assert seen(filled) == seen(plain)
    if plain.subtree_end is None:
        assert filled.input_ids.tolist() == plain.input_ids.tolist()
        return
    size = plain.input_ids.size
    grown = filled.input_ids.size
    assert grown == filled_size(size, multiple)
    assert (grown % multiple == 0 and grown < size + multiple) or grown == 2 * multiple > size
    assert filled.subtree_end is not None
    assert filled.subtree_end[:, :size].tolist() == plain.subtree_end.tolist()
    assert filled.subtree_end[0, size:].tolist() == list(range(size + 1, filled.input_ids.size + 1))
    assert all(array is None or array.dtype == np.int64 for array in filled._replace(weights=None))


def test_supervised_prompts_are_shared_and_count_twice():
    examples = examples_of([([1, 2, 3], [4]), ([1, 2, 3], [5])], train_on_inputs=True)
    pack = build_pack(examples, [0, 1], "tree")
    assert pack.input_ids.tolist() == [[1, 2, 3, 4, 5]]
    assert pack.predict_at.tolist() == [0, 1, 2, 2, 3, 4]
    assert pack.targets.tolist() == [2, 3, 4, 5, EOS, EOS]
    assert pack.weights is not None
    assert pack.weights.tolist() == [2, 2, 1, 1, 1, 1]
    assert pack.weights.dtype == np.float32


def test_members_are_sorted_by_id():
    """The last token, which is not fed, plays no part; ids above 255 sort as numbers, not as little-endian bytes."""
    prompts = [[256, 1], [2, 5], [2, 5], [1, 7, 1], [1, 1], [70_000, 1], [3]]
    ends = [EOS, 8, 7, EOS, EOS, EOS, EOS]
    rows = [[*prompt, end] for prompt, end in zip(prompts, ends, strict=True)]
    examples = Examples.from_lists(rows, [len(prompt) for prompt in prompts])
    assert in_order(examples) == [4, 3, 1, 2, 6, 0, 5]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_example_is_a_plain_causal_row(layout):
    examples = examples_of([([1, 2, 3], [2, 1])])
    pack = build_pack(examples, np.array([0]), layout)
    assert pack.input_ids.tolist() == [[1, 2, 3, 2, 1]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 4]]
    assert pack.predict_at.tolist() == [2, 3, 4]
    assert pack.targets.tolist() == [2, 1, EOS]
    if layout != "padded":
        assert pack.subtree_end is not None
        assert pack.subtree_end.tolist() == [[5] * 5]
