"""Merged tensors are peft's own, for any plain peft adapter, shard by shard; what cannot be merged is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from alpaca_lora import merge
from alpaca_lora.errors import AdapterError, ModelError
from alpaca_lora.models.lora import quiet_peft

pytestmark = pytest.mark.filterwarnings("ignore:.*has no alpaca_lora.json", "ignore:.*save_embedding_layers")

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATTERNS = {"rank_pattern": {"layers.1.self_attn.q_proj": 2, "up_proj": 3}, "alpha_pattern": {"down_proj": 32}}
KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {**PATTERNS, "use_rslora": True},
    "one-layer": {"layers_to_transform": [1], "target_modules": ["v_proj"]},
    "saved-modules": {"modules_to_save": ["lm_head", "norm"]},
    "embedding": {"target_modules": ["embed_tokens", "lm_head"]},
    "dora-embedding": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
}


def peft_adapter(base, folder, seed=1, **settings):
    """An adapter as plain peft saves it, every tensor of it random."""
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8, "target_modules": LINEAR, **settings})
    with quiet_peft():
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_magnitude" in name or "modules_to_save" in name:
                tensor *= 1 + 0.1 * torch.rand_like(tensor)
            elif tensor.requires_grad:
                tensor.normal_(std=0.05)
    model.save_pretrained(folder)
    return folder


def by_peft(base, *adapters):
    """What peft itself merges, in float32."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with quiet_peft():
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    return model.state_dict()


def tensors_of(folder):
    return {name: tensor for path in Path(folder).glob("*.safetensors") for name, tensor in load_file(path).items()}


def close(found, wanted, **tolerance):
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor.float(), wanted[name], **{"rtol": 1e-5, "atol": 1e-6, **tolerance}, msg=lambda text, n=name: n + text
        )


@pytest.fixture
def base(tiny_llama, tmp_path):
    """Grouped queries, in shards."""
    tiny_llama(200, kv_heads=2).save_pretrained(tmp_path / "base", max_shard_size="100KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 3
    return tmp_path / "base"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_peft_merges(base, tmp_path, kind):
    adapter = peft_adapter(base, tmp_path / "adapter", **KINDS[kind])
    merge(adapter, tmp_path / "merged", certify=False)
    found, plain = tensors_of(tmp_path / "merged"), tensors_of(base)
    close(found, by_peft(base, adapter))
    assert found.keys() == plain.keys()
    assert any(not torch.equal(found[name], plain[name]) for name in plain)
    shards = sorted(path.name for path in base.glob("*.safetensors*"))
    assert sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors*")) == shards
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in found.items())


