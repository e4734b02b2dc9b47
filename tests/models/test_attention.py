"""The three implementations of attention over packs agree, and no token sees a sibling branch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from alpaca_lora.models.attention import Branch, PackMask, pack_attention, runs_packs

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


def test_blocks_equal_the_dense_reference():
    """Values only: FlexAttention has no backward on a CPU; benchmarks/gpu.py compares gradients on CUDA."""
    trunk, leaves = 100, [60, 90, 134]
    ends = [384] * trunk
    for leaf in leaves:
        ends += [len(ends) + leaf] * leaf
    with torch.no_grad():
        qkv = random_qkv(384, 2, grad=False)
        torch.testing.assert_close(attend(ends, "blocks", qkv), attend(ends, "dense", qkv), rtol=1e-4, atol=1e-5)


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
