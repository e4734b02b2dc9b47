"""Sizes by arithmetic: against published counts, models on the meta device, and the tensors autograd really keeps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from alpaca_lora.errors import ConfigError
from alpaca_lora.models.geometry import NF4_BYTES, OPTIMIZER_BYTES, SHAPES, Geometry
from alpaca_lora.models.load import checkpoint_activations
from alpaca_lora.models.lora import add_lora

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SMALL = Geometry(512, 256, 640, 3, 4, 4, head_dim=64)
GROUPED = Geometry(512, 256, 640, 3, 4, 2, head_dim=32, tie_word_embeddings=True)


def build(geometry: Geometry, device: str = "meta"):
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device(device):
        return LlamaForCausalLM(LlamaConfig(**asdict(geometry)))


def numel(model, trainable=False):
    return sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad or not trainable)


# Parameters


def test_published_counts():
    assert {name: geometry.parameters for name, geometry in SHAPES.items()} == PUBLISHED


def test_lora_counts():
    assert SHAPES["llama-7b"].lora_parameters(8, ["q_proj", "v_proj"]) == 4_194_304
    assert SHAPES["llama-13b"].lora_parameters(8) == 6_553_600
    assert SHAPES["llama-7b"].lora_parameters(16, ATTENTION) == 16_777_216
    assert SHAPES["llama-7b"].lora_parameters(16, "all-linear") == 39_976_960


@pytest.mark.parametrize("name", ["llama-7b", "llama-13b", "llama3-8b", "small", "grouped"])
def test_counts_are_the_models_own(name):
    geometry = {**SHAPES, "small": SMALL, "grouped": GROUPED}[name]
    model = build(geometry)
    assert numel(model) == geometry.parameters
    assert Geometry.of(model.config) == geometry
    linears = [module for name, module in model.model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert sum(module.weight.numel() for module in linears) == geometry.linear_parameters
    assert model.lm_head.weight.numel() == geometry.head_parameters


@pytest.mark.parametrize("name", ["llama-7b", "llama-13b"])
@pytest.mark.parametrize(("r", "targets"), [(8, None), (16, ATTENTION), (4, "all-linear")])
def test_lora_counts_are_the_models_own(name, r, targets):
    model = add_lora(build(SHAPES[name]), r=r, alpha=16, dropout=0.0, targets=targets)
    assert numel(model, trainable=True) == SHAPES[name].lora_parameters(r, targets)


def test_of_fills_in_what_old_configs_leave_out():
    old = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 3}
    assert Geometry.of(SimpleNamespace(**old, num_attention_heads=4)) == SMALL
    assert Geometry.of(SimpleNamespace(**old, num_attention_heads=4, head_dim=None, num_key_value_heads=None)) == SMALL
    grouped = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}
    assert Geometry.of(SimpleNamespace(**old, **grouped)) == GROUPED


def test_unknown_targets_are_all_named():
    with pytest.raises(ConfigError) as caught:
        SMALL.lora_parameters(8, ["q_projj", "v_proj", "lm_head"])
    first, second = caught.value.problems
    assert first.startswith("lora_target_modules: 'q_projj' is no linear module of a layer. Choose from: q_proj, ")
    assert first.endswith("Did you mean 'q_proj'?")
    assert second.startswith("lora_target_modules: 'lm_head' is no linear module")


def test_a_rank_that_no_target_can_have():
    assert GROUPED.rank_problems(64, ["v_proj"]) == []
    assert GROUPED.rank_problems(65, ["v_proj"]) == ["lora_r: 65 is more than 64, v_proj's smaller side. Lower it."]
    assert GROUPED.rank_problems(256, ["v_proj", "down_proj"]) == []  # one of them can
    (told,) = GROUPED.rank_problems(1000, "all-linear")
    assert told.startswith("lora_r: 1,000 is more than 256, ")


# Operations


@pytest.mark.parametrize("geometry", [SMALL, GROUPED], ids=["plain", "grouped"])
def test_operations_are_those_torch_counts(geometry):
    """torch's counter takes attention as a full square: n pairs a token."""
    from torch.utils.flop_counter import FlopCounterMode

    tokens = 48
    model = build(geometry).to_empty(device="cpu")  # whatever the weights, the operations are the same
    model.set_attn_implementation("eager")
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False)
    assert counter.get_total_flops() == geometry.forward_flops(tokens, tokens**2, tokens)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    assert counter.get_total_flops() == geometry.training_flops("full", tokens, tokens**2, tokens)


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_operations_of_lora_are_those_torch_counts(targets):
    from torch.utils.flop_counter import FlopCounterMode

    tokens, r = 48, 4
    model = add_lora(build(SMALL), r=r, alpha=8, dropout=0.0, targets=targets).to_empty(device="cpu")
    model.set_attn_implementation("eager")
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    lora = SMALL.lora_parameters(r, targets)
    counted = SMALL.training_flops("lora", tokens, tokens**2, tokens, lora)
    first = 3 if targets else 2  # we count gradients of the first layer's input through LoRA on q, k, v too
    unneeded = 2 * SMALL.hidden_size * r * tokens * first
    if targets is None:  # and of its keys, which depend on nothing that learns
        unneeded += 2 * SMALL.hidden_size * tokens**2
    assert counter.get_total_flops() == counted - unneeded


