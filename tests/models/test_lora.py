"""LoRA on a base: which modules, which scale, and that every tensor of it learns."""

from __future__ import annotations

import math

import pytest
import torch

from alpaca_lora.errors import ConfigError
from alpaca_lora.models.load import checkpoint_activations
from alpaca_lora.models.lora import add_lora, check_targets

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def lora(model, **settings):
    return add_lora(model, **{"r": 4, "alpha": 8, "dropout": 0.0, **settings})


def lora_layers(model):
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def test_the_default_targets_are_alpaca_loras(tiny_llama):
    names = {name.rsplit(".", 1)[-1] for name in lora_layers(lora(tiny_llama()))}
    assert names == {"q_proj", "v_proj"}


@pytest.mark.parametrize("tie", [False, True])
def test_all_linear_is_every_linear_module_but_the_head(tiny_llama, tie):
    layers = lora_layers(lora(tiny_llama(tie=tie), targets="all-linear"))
    assert sorted({name.rsplit(".", 1)[-1] for name in layers}) == LINEAR
    assert len(layers) == 2 * len(LINEAR)


def test_every_unmatched_target_is_listed(tiny_llama):
    with pytest.raises(ConfigError) as caught:
        check_targets(tiny_llama(), ["q_projj", "v_proj", "query_key_value", "norm"])
    choices = ", ".join(LINEAR)
    first, second, third = caught.value.problems
    assert first == (
        "lora_target_modules: 'q_projj' matches no linear module of LlamaForCausalLM. Did you mean 'q_proj'? "
        f"Linear modules: {choices}."
    )
    assert second.startswith("lora_target_modules: 'query_key_value' matches no linear module")
    assert third.startswith("lora_target_modules: 'norm' matches no linear module")
    assert second.endswith(f"Linear modules: {choices}.")


@pytest.mark.parametrize(
    ("tie", "reason"),
    [(True, "input embedding and head are one tensor"), (False, "no longer merge and load everywhere")],
)
def test_head_and_embedding_are_refused(tiny_llama, tie, reason):
    with pytest.raises(ConfigError) as caught:
        lora(tiny_llama(tie=tie), targets=["lm_head", "embed_tokens", "q_proj", "x"])
    assert len(caught.value.problems) == 3
    for name in ("lm_head", "embed_tokens"):
        (problem,) = [problem for problem in caught.value.problems if f"'{name}'" in problem]
        assert "is refused: " in problem and reason in problem
        assert problem.endswith(f"Choose from: {', '.join(LINEAR)}.")


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_the_scale(tiny_llama, use_rslora, scale):
    layers = lora_layers(lora(tiny_llama(), use_rslora=use_rslora))
    assert {module.scaling["default"] for module in layers.values()} == {scale}


def test_a_fractional_alpha_is_a_fractional_scale(tiny_llama):
    layers = lora_layers(lora(tiny_llama(), alpha=0.5))
    assert {module.scaling["default"] for module in layers.values()} == {0.125}


def test_dora_has_magnitudes_and_lora_has_none(tiny_llama):
    def magnitudes(model):
        return [name for name, _ in model.named_parameters() if "lora_magnitude_vector" in name]

    assert len(magnitudes(lora(tiny_llama(), use_dora=True))) == 4
    assert magnitudes(lora(tiny_llama())) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("use_dora", [False, True])
def test_only_lora_tensors_train_and_in_float32(tiny_llama, dtype, use_dora):
    model = lora(tiny_llama().to(dtype), targets="all-linear", use_dora=use_dora)
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * len(LINEAR) * (3 if use_dora else 2)
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert {tensor.dtype for name, tensor in model.named_parameters() if "lora_" not in name} == {dtype}


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_every_adapter_tensor_gets_a_gradient_also_with_gradient_checkpointing(tiny_llama, kind):
    def gradients(checkpointing):
        torch.manual_seed(0)
        model = lora(tiny_llama(), targets="all-linear", **kind)
        with torch.no_grad():  # at B = 0 the gradient of A is zero
            for name, tensor in model.named_parameters():
                if "lora_B" in name:
                    tensor.normal_(std=0.1)
        if checkpointing:  # as training/pipeline.py does
            checkpoint_activations(model)
        model.train()
        ids = torch.arange(1, 33).reshape(2, 16)
        model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).sum().backward()
        return {name: tensor.grad for name, tensor in model.named_parameters() if tensor.requires_grad}

    plain, checkpointed = gradients(False), gradients(True)
    assert [name for name, gradient in plain.items() if gradient is None or not gradient.any()] == []
    assert plain.keys() == checkpointed.keys()
    for name, gradient in checkpointed.items():
        torch.testing.assert_close(gradient, plain[name])
