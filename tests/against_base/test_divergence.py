"""KL divergence and losses of two models: those of the plain forward pass, in every layout."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from alpaca_lora.against_base import divergence
from alpaca_lora.against_base.divergence import Pair
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.tokens import Examples
from alpaca_lora.errors import ModelError
from alpaca_lora.models.attention import IMPLEMENTATION
from alpaca_lora.models.lora import add_lora

EOS = 2
LAYOUTS = ("padded", "packed", "tree")


@pytest.fixture
def model(tiny_llama):
    """A tiny LLaMA with an adapter that changes it a good deal."""
    model = add_lora(tiny_llama(kv_heads=2), r=4, alpha=8, dropout=0.5, targets="all-linear")
    torch.manual_seed(0)
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.2)
    return model.eval()


@pytest.fixture(params=[False, True], ids=["answers", "all tokens"])
def examples(request):
    """Prompts that share beginnings; a conversation of two turns, and one answer that stands twice."""
    random = np.random.default_rng(0)
    begin, rows, prompt_lens = random.integers(3, 60, 9).tolist(), [], []
    for k in range(12):
        prompt = begin[: 3 + k % 5] + random.integers(3, 60, random.integers(1, 6)).tolist()
        rows.append([*prompt, *random.integers(3, 60, random.integers(1, 15)).tolist(), EOS])
        prompt_lens.append(len(prompt))
    rows += [[*rows[-1], 7, 8, 9, EOS], rows[0]]
    prompt_lens += [len(rows[-2]) - 2, prompt_lens[0]]
    numbers = np.asarray([*range(1, 13), 12, 13])
    return Examples.from_lists(rows, prompt_lens, record_numbers=numbers, train_on_inputs=request.param)


def plainly(model: Any, examples: Examples) -> np.ndarray:
    """Tokens, KL(base || tuned), both losses and equal choices of each record, shape (5, records), by definition."""
    sums = np.zeros((5, examples.records))
    for index in range(len(examples)):
        ids, first = torch.from_numpy(examples[index].ids.astype(np.int64)), int(examples.supervised_from[index])
        with torch.no_grad():
            tuned = model(input_ids=ids[None]).logits[0].double()
            with model.disable_adapter():
                base = model(input_ids=ids[None]).logits[0].double()
        p, q, targets = base[first - 1 : -1].softmax(-1), tuned[first - 1 : -1].softmax(-1), ids[first:]
        at = torch.arange(len(targets))
        found = [
            torch.ones(len(targets)),
            (p * (p / q).log()).sum(-1),
            -p[at, targets].log(),
            -q[at, targets].log(),
            (p.argmax(-1) == q.argmax(-1)).double(),
        ]
        record = np.searchsorted(np.unique(examples.record_numbers), examples.record_numbers[index])
        sums[:, record] += [each.sum().item() for each in found]
    return sums


@pytest.mark.parametrize("max_tokens", [20, 1000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_are_those_of_plain_forward_passes(model, examples, layout, max_tokens):
    expected = plainly(model, examples)
    if layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    found = Pair.of_adapter(model).compare(Planner(examples, layout, max_tokens), np.arange(len(examples)))
    assert np.abs(expected[1]).min() > 1e-3
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=2e-5, atol=1e-6)


def test_some_examples_of_many(model, examples):
    expected = plainly(model, examples)
    members = np.asarray([1, 4, 11, 12])  # the last two are a conversation, record 12
    found = Pair.of_adapter(model).compare(Planner(examples, "padded", 100), members)
    np.testing.assert_allclose(found, expected[:, [1, 4, 11]], rtol=2e-5, atol=1e-6)


def test_a_head_that_is_not_plain_and_small_chunks_give_the_same(model, examples, monkeypatch):
    planner, members = Planner(examples, "padded", 100), np.arange(len(examples))
    expected = Pair.of_adapter(model).compare(planner, members)
    monkeypatch.setattr(divergence, "plain_head", lambda model: None)
    monkeypatch.setattr(divergence, "logit_rows", lambda vocab_size, on_cpu: 12)
    pair = Pair.of_adapter(model)
    assert pair.heads == (None, None)
    np.testing.assert_allclose(pair.compare(planner, members), expected, rtol=2e-5, atol=1e-6)


def test_a_model_against_itself_has_changed_nothing(model, examples):
    @contextmanager
    def itself():
        yield model

    found = Pair(model, itself).compare(Planner(examples, "padded", 100), np.arange(len(examples)))
    assert not found.kl.any()
    assert found.loss_after.tolist() == found.loss_before.tolist()
    assert found.same_choice.tolist() == found.tokens.tolist()


def test_the_measure_leaves_model_and_random_state_alone(model, examples):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trains, state = [p.requires_grad for p in model.parameters()], torch.random.get_rng_state()
    Pair.of_adapter(model).compare(Planner(examples, "padded", 100), np.arange(len(examples)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == trains and not model.training


def test_where_memory_is_short_packs_become_smaller(model, examples, monkeypatch):
    planner, members, sizes = Planner(examples, "padded", 10_000), np.arange(len(examples)), []
    expected = Pair.of_adapter(model).compare(planner, members)
    values = Pair._values

    def short(self, pack):
        sizes.append(pack.input_ids.size)
        if pack.input_ids.size > 100:
            raise torch.OutOfMemoryError
        return values(self, pack)

    monkeypatch.setattr(Pair, "_values", short)
    found = Pair.of_adapter(model).compare(planner, members)
    assert max(sizes) > 100 >= sizes[-1]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_numbers_that_are_none_are_refused(model, examples):
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(ModelError, match="predictions are no numbers"):
        Pair.of_adapter(model).compare(Planner(examples, "padded", 100), np.arange(len(examples)))