def test_a_token_costs_six_operations_a_parameter():
    """arXiv 2001.08361: 6 N, and attention; with frozen weights a third less; recomputation a third more."""
    geometry = SHAPES["llama-7b"]
    used = geometry.linear_parameters + geometry.head_parameters
    attention = 12 * 4096 * 256 * 32
    assert geometry.flops_per_token("full", 256) == 6 * used + attention
    assert geometry.flops_per_token("full", 256, again=True) == pytest.approx(8 * used + attention * 4 / 3, rel=0.01)
    assert geometry.flops_per_token("lora", 256) == pytest.approx(4 * used + attention, rel=0.01)
    assert geometry.flops_per_token("lora", 256, lora=1000) - geometry.flops_per_token("qlora", 256) == 6000
    assert geometry.flops_per_token("full", 256, predicted=0) == 6 * geometry.linear_parameters + attention


# Bytes


def test_state_bytes():
    geometry = SHAPES["llama-7b"]
    assert sum(geometry.state_bytes("full")) == 16 * geometry.parameters
    assert math.isclose(NF4_BYTES, 0.5158691, abs_tol=1e-7)
    lora = geometry.lora_parameters(16, "all-linear")
    rest = geometry.parameters - geometry.linear_parameters
    assert geometry.state_bytes("lora", lora) == (2 * geometry.parameters + 4 * lora, 4 * lora, 8 * lora)
    assert geometry.state_bytes("qlora", lora).weights == NF4_BYTES * geometry.linear_parameters + 2 * rest + 4 * lora
    rows = 32 * (5 * 4096 + 2 * 11008)
    assert geometry.state_bytes("lora", load_in_8bit=True).weights == geometry.linear_parameters + 2 * rest + 4 * rows
    eight = geometry.state_bytes("full", optimizer="paged_adamw_8bit").optimizer
    embedding = geometry.head_parameters
    assert eight == 8 * embedding + OPTIMIZER_BYTES["adamw_8bit"] * (geometry.parameters - embedding)


def test_gathered_bytes():
    layer, ends = 4 * 4096**2 + 3 * 4096 * 11008, 2 * 4096 * 32_000 + 65 * 4096
    assert SHAPES["llama-7b"].gathered_bytes("lora") == 2 * (2 * layer + ends)
    assert SHAPES["llama-7b"].gathered_bytes("full") == 2 * (2 * layer + ends) + 6 * ends


def kept_bytes(model, tokens, bfloat16=True):
    """Bytes autograd keeps for the backward pass of the decoder, weights and their bfloat16 copies left out."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    shapes = {tuple(tensor.shape) for tensor in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    ids = torch.zeros(1, tokens, dtype=torch.long)
    decoder = model.get_base_model().model if hasattr(model, "get_base_model") else model.model
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16, cache_enabled=False)  # as the trainer has it
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(count for count, _ in kept.values())


@pytest.mark.parametrize(
    ("method", "targets", "checkpointing"),
    [
        ("full", None, False),
        ("lora", None, False),
        ("lora", ATTENTION, False),
        ("lora", "all-linear", False),
        ("full", None, True),
        ("lora", "all-linear", True),
    ],
)
def test_activation_bytes_are_those_autograd_keeps(method, targets, checkpointing):
    """A layer more keeps as many bytes more as the formula says, within what it leaves out."""
    tokens = 96
    found, expected = [], []
    for layers in (2, 4):
        geometry = replace(SMALL, num_hidden_layers=layers)
        model = build(geometry, "cpu").to(torch.bfloat16)
        if method == "lora":
            model = add_lora(model, r=1, alpha=1, dropout=0.0, targets=targets)
        if checkpointing:
            model.enable_input_require_grads()
            checkpoint_activations(model)
        found.append(kept_bytes(model.train(), tokens) / tokens)
        expected.append(geometry.activation_bytes(method, checkpointing, targets))
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], rel=0.03)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("method", "targets", "dropout", "dtype"),
    [
        ("full", None, 0.0, "float32"),
        ("full", None, 0.0, "bfloat16"),  # weights in float32, products in bfloat16
        ("lora", ["v_proj", "gate_proj"], 0.0, "float32"),
        ("lora", "all-linear", 0.0, "float32"),
        ("lora", "all-linear", 0.1, "float32"),
    ],
)
def test_activation_bytes_over_float32_weights(method, targets, dropout, dtype, checkpointing):
    found, expected = [], []
    for layers in (2, 4):
        geometry = replace(SMALL, num_hidden_layers=layers)
        model = build(geometry, "cpu")
        if method == "lora":
            model = add_lora(model, r=1, alpha=1, dropout=dropout, targets=targets)
        if checkpointing:
            model.enable_input_require_grads()
            checkpoint_activations(model)
        found.append(kept_bytes(model.train(), 96, dtype == "bfloat16") / 96)
        traits = {"dtype": dtype, "sharded": False, "on_cpu": True}
        expected.append(geometry.activation_bytes(method, checkpointing, targets, dropout > 0, **traits))
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], rel=0.03)


def test_dropout_keeps_masks():
    without = SMALL.activation_bytes("lora", targets=ATTENTION)
    assert SMALL.activation_bytes("lora", targets=ATTENTION, dropout=True) - without == 3 * 4 * 256


def test_importing_loads_nothing_large():
    program = "import json, sys, alpaca_lora.models.geometry; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "peft", "numpy"}.isdisjoint(json.loads(done.stdout))
