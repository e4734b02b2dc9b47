"""The three implementations of attention over packs agree, and no token sees a sibling branch."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as flex
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from alpaca_lora.models import attention
from alpaca_lora.models.attention import BLOCK, Branch, PackMask, always_compiled, pack_attention, runs_packs

# B e l o w .  C a t s ?  D o g s ?  as drawn in the module: one trunk, two branches.
DRAWN = [14] * 6 + [10] * 4 + [14] * 4


@st.composite
def subtree_ends(draw: st.DrawFn) -> list[int]:
    """A random forest: each token's parent is some token on the path to the one before it, or none."""
    parents: list[int] = []
    for index in range(draw(st.integers(1, 24))):
        path, node = [-1], index - 1
        while node >= 0:
            path.append(node)
            node = parents[node]
        parents.append(draw(st.sampled_from(path)))
    ends = [0] * len(parents)
    for index in reversed(range(len(parents))):
        ends[index] = max(ends[index], index + 1)
        if parents[index] >= 0:
            ends[parents[index]] = max(ends[parents[index]], ends[index])
    return ends


def attend(ends: list[int], implementation: str, qkv: list[torch.Tensor]) -> torch.Tensor:
    mask = PackMask(torch.tensor(ends), implementation)
    return pack_attention(torch.nn.Identity(), *qkv, None, pack_mask=mask)[0]


def random_qkv(tokens: int, kv_heads: int, grad: bool = True) -> list[torch.Tensor]:
    torch.manual_seed(tokens)
    return [torch.randn(1, heads, tokens, 16, requires_grad=grad) for heads in (4, kv_heads, kv_heads)]


def test_branches_of_the_drawn_pack():
    assert PackMask(torch.tensor(DRAWN)).branches == [Branch(0, 6, ()), Branch(6, 10, (0,)), Branch(10, 14, (0,))]


@given(subtree_ends(), st.sampled_from([4, 2, 1]))
@settings(deadline=None, max_examples=60)
def test_branches_equal_the_dense_reference_in_values_and_gradients(ends, kv_heads):
    qkv = random_qkv(len(ends), kv_heads)
    results = {}
    for implementation in ("dense", "branches"):
        out = attend(ends, implementation, qkv)
        results[implementation] = [out, *torch.autograd.grad(out.square().sum(), qkv)]
    for dense, branch in zip(results["dense"], results["branches"], strict=True):
        torch.testing.assert_close(branch, dense, rtol=1e-4, atol=1e-4)


# FlexAttention


def random_tree(tokens: int, seed: int) -> list[int]:
    """`subtree_end` of a tree of branches, deep and shallow, short and long."""
    dice, ends, path = random.Random(seed), [0] * tokens, []
    for index in range(tokens):
        if path and dice.random() < 0.02:
            path = path[: dice.randrange(len(path) + 1)]
        path.append(index)
        for ancestor in path:
            ends[ancestor] = index + 1
    return ends


@pytest.fixture
def backward_on_cpus(monkeypatch):
    """FlexAttention refuses to learn on a CPU, though its uncompiled form can."""
    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)


@pytest.mark.parametrize(("tokens", "seed"), [(256, 0), (384, 1), (896, 2), (1536, 3), (1536, 4), (1536, 5)])
def test_the_block_mask_is_the_one_torch_makes(tokens, seed):
    ends = torch.tensor(random_tree(tokens, seed))
    made = PackMask(ends, "blocks").blocks
    size = (None, None, tokens, tokens)
    reference = flex.create_block_mask(made.mask_mod, *size, device="cpu", BLOCK_SIZE=BLOCK)
    assert torch.equal(made.to_dense(), reference.to_dense())
    for mine, theirs in ((made.kv_num_blocks, reference.kv_num_blocks), (made.q_num_blocks, reference.q_num_blocks)):
        assert torch.equal(mine, theirs)  # partial ones: in these the mask is evaluated
    for mine, theirs in (
        (made.full_kv_num_blocks, reference.full_kv_num_blocks),
        (made.full_q_num_blocks, reference.full_q_num_blocks),
    ):
        assert torch.equal(mine, theirs)
    seen = flex.create_mask(made.mask_mod, *size, device="cpu")
    assert torch.equal(seen, PackMask(ends, "dense").dense)


def test_a_block_that_is_seen_whole_needs_no_mask():
    made = PackMask(torch.tensor([512] * 512), "blocks").blocks
    assert made.full_kv_num_blocks.flatten().tolist() == [0, 1, 2, 3]
    assert made.kv_num_blocks.flatten().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_blocks_equal_the_dense_reference_in_values_and_gradients(kv_heads, backward_on_cpus):
    ends = random_tree(384, 7)
    qkv, results = random_qkv(384, kv_heads), {}
    for implementation in ("dense", "blocks"):
        out = attend(ends, implementation, qkv)
        results[implementation] = [out, *torch.autograd.grad(out.square().sum(), qkv)]
    for dense, blocks in zip(results["dense"], results["blocks"], strict=True):
        torch.testing.assert_close(blocks, dense, rtol=1e-4, atol=1e-5)


def graphs_of(run) -> int:
    """Graphs that torch.compile makes while `run()` is called."""
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    run()
    return counters["stats"]["unique_graphs"] - before


