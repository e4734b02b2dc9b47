"""Merging: a plain transformers folder that answers as base + adapter did."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca_lora import finetune, load, merge
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AdapterError, ConfigError
from alpaca_lora.generation.loading import load_local
from alpaca_lora.generation.prompt_format import BASE
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.models.fingerprint import fingerprint
from alpaca_lora.models.load import Placement, load_model, resolve_base
from alpaca_lora.models.lora import add_lora
from alpaca_lora.prompts import Template
from alpaca_lora.runs.adapter_files import save_adapter
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile, read_contract
from alpaca_lora.runs.whole_model import CERTIFICATE

INSTRUCTIONS = (
    ("Name three primary colours.", ""),
    ("Give a synonym of 'quick'.", ""),
    ("What is the capital of France?", ""),
    ("Translate into German.", "Good morning, my friend!"),
    ("Write a haiku about rain.", ""),
    ("Is this a fruit or a vegetable?", "carrot"),
    ("Add the numbers.", "2, 3 and 10"),
    ("Write a Python function that returns the square of a number.", ""),
    ("Why is the sky blue?", ""),
    ("Summarise in one sentence.", "The cat slept all day, and at night it went out to hunt mice in the barn."),
)


def adapter_of(base, tokenizer, folder, *, std, template="alpaca", seed=3, **settings):
    """Saves an adapter with random B matrices, as a run would, without training it."""
    model = load_model(resolve_base(base), Placement(torch.device("cpu"), torch.float32))
    encoder = Encoder(tokenizer, Template.load(template))
    contract = Contract.of(encoder, base, fingerprint(resolve_base(base)), model.config)
    torch.manual_seed(seed)
    model = add_lora(model, **{"r": 8, "alpha": 16, "dropout": 0.0, "targets": "all-linear", **settings})
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.normal_(std=std)
    save_adapter(model, folder)
    tokenizer.save_pretrained(folder)
    RunFile(contract).write(folder)
    return folder


@pytest.fixture(scope="module")
def short_tokenizer(short_tokenizers):
    return short_tokenizers["sentencepiece"]


@pytest.fixture(scope="module")
def adapter(short_base, short_tokenizer, tmp_path_factory):
    return adapter_of(short_base, short_tokenizer, tmp_path_factory.mktemp("adapter"), std=0.05)


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize("base", ["short_base", "short_base_bpe"])
def test_a_merged_folder_is_the_adapter_on_its_base(request, short_tokenizers, tmp_path, base, kind):
    folder = request.getfixturevalue(base)
    tokenizer = short_tokenizers["sentencepiece" if base == "short_base" else "bpe"]
    adapter = adapter_of(folder, tokenizer, tmp_path / "adapter", std=0.05, template="alpaca_short", **kind)
    assert merge(adapter, tmp_path / "merged").folder == tmp_path / "merged"

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", use_safetensors=True)
    assert type(merged).__name__ == "LlamaForCausalLM"
    assert [name for name, _ in merged.named_parameters() if "lora" in name] == []
    ids = AutoTokenizer.from_pretrained(tmp_path / "merged")("A cat sat on a mat.", return_tensors="pt").input_ids
    unmerged = load_local(adapter, dtype="float32").model.cpu()
    with torch.no_grad():
        difference = (merged(ids).logits - unmerged(ids).logits).abs().max().item()
        moved = (merged(ids).logits - AutoModelForCausalLM.from_pretrained(folder)(ids).logits).abs().max().item()
    assert difference < 1e-4
    assert moved > 1e-2  # the adapter does something

    certificate = json.loads((tmp_path / "merged" / CERTIFICATE).read_text(encoding="utf-8"))
    assert certificate["base"] == {"name": folder, "fingerprint": fingerprint(folder)}
    assert certificate["merged"] == {"fingerprint": fingerprint(str(tmp_path / "merged")), "dtype": "float32"}
    assert certificate["tensors"]["changed"] == 14
    assert (
        certificate["tensors"]["finite"]
        == certificate["tensors"]["all"]
        == len(merged.state_dict())
        - (
            base == "short_base_bpe"  # tied: the head is not stored
        )
    )
    weights = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert certificate["adapters"][0]["sha256"]["adapter_model.safetensors"] == weights
    assert 0 < certificate["logits"]["mean_difference"] <= certificate["logits"]["max_difference"] < 1e-4
    assert certificate["logits"]["probes"] == certificate["logits"]["same_greedy_answers"] == 20
    assert certificate["versions"]["peft"]

    content = json.loads((tmp_path / "merged" / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["merge"]["max_logit_difference"] < 1e-4
    assert content["merge"]["dtype"] == "torch.float32"
    assert read_contract(tmp_path / "merged") == read_contract(adapter)
    names = {entry.name for entry in (tmp_path / "merged").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"} <= names
    assert not any(name.startswith("adapter") for name in names)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "merged"]  # no scratch folder is left


def test_a_merged_folder_keeps_template_and_stops_and_trains_on(adapter, records, tmp_path):
    merged = load(merge(adapter, tmp_path / "merged"))
    assert merged.contract == read_contract(adapter)
    assert merged.generate("Name a cat.", sampling=Sampling(max_new_tokens=8)) == load(adapter).generate(
        "Name a cat.", sampling=Sampling(max_new_tokens=8)
    )
    rows = [record._asdict() for record in records]
    run = finetune(base_model=tmp_path / "merged", data=rows, output_dir=tmp_path / "out", batch_size=4, max_steps=1)
    assert run.metrics["steps"] == 1


def test_the_merged_model_loads_without_peft(adapter, tmp_path, monkeypatch):
    merge(adapter, tmp_path / "merged")
    for name in [name for name in sys.modules if name == "peft" or name.startswith("peft.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_an_empty_folder_may_be_there(adapter, tmp_path):
    (tmp_path / "merged").mkdir()
    merge(adapter, str(tmp_path / "merged"))
    assert (tmp_path / "merged" / "config.json").exists()


def test_folders_that_cannot_be_written(adapter, tmp_path):
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "diary.txt").write_text("dear", encoding="utf-8")
    file.write_text("x", encoding="utf-8")
    for out in (full, file):
        with pytest.raises(AdapterError, match=f"{out}: exists and is not an empty folder; name a new one"):
            merge(adapter, out)
    with pytest.raises(AdapterError, match=f"{file}/merged: cannot be written: "):
        merge(adapter, file / "merged")
    assert (full / "diary.txt").read_text(encoding="utf-8") == "dear"


def test_only_adapters_are_merged(short_base, tmp_path):
    with pytest.raises(AdapterError, match="is not an adapter folder .no adapter_config.json"):
        merge(short_base, tmp_path / "merged")
    with pytest.raises(AdapterError, match="nowhere: is not an adapter folder"):
        merge(tmp_path / "nowhere", tmp_path / "merged")


def test_a_merge_that_would_differ_is_not_kept(tiny_llama, short_tokenizer, tmp_path):
    """Updates that cancel a huge matrix of the base leave nothing but rounding errors, and others when merged."""
    torch.manual_seed(0)
    base, huge = tiny_llama(len(short_tokenizer), hidden=32), {}
    with torch.no_grad():
        for name, matrix in base.named_parameters():
            if name.endswith("v_proj.weight"):
                huge[name.removesuffix(".weight")] = torch.randn(4, 32) * 1e3, torch.randn(32, 4) * 1e3
                matrix += huge[name.removesuffix(".weight")][1] @ huge[name.removesuffix(".weight")][0]
    base.save_pretrained(tmp_path / "base")
    short_tokenizer.save_pretrained(tmp_path / "base")
    settings = {"r": 4, "alpha": 4, "targets": ["v_proj"]}
    adapter_of(str(tmp_path / "base"), short_tokenizer, tmp_path / "adapter", std=0.05, **settings)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    for name, (down, up) in huge.items():
        tensors[f"base_model.model.{name}.lora_A.weight"].copy_(down)
        tensors[f"base_model.model.{name}.lora_B.weight"].copy_(-up)
    save_file(tensors, path)
    with pytest.raises(
        AdapterError, match="logits differ by .*, more than the 0.0001 that rounding explains; not kept"
    ):
        merge(tmp_path / "adapter", tmp_path / "merged")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base"]


def test_bfloat16_has_its_own_limit(adapter, tmp_path):
    merge(adapter, tmp_path / "merged", dtype="bfloat16")
    certificate = json.loads((tmp_path / "merged" / CERTIFICATE).read_text(encoding="utf-8"))
    assert certificate["merged"]["dtype"] == "bfloat16"
    assert 1e-5 < certificate["logits"]["max_difference"] < certificate["logits"]["limit"] == 2e-2
    content = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert content["dtype"] == "bfloat16"
    assert load(tmp_path / "merged").contract == read_contract(adapter)


def test_without_a_certificate_nothing_is_compared(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr("alpaca_lora.adapters.certificate.load_model", None)
    merge(adapter, tmp_path / "merged", certify=False)
    certificate = json.loads((tmp_path / "merged" / CERTIFICATE).read_text(encoding="utf-8"))
    assert certificate["logits"] == "not compared (certify=False)"
    assert certificate["tensors"]["finite"] == certificate["tensors"]["all"]
    assert "max_logit_difference" not in (tmp_path / "merged" / "alpaca_lora.json").read_text(encoding="utf-8")


def test_a_model_too_large_to_compare_is_said_before_merging(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(AdapterError, match="certify: .* about 0.0 GB, and 0.0 GB are free. Merge with certify=False"):
        merge(adapter, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
    merge(adapter, tmp_path / "merged", certify=False)


def test_several_adapters_in_sequence(short_base, short_tokenizer, tmp_path):
    """Each changes what the one before it left: as merging the first, then the second into the outcome."""
    made = [
        adapter_of(short_base, short_tokenizer, tmp_path / name, std=0.05, use_dora=name == "b", seed=seed)
        for seed, name in enumerate("ab")
    ]
    merge(made, tmp_path / "both")
    certificate = json.loads((tmp_path / "both" / CERTIFICATE).read_text(encoding="utf-8"))
    assert [entry["name"] for entry in certificate["adapters"]] == ["a", "b"]
    merge(made[0], tmp_path / "first", certify=False)
    with pytest.raises(AdapterError, match=f"{made[1]}: this adapter was trained on another base"):
        merge(made[1], tmp_path / "second", base_model=str(tmp_path / "first"), certify=False)
    (made[1] / "alpaca_lora.json").unlink()
    with pytest.warns(UserWarning, match="cannot be checked whether this is the base it was trained on"):
        merge(made[1], tmp_path / "second", base_model=str(tmp_path / "first"), certify=False)
    found, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("both", "second"))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("again", ["the folder", "its path", "a copy"])
def test_one_adapter_is_not_added_twice(adapter, tmp_path, again):
    if again == "a copy":
        shutil.copytree(adapter, tmp_path / "copy")
    other = {"the folder": adapter, "its path": f"{adapter}/../{adapter.name}", "a copy": tmp_path / "copy"}[again]
    with pytest.raises(AdapterError, match=f"{other}: holds the same weights as {adapter}, .* Name it once."):
        merge(adapter, tmp_path / "merged", also=other, certify=False)
    assert not (tmp_path / "merged").exists()


def test_a_merged_folder_without_its_contract_says_so(adapter, tmp_path):
    merge(adapter, tmp_path / "merged", certify=False)
    (tmp_path / "merged" / "alpaca_lora.json").unlink()
    with pytest.warns(UserWarning, match="merged: has no alpaca_lora.json.*template 'alpaca' is assumed.*Copy"):
        assert load(tmp_path / "merged").contract is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "merged", prompt_template="alpaca_short")


def test_the_merged_tensors_of_another_base_are_not_made(adapter, tiny_llama, short_tokenizer, tmp_path):
    tiny_llama(len(short_tokenizer), hidden=32, seed=1).save_pretrained(tmp_path / "other")
    short_tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError, match="this adapter was trained on another base"):
        merge(adapter, tmp_path / "merged", base_model=str(tmp_path / "other"), certify=False)
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_merged_and_unmerged_give_the_same_answers(demo_base, bpe_tokenizer, tmp_path):
    adapter = adapter_of("demo", bpe_tokenizer, tmp_path / "adapter", std=0.05)
    merge(adapter, tmp_path / "merged", certify=False)  # which would compare the two models once more
    unmerged, merged = (load_local(path, dtype="float32") for path in (adapter, tmp_path / "merged"))
    asked, sampling = INSTRUCTIONS[:5], Sampling(max_new_tokens=6)
    answers = unmerged.answers(asked, sampling)
    assert answers == merged.answers(asked, sampling)
    assert answers != unmerged.answers(asked, sampling, BASE)  # the adapter does something


@pytest.mark.parametrize("dtype", ["int8", "bf16", "float16"])
def test_a_dtype_that_is_none_of_the_choices(tmp_path, dtype):
    with pytest.raises(ConfigError, match=f"dtype: '{dtype}' must be auto, float32 or bfloat16."):
        merge("anything", tmp_path / "out", dtype=dtype, certify=False)
