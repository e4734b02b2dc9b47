"""Adapters on disk: what is saved is what was trained, and only a whole and fitting adapter is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpaca_lora.errors import AdapterError
from alpaca_lora.models.lora import add_lora, quiet_peft
from alpaca_lora.runs.adapter_files import CONFIG, WEIGHTS, is_adapter, read_adapter, save_adapter
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile
from alpaca_lora.runs.saved_adapter import SavedAdapter, describe_adapter

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def trained(tiny_llama, **settings):
    """A model with an adapter whose B matrices are not zero."""
    model = add_lora(tiny_llama(), **{"r": 4, "alpha": 8, "dropout": 0.0, **settings})
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.normal_(std=0.1)
    return model


@pytest.fixture
def adapter(tiny_llama, tmp_path):
    """The folder of a whole adapter, to damage."""
    save_adapter(trained(tiny_llama), tmp_path / "adapter")
    return tmp_path / "adapter"


def change(adapter, **tensors):
    """Replaces (or, with None, removes) tensors of a saved adapter."""
    found = {**load_file(adapter / WEIGHTS), **tensors}
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, adapter / WEIGHTS)


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 17)[None]).logits


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_a_saved_adapter_loads_as_it_was(tiny_llama, tmp_path, kind):
    model = trained(tiny_llama, targets="all-linear", **kind).eval()
    assert not is_adapter(tmp_path)
    save_adapter(model, tmp_path)
    assert is_adapter(tmp_path)
    loaded = SavedAdapter.read(tmp_path).put_on(tiny_llama(), "tiny")
    assert not loaded.training
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(tiny_llama()))
    assert [name for name, tensor in loaded.named_parameters() if tensor.requires_grad] == []


def test_an_adapter_is_float32_also_on_a_bfloat16_base(tiny_llama, adapter):
    loaded = SavedAdapter.read(adapter).put_on(tiny_llama().to(torch.bfloat16), "tiny")
    assert {tensor.dtype for name, tensor in loaded.named_parameters() if "lora_" in name} == {torch.float32}


def test_nothing_trained_is_not_saved(tiny_llama, tmp_path):
    model = add_lora(tiny_llama(), r=4, alpha=8, dropout=0.0)
    with pytest.raises(AdapterError, match="every LoRA B matrix is zero: nothing was trained. Raise learning_rate"):
        save_adapter(model, tmp_path)
    assert not is_adapter(tmp_path)


def test_nan_is_not_saved(tiny_llama, tmp_path):
    model = trained(tiny_llama)
    with torch.no_grad():
        next(tensor for name, tensor in model.named_parameters() if "lora_B" in name)[0, 0] = float("nan")
    with pytest.raises(AdapterError, match="NaN or Inf in 1 tensor, first .*lora_B"):
        save_adapter(model, tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


def test_missing_keys(tiny_llama, adapter):
    change(adapter, **{FIRST: None})
    with pytest.raises(AdapterError) as caught:
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")
    assert f"{adapter}: does not fit 'tiny': 1 missing key, first ['{FIRST}']. It names the base" in str(caught.value)


def test_unexpected_keys(tiny_llama, adapter):
    change(adapter, **{FIRST.replace("layers.0", "layers.9"): torch.ones(4, 64)})
    with pytest.raises(AdapterError, match="1 unexpected key, first .'base_model.model.model.layers.9.self_attn"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_renamed_keys(tiny_llama, adapter):
    change(adapter, **{FIRST: None, FIRST.replace("lora_A", "lora_C"): torch.ones(4, 64)})
    with pytest.raises(AdapterError, match="1 missing key, first .*lora_A.*; 1 unexpected key, first .*lora_C"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_another_rank(tiny_llama, adapter):
    change(adapter, **{FIRST: torch.ones(2, 64)})
    with pytest.raises(AdapterError, match=r"1 other shape, first .*lora_A.weight is \(2, 64\), not \(4, 64\)"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_a_base_of_another_shape(tiny_llama, adapter):
    with pytest.raises(AdapterError, match=r"not fit 'smaller': 8 other shapes, first .*is \(4, 64\), not \(4, 32\)"):
        SavedAdapter.read(adapter).put_on(tiny_llama(hidden=32), "smaller")


def test_nan_is_not_loaded(tiny_llama, adapter):
    change(adapter, **{FIRST: torch.full((4, 64), float("nan"))})
    with pytest.raises(AdapterError, match="NaN or Inf in 1 tensor, first .*lora_A.weight'.. Train it again."):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def describe(adapter):
    """As a finished run does; the contract is of no interest here."""
    contract = Contract("base", "-", {}, "-", prefix_ids=[1], eos_id=2, stop_ids=[2], pad_id=None)
    saved = SavedAdapter.read(adapter)
    RunFile(contract, adapter=describe_adapter(saved.says, saved.tensors)).write(adapter)


def test_a_changed_alpha(tiny_llama, adapter):
    describe(adapter)
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    (adapter / CONFIG).write_text(json.dumps({**config, "lora_alpha": 16}), encoding="utf-8")
    with pytest.raises(AdapterError, match="is not the adapter that was trained here: lora_alpha is 16, not 8"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_tensors_set_to_zero(tiny_llama, adapter):
    describe(adapter)
    SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")
    change(adapter, **{FIRST: torch.zeros(4, 64)})
    with pytest.raises(AdapterError, match="trained here: 1 tensor changed, first .'base_model.*q_proj.lora_A"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_pickled_weights_are_refused(tiny_llama, adapter):
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="holds adapter_model.bin, a pickle that can run code when it is read"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_no_weights(tiny_llama, adapter):
    (adapter / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="has no adapter_model.safetensors: it is an adapter without weights. Copy"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


@pytest.mark.parametrize("size", [0, 5, 200, -10])
def test_a_truncated_file(tiny_llama, adapter, size):
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(AdapterError, match="adapter_model.safetensors: damaged: .*Copy it again from"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *((text, "adapter_config.json: damaged: ") for text in ("", "{", "[]", "\xff")),
        ("{}", "has no peft_type, so it is not peft's: it is an adapter of another tool"),
        ('{"peft_type": "NO_SUCH"}', "of the kind 'NO_SUCH' .peft_type., which is not known to peft"),
        ('{"peft_type": "LORA", "target_modules": ["absent"]}', "adapter_config.json does not fit 'tiny': "),
    ],
)
def test_a_damaged_config(tiny_llama, adapter, text, problem):
    (adapter / CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(AdapterError, match=problem):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_an_adapter_peft_wrote_loads(tiny_llama, tmp_path):
    """Also one with settings this library has no switch for."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], rank_pattern={"layers.1.*": 2})
    with quiet_peft():
        model = get_peft_model(tiny_llama(), config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.fill_(0.1)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(SavedAdapter.read(tmp_path).put_on(tiny_llama(), "tiny")), logits(model))


def test_the_config_beside_the_weights_is_pefts(adapter):
    content = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    assert content["peft_type"] == "LORA"
    assert content["r"] == 4


def test_reading_gives_every_tensor(adapter, tmp_path):
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    tensors = read_adapter(moved)
    assert len(tensors) == 8
    assert tensors[FIRST].shape == (4, 64)