@pytest.mark.slow
def test_packs_of_any_length_take_a_few_graphs(monkeypatch, backward_on_cpus):
    """50 lengths, LoRA on q and v (keys of the first layer learn nothing) and on all, evaluations, two models."""
    torch._dynamo.reset()
    compiled = torch.compile(flex.flex_attention, backend="eager", fullgraph=True)
    monkeypatch.setattr(attention, "_flex_attention", lambda _: compiled)
    monkeypatch.setattr(attention, "BLOCK", 16)  # uncompiled, FlexAttention makes all scores: short packs are quick

    trees = [torch.tensor(random_tree(blocks * attention.BLOCK, blocks)) for blocks in range(2, 52)]

    def model(heads: int, kv_heads: int, size: int, trees: list[torch.Tensor]):
        for ends in trees:
            mask, tokens = PackMask(ends, "blocks"), len(ends)
            qkv = [torch.randn(1, count, tokens, size) for count in (heads, kv_heads, kv_heads)]
            for learning in ((True, True, True), (True, False, True), ()):
                for tensor, learns in zip(qkv, learning or (False,) * 3, strict=True):
                    tensor.requires_grad_(learns)
                with torch.set_grad_enabled(bool(learning)):
                    pack_attention(torch.nn.Identity(), *qkv, None, pack_mask=mask)

    with always_compiled():
        assert graphs_of(lambda: model(2, 1, 4, trees)) <= 6
        assert graphs_of(lambda: model(4, 4, 8, trees[::5])) <= 6
        assert graphs_of(lambda: model(2, 1, 4, trees[::5])) == 0


def test_more_graphs_than_allowed_are_an_error_and_not_all_scores_at_once(monkeypatch):
    torch._dynamo.reset()
    compiled = torch.compile(flex.flex_attention, backend="eager", dynamic=False)
    monkeypatch.setattr(attention, "_flex_attention", lambda _: compiled)
    monkeypatch.setattr(attention, "GRAPHS", 2)
    with always_compiled(), torch.no_grad(), pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        for tokens in (256, 384, 512, 640):
            attend([tokens] * tokens, "blocks", random_qkv(tokens, 4, grad=False))
    torch._dynamo.reset()


def test_autocast_over_float32_weights_gives_attention_one_dtype(backward_on_cpus):
    """Rotary positions are float32 there, values bfloat16; FlexAttention refuses two dtypes."""
    query, key, value = random_qkv(256, 2, grad=False)
    for implementation in ("dense", "branches", "blocks"):
        mask = PackMask(torch.tensor(random_tree(256, 1)), implementation)
        out, _ = pack_attention(torch.nn.Identity(), query, key, value.bfloat16(), None, pack_mask=mask)
        assert out.dtype == torch.bfloat16


# Branches


def test_branches_run_where_their_tensors_are():
    """Nothing is made on the CPU by accident: tensors without memory stand for any other device."""
    mask = PackMask(torch.tensor(DRAWN), "branches")
    branches = mask.branches  # read off real numbers
    elsewhere = PackMask(torch.empty(len(DRAWN), dtype=torch.long, device="meta"), "branches")
    elsewhere.__dict__["branches"] = branches
    qkv = [torch.empty(1, heads, len(DRAWN), 16, device="meta", requires_grad=True) for heads in (4, 2, 2)]
    out, _ = pack_attention(torch.nn.Identity(), *qkv, None, pack_mask=elsewhere)
    assert out.shape == (1, len(DRAWN), 4, 16)
    assert [gradient.device.type for gradient in torch.autograd.grad(out.sum(), qkv)] == ["meta"] * 3


@pytest.mark.parametrize(
    ("device", "capability", "chosen"),
    [
        ("cuda", (8, 0), "blocks"),
        ("cuda", (9, 0), "blocks"),
        ("cuda", (7, 5), "branches"),
        ("cuda", (7, 0), "branches"),
        ("cpu", None, "branches"),
        ("mps", None, "branches"),
    ],
)
def test_the_implementation_goes_by_device(monkeypatch, device, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert attention.takes_blocks(torch.device(device)) == (chosen == "blocks")


@pytest.mark.parametrize(("implementation", "most"), [("dense", 0), ("branches", 1e-5)])
def test_a_token_never_sees_a_sibling_branch(implementation, most):
    qkv = random_qkv(len(DRAWN), 2, grad=False)
    before = attend(DRAWN, implementation, qkv)
    changed = [tensor.clone() for tensor in qkv]
    for tensor in changed:
        tensor[:, :, 6:10] += 3
    after = attend(DRAWN, implementation, changed)
    assert (after[:, 6:10] - before[:, 6:10]).abs().max() > 0.1
    for others in (slice(0, 6), slice(10, 14)):
        assert (after[:, others] - before[:, others]).abs().max() <= most


def test_without_a_pack_it_is_transformers_own_attention(tiny_llama):
    model, ids = tiny_llama(), torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    padding = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    expected = model(input_ids=ids, attention_mask=padding).logits
    model.set_attn_implementation("alpaca_lora_packs")
    torch.testing.assert_close(model(input_ids=ids, attention_mask=padding).logits, expected)
    alone = model.generate(torch.tensor([[7, 8]]), max_new_tokens=5, do_sample=False)
    padded = model.generate(ids, attention_mask=padding, max_new_tokens=5, do_sample=False)
    assert padded[1, 2:].tolist() == alone[0].tolist()


def test_attention_dropout_is_refused():
    mask = PackMask(torch.tensor([1]))
    with pytest.raises(ValueError, match="without dropout"):
        pack_attention(torch.nn.Identity(), *random_qkv(1, 4), None, dropout=0.1, pack_mask=mask)


def test_only_plain_causal_models_run_packs():
    assert runs_packs(LlamaConfig())
    assert runs_packs(Qwen2Config(sliding_window=4096, use_sliding_window=False))
    assert not runs_packs(MistralConfig(sliding_window=4096))
    assert not runs_packs(Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=1))
    assert not runs_packs(LlamaConfig(attention_dropout=0.1))
