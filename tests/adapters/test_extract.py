"""A LoRA out of full fine-tuning: exact where the change has that rank, the best of its rank elsewhere."""

from __future__ import annotations

import json
import math

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from alpaca_lora import extract_lora, load, merge
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AdapterError, ConfigError
from alpaca_lora.models import load as load_module
from alpaca_lora.models.fingerprint import fingerprint
from alpaca_lora.models.lora import quiet_peft
from alpaca_lora.prompts import Template
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile, read_contract


def linear(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.fixture
def pair(tiny_llama, tmp_path):
    """Saves a base with grouped queries, and returns what saves a tuned model: linear weights moved by rank `rank`."""
    model = tiny_llama(200, kv_heads=2)
    model.save_pretrained(tmp_path / "base", max_shard_size="100KB")

    def tune(rank, *, head=0.0, norm=0.0):
        torch.manual_seed(5)
        with torch.no_grad():
            for name, module in linear(model).items():
                if name != "lm_head":
                    rows, columns = module.weight.shape
                    module.weight += 0.01 * torch.randn(rows, rank) @ torch.randn(rank, columns)
            model.lm_head.weight += head * torch.randn_like(model.lm_head.weight)
            model.model.norm.weight += norm
        model.save_pretrained(tmp_path / "tuned")

    return tune


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 17)[None]).logits


def test_a_change_of_that_rank_is_found_whole(pair, tmp_path):
    pair(4)
    found = extract_lora(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", lora_r=4)
    assert len(found.modules) == 14
    assert max(found.modules.values()) < 1e-5 and found.error < 1e-5 and found.modules_error < 1e-5
    assert found.left_out == {}
    report = json.loads((tmp_path / "adapter" / "extraction.json").read_text(encoding="utf-8"))
    assert report["modules"] == found.modules and report["error"] == found.error
    with quiet_peft():
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(tmp_path / "adapter")
        ).eval()
    wanted = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned"))
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-5)
    assert (wanted - logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:.*has no alpaca_lora.json")
def test_the_error_is_the_least_of_its_rank(pair, tmp_path):
    pair(32)
    found = extract_lora(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", lora_r=6)
    merge(tmp_path / "adapter", tmp_path / "merged", certify=False)
    base, tuned, near = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("base", "tuned", "merged")
    )
    lost = kept = 0.0
    for module, error in found.modules.items():
        change = tuned[f"{module}.weight"] - base[f"{module}.weight"]
        sizes = torch.linalg.svdvals(change)
        least = (sizes[6:].norm() / sizes.norm()).item()
        reached = ((tuned[f"{module}.weight"] - near[f"{module}.weight"]).norm() / change.norm()).item()
        assert error == pytest.approx(reached, rel=1e-3)
        assert least * 0.9999 < error < least * 1.001
        lost, kept = lost + (error * sizes.norm().item()) ** 2, kept + sizes.norm().item() ** 2
    assert found.modules_error == found.error == pytest.approx(math.sqrt(lost / kept), rel=1e-5)


def test_what_has_no_lora_is_counted(pair, tmp_path):
    pair(2, head=0.1, norm=1.0)
    found = extract_lora(
        tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", lora_r=2, lora_target_modules=["q_proj", "v_proj"]
    )
    assert {module.rsplit(".", 1)[-1] for module in found.modules} == {"q_proj", "v_proj"}
    assert found.left_out.keys() >= {"lm_head.weight", "model.norm.weight", "model.layers.0.mlp.up_proj.weight"}
    assert found.left_out["model.norm.weight"] == pytest.approx(1.0)
    assert found.modules_error < 1e-5 < 0.9 < found.error < 1


def test_more_rank_than_a_matrix_has(pair, tmp_path):
    pair(40)
    found = extract_lora(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", lora_r=100)
    assert found.error < 1e-5
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {100}


def test_the_same_each_time(pair, tmp_path):
    pair(32)
    state = torch.random.get_rng_state()
    for name in ("a", "b"):
        extract_lora(tmp_path / "base", tmp_path / "tuned", tmp_path / name, lora_r=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_contract_goes_along_and_binds_to_this_base(tiny_base, sentencepiece_tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    with torch.no_grad():
        for module in linear(model.model).values():
            module.weight += 0.1 * torch.randn_like(module.weight)
    model.save_pretrained(tmp_path / "tuned")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "tuned")
    contract = Contract.of(Encoder(sentencepiece_tokenizer, Template.load("alpaca_short")), "a hub id", "of old")
    RunFile(contract).write(tmp_path / "tuned")
    extract_lora(tiny_base, tmp_path / "tuned", tmp_path / "adapter", lora_r=8)
    bound = read_contract(tmp_path / "adapter")
    assert (bound.base_model, bound.base_fingerprint) == (tiny_base, fingerprint(tiny_base))
    assert load(tmp_path / "adapter").encoder.template.name == "alpaca_short"
    merge(tmp_path / "adapter", tmp_path / "merged")


def test_peft_loads_an_extracted_demo_by_itself_and_others_may_read_it(short_base_bpe, tmp_path, monkeypatch):
    monkeypatch.setattr(load_module, "demo_model", lambda: short_base_bpe)
    model = AutoModelForCausalLM.from_pretrained(short_base_bpe)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight += 0.1
    model.save_pretrained(tmp_path / "tuned")
    extract_lora("demo", tmp_path / "tuned", tmp_path / "adapter", lora_r=2)
    with quiet_peft():
        found = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(found), logits(model.eval()), rtol=1e-4, atol=1e-5)
    (tmp_path / "plain").write_text("")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "adapter").iterdir()}
    assert set(modes.values()) == {(tmp_path / "plain").stat().st_mode}, modes


def test_what_is_refused(pair, tiny_llama, tmp_path):
    pair(2)
    paths = tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter"
    with pytest.raises(ConfigError, match="lora_r: 0 must be a whole number of at least 1"):
        extract_lora(*paths, lora_r=0)
    with pytest.raises(
        ConfigError, match="'q_projj' matches no linear module of LlamaForCausalLM. Did you mean 'q_proj'"
    ):
        extract_lora(*paths, lora_target_modules=["q_projj"])
    with pytest.raises(AdapterError, match="no module differs from .*: there is nothing to extract"):
        extract_lora(tmp_path / "base", tmp_path / "base", tmp_path / "adapter")
    tiny_llama(200, hidden=32, kv_heads=2).save_pretrained(tmp_path / "narrow")
    with pytest.raises(
        AdapterError, match="narrow: lacks 14 modules, or has them in another shape, first .'model.layers"
    ):
        extract_lora(tmp_path / "base", tmp_path / "narrow", tmp_path / "adapter")
    broken = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    with torch.no_grad():
        broken.model.norm.weight[0] = math.nan
    broken.save_pretrained(tmp_path / "tuned")
    with pytest.raises(AdapterError, match="'model.norm.weight' holds NaN or Inf"):
        extract_lora(*paths)
    assert not (tmp_path / "adapter").exists()
