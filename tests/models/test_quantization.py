"""Frozen weights in 4 and 8 bits, on a CPU (bitsandbytes runs there, slowly); merging takes the whole base."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpaca_lora import finetune, load, merge
from alpaca_lora.errors import MissingDependencyError, ModelError
from alpaca_lora.models.fingerprint import fingerprint
from alpaca_lora.models.load import Placement, load_model
from alpaca_lora.models.quantization import quantization

FLOAT32 = Placement(torch.device("cpu"), torch.float32)


@pytest.fixture
def without_bitsandbytes(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "bitsandbytes" in name else real(name))


@pytest.fixture(scope="module")
def settings(records):
    return {
        "data": [record._asdict() for record in records],
        "cutoff_len": 96,
        "val_set_size": 0,
        "batch_size": 6,
        "max_steps": 3,
        "learning_rate": 3e-3,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "lora_dropout": 0,
        "lora_target_modules": "all-linear",
    }


def test_four_bits_are_nf4_with_double_quantisation(short_base):
    model = load_model(short_base, FLOAT32, bits=4)
    linear = model.model.layers[0].mlp.up_proj
    assert type(linear).__name__ == "Linear4bit"
    assert linear.weight.quant_state.quant_type == "nf4" and linear.weight.quant_state.nested
    assert type(model.lm_head) is torch.nn.Linear and model.lm_head.weight.dtype == torch.float32


@pytest.mark.slow
def test_qlora_trains_the_demo_model_and_merges_into_the_whole_base(demo_base, settings, tmp_path):
    settings = {**settings, "data": settings["data"][:2], "batch_size": 2}
    run = finetune(base_model=demo_base, output_dir=tmp_path / "out", method="qlora", **settings)
    losses = [line["loss"] for line in run.history]
    assert losses[0] > losses[1] > losses[2]
    content = json.loads((run.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["contract"]["base_fingerprint"] == fingerprint(demo_base)
    merged = merge(run.output_dir, tmp_path / "merged", certify=False).folder  # compared here, with fewer probes
    ids = torch.arange(100, 140)[None]
    with torch.no_grad():
        logits = [load(folder).model.cpu().float()(ids).logits for folder in (run.output_dir, merged)]
        base = load_model(demo_base, FLOAT32)(ids).logits
    assert (logits[1] - logits[0]).abs().max() < 1e-3
    assert (logits[1] - base).abs().max() > 0.1
    tensors = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert "quantization_config" not in json.loads((merged / "config.json").read_text(encoding="utf-8"))


def test_gradients_after_an_evaluation_are_those_before(short_base):
    """bitsandbytes relays weights for inference on some CPUs, and would not give gradients through them."""
    from alpaca_lora.models.lora import add_lora

    torch.manual_seed(0)
    model = add_lora(load_model(short_base, FLOAT32, bits=4), r=4, alpha=8, dropout=0.0, targets="all-linear")
    ids = torch.arange(5, 37)[None]

    def gradients():
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.requires_grad}

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, before[name])


def test_eight_bits(short_base, settings, tmp_path):
    run = finetune(base_model=short_base, output_dir=tmp_path / "out", load_in_8bit=True, **settings)
    assert len(run.history) == 3
    assert "LoRA (base in 8 bits)" in (run.output_dir / "README.md").read_text(encoding="utf-8")


def test_an_eight_bit_optimizer(short_base, settings, tmp_path):
    plain = finetune(base_model=short_base, output_dir=tmp_path / "plain", **settings)
    small = finetune(base_model=short_base, output_dir=tmp_path / "small", optimizer="adamw_8bit", **settings)
    for found, expected in zip(small.history, plain.history, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-2)


@pytest.mark.parametrize("change", [{"method": "qlora"}, {"load_in_8bit": True}, {"optimizer": "adamw_8bit"}])
def test_without_bitsandbytes(without_bitsandbytes, settings, tmp_path, change):
    with pytest.raises(MissingDependencyError, match="needs bitsandbytes. Install it: pip install 'alpaca-lora"):
        finetune(base_model="no/where", output_dir=tmp_path / "out", **{**settings, **change})
    with pytest.raises(MissingDependencyError):
        quantization(4, FLOAT32)


def test_a_base_that_is_quantised_already(short_base, tmp_path):
    import shutil

    shutil.copytree(short_base, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="are quantised already. Name the full-precision model; finetune's method=q"):
        load_model(str(tmp_path / "base"), FLOAT32)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_quantised_without_a_word_of_it_are_refused_before_training(tiny_llama, tmp_path, dtype):
    """They would be trained on without their scales, and could not be merged into."""
    tiny_llama().save_pretrained(tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, name: (tensors[name] * 100).to(dtype)}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="are quantised .(I8|F8_E4M3)., though its config.json does not say so"):
        load_model(str(tmp_path / "base"), FLOAT32)