def test_tied_embeddings_stay_tied(tiny_llama, tmp_path):
    tiny_llama(200, tie=True).save_pretrained(tmp_path / "base")
    adapter = peft_adapter(tmp_path / "base", tmp_path / "adapter")
    merge(adapter, tmp_path / "merged", certify=False)
    found = tensors_of(tmp_path / "merged")
    assert "lm_head.weight" not in found
    close(found, by_peft(tmp_path / "base", adapter))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_tied_head_is_not_changed(tiny_llama, tmp_path):
    tiny_llama(200, tie=True).save_pretrained(tmp_path / "base")
    adapter = peft_adapter(tmp_path / "base", tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(AdapterError, match="changes 'model.embed_tokens.weight', but input embedding and head are one"):
        merge(adapter, tmp_path / "merged", certify=False)


@pytest.mark.parametrize("kind", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_matrices_stored_the_other_way_round(tmp_path, kind):
    """GPT-2's are (inputs, outputs); peft calls that fan_in_fan_out."""
    shape = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    GPT2LMHeadModel(GPT2Config(vocab_size=99, **shape)).save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    adapter = peft_adapter(tmp_path / "base", tmp_path / "adapter", **settings, **kind)
    merge(adapter, tmp_path / "merged", certify=False)
    close(tensors_of(tmp_path / "merged"), by_peft(tmp_path / "base", adapter))


def test_adapters_in_sequence(base, tmp_path):
    adapters = [peft_adapter(base, tmp_path / f"{seed}", seed, use_dora=seed > 1) for seed in range(3)]
    merge(adapters, tmp_path / "merged", certify=False)
    close(tensors_of(tmp_path / "merged"), by_peft(base, *adapters))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_dtypes(base, tmp_path, stored):
    """The delta is added in float32 and the sum cast once; "auto" is the base's own dtype."""
    adapter = peft_adapter(base, tmp_path / "adapter")
    AutoModelForCausalLM.from_pretrained(base, dtype=stored).save_pretrained(tmp_path / "half")
    wanted = by_peft(tmp_path / "half", adapter)
    for dtype in ("auto", "float32", "bfloat16"):
        merge(adapter, tmp_path / dtype, base_model=str(tmp_path / "half"), dtype=dtype, certify=False)
        found = tensors_of(tmp_path / dtype)
        expected = stored if dtype == "auto" else getattr(torch, dtype)
        assert {tensor.dtype for tensor in found.values()} == {expected}
        close(found, wanted, rtol=torch.finfo(expected).eps if expected != torch.float32 else 1e-5)
        config = json.loads((tmp_path / dtype / "config.json").read_text(encoding="utf-8"))
        assert config["dtype"] == str(expected).removeprefix("torch.")
        assert AutoModelForCausalLM.from_pretrained(tmp_path / dtype).dtype == expected


# What is refused


def test_nan_is_named_and_not_kept(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    index = json.loads((base / "model.safetensors.index.json").read_text(encoding="utf-8"))
    path = base / index["weight_map"]["model.norm.weight"]
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        AdapterError, match="'model.norm.weight' of the merged model holds NaN or Inf; .* copy the base"
    ):
        merge(adapter, tmp_path / "merged", certify=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_overflow_is_named(base, tmp_path):
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(tmp_path / "half")
    adapter = peft_adapter(base, tmp_path / "adapter", target_modules=["o_proj"], lora_alpha=10**9)
    with pytest.raises(
        AdapterError, match="o_proj.weight' .*leaves the range of torch.float16: merge with dtype='floa"
    ):
        merge(adapter, tmp_path / "merged", base_model=str(tmp_path / "half"), certify=False)


def test_a_quantised_base(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    quantised = {**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (base / "config.json").write_text(json.dumps(quantised), encoding="utf-8")
    with pytest.raises(ModelError, match="quantised .quantization_config.* Name the full-precision model with base_mo"):
        merge(adapter, tmp_path / "merged", certify=False)
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    path = next(base.glob("*.safetensors"))
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ModelError, match="quantised .torch.int8."):
        merge(adapter, tmp_path / "merged", certify=False)


def test_targets_that_are_not_in_the_base(base, tiny_llama, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    tiny_llama(200, hidden=32, kv_heads=2).save_pretrained(tmp_path / "narrow")
    with pytest.raises(AdapterError, match="does not fit .*narrow': .* other shapes, first"):
        merge(adapter, tmp_path / "merged", base_model=str(tmp_path / "narrow"), certify=False)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}), encoding="utf-8")
    with pytest.raises(AdapterError, match="unexpected keys, first .'base_model.model.model.layers.1."):
        merge(adapter, tmp_path / "merged", certify=False)
    (base / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(AdapterError, match="adapter_config.json does not fit"):
        merge(adapter, tmp_path / "merged", certify=False)


def test_a_base_that_lacks_a_tensor(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    path = base / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    name = "model.layers.0.mlp.up_proj.weight"
    weights = base / index["weight_map"].pop(name)
    save_file({key: tensor for key, tensor in load_file(weights).items() if key != name}, weights)
    with pytest.raises(ModelError, match="lacks 1 of the tensors its index names, first .'model.layers.0.mlp.up_proj"):
        merge(adapter, tmp_path / "merged", certify=False)
    path.write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(AdapterError, match="changes 'model.layers.0.mlp.up_proj.weight' .* has no such tensor"):
        merge(adapter, tmp_path / "merged", certify=False)


def test_pickles(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    torch.save({}, tmp_path / "base" / "pytorch_model.bin")
    merge(adapter, tmp_path / "merged", certify=False)
    assert not (tmp_path / "merged" / "pytorch_model.bin").exists()
    for path in base.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(ModelError, match="holds pytorch_model.bin, a pickle that can run code"):
        merge(adapter, tmp_path / "again", certify=False)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(AdapterError, match="holds adapter_model.bin, a pickle"):
        merge(adapter, tmp_path / "again", base_model=str(tmp_path / "merged"), certify=False)


def test_an_index_that_points_outside(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    path = base / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match="names '../elsewhere.safetensors', which lies outside"):
        merge(adapter, tmp_path / "merged", certify=False)


def test_more_than_lora(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "activated", alora_invocation_tokens=[5])
    with pytest.raises(
        AdapterError, match="is more than LoRA: its adapter_config.json says alora_invocation_tokens=.5."
    ):
        merge(adapter, tmp_path / "merged", certify=False)
    adapter = peft_adapter(base, tmp_path / "pissa", init_lora_weights="pissa")
    with pytest.raises(AdapterError, match="init_lora_weights='pissa', which changes the base"):
        merge(adapter, tmp_path / "merged", certify=False)


def test_a_damaged_file(base, tmp_path):
    adapter = peft_adapter(base, tmp_path / "adapter")
    path = next(base.glob("*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(ModelError, match=f"{path.name}: damaged: .*Copy it again"):
        merge(adapter, tmp_path / "merged", certify=False)
    path.unlink()
    with pytest.raises(ModelError, match=f"{path.name}: is missing"):
        merge(adapter, tmp_path / "merged", certify=False)


# Memory

MEASURE = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from alpaca_lora import merge

def kilobytes(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])

small, large, out = map(Path, sys.argv[1:])
merge(small / "adapter", out / "small", base_model=str(small / "base"), certify=False)  # everything is imported
Path("/proc/self/clear_refs").write_text("5")  # forget the peak
before = kilobytes("VmRSS")
merge(large / "adapter", out / "large", base_model=str(large / "base"), certify=False)
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_memory_is_bounded_by_a_shard(tiny_llama, tmp_path):
    shard = 20_000_000
    for name, hidden in {"small": 64, "large": 1280}.items():
        tiny_llama(2_000, hidden=hidden).save_pretrained(tmp_path / name / "base", max_shard_size="20MB")
        peft_adapter(tmp_path / name / "base", tmp_path / name / "adapter")
    files = [path.stat().st_size for path in (tmp_path / "large" / "base").glob("*.safetensors")]
    assert sum(files) > 7 * shard and max(files) < 1.1 * shard
    arguments = [str(tmp_path / name) for name in ("small", "large", "out")]
    result = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * 1024 < 4 * shard  # what a process keeps mapped differs between machines
    assert len(list((tmp_path / "out" / "large").glob("*.safetensors"))) == len(files)
