"""Weight diffs: the tuned model comes back bit for bit, or a tensor is named."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alpaca_lora import Verified, diff_apply, diff_make, diff_verify
from alpaca_lora.errors import AdapterError, ModelError
from alpaca_lora.models.shards import Shards, sha256_of

INDEX = "model.safetensors.index.json"


def tuned_from(model, folder, *, rows=0, std=0.01, **settings):
    """A model a little (or, with a large std, much) away from `model`, with rows added to its vocabulary."""
    torch.manual_seed(7)
    if rows:
        model.resize_token_embeddings(model.config.vocab_size + rows, mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += std * torch.randn_like(parameter)
    model.save_pretrained(folder, **settings)
    (folder / "tokenizer_config.json").write_text('{"a": "b"}', encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(b"\0\1")
    (folder / "training.log").write_text("private", encoding="utf-8")
    torch.save({}, folder / "pytorch_model.bin")
    return folder


def bits(folder):
    shards = Shards(folder)
    return {name: (entry, sha256_of(shards.read(name))) for name, entry in shards.entries.items()}


@pytest.fixture
def folders(tiny_llama, tmp_path):
    """A base in shards, a tuned model with one more token in other shards, and their difference."""
    model = tiny_llama(200, kv_heads=2)
    model.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    tuned_from(model, tmp_path / "tuned", rows=1, max_shard_size="60KB")
    assert diff_make(tmp_path / "base", tmp_path / "tuned", tmp_path / "diff") == tmp_path / "diff"
    return tmp_path


def flip(path, name):
    """Flips one bit in the middle of a tensor."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    flat = tensors[name].flatten().view(torch.uint8)
    flat[len(flat) // 2] ^= 4
    save_file(tensors, path, metadata=metadata)


def file_of(folder, name, prefix=""):
    return folder / f"{prefix}{json.loads((folder / INDEX).read_text(encoding='utf-8'))['weight_map'][name]}"


def test_the_tuned_model_comes_back_bit_for_bit(folders):
    assert diff_apply(folders / "diff", folders / "base", folders / "result") == folders / "result"
    assert bits(folders / "result") == bits(folders / "tuned")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.model"):
        assert (folders / "result" / name).read_bytes() == (folders / "tuned" / name).read_bytes()
    names = {path.name for path in (folders / "tuned").iterdir()} - {"training.log", "pytorch_model.bin"}
    assert {path.name for path in (folders / "result").iterdir()} == names
    found = json.loads((folders / "result" / INDEX).read_text(encoding="utf-8"))["weight_map"]
    assert found == json.loads((folders / "tuned" / INDEX).read_text(encoding="utf-8"))["weight_map"]
    model = AutoModelForCausalLM.from_pretrained(folders / "result")
    assert model.config.vocab_size == 201
    counts = diff_verify(folders / "diff", folders / "base", folders / "result")
    assert counts == Verified(21, 21, 21)
    assert str(counts) == "As they were: 21 tensors of the diff, 21 tensors of the base, 21 tensors of the result."
    assert diff_verify(folders / "diff") == Verified(21)


def test_the_difference_alone_is_no_model(folders):
    names = {path.name for path in (folders / "diff").iterdir()}
    assert "config.json" not in names and not any(name.startswith("model") for name in names)
    content = json.loads((folders / "diff" / "diff.json").read_text(encoding="utf-8"))["content"]
    entry = content["tensors"]["model.embed_tokens.weight"]
    assert entry["shape"] == [201, 64] and entry["dtype"] == "F32"
    stored = load_file(folders / "diff" / f"diff.{entry['file']}")["model.embed_tokens.weight"]
    tuned = load_file(folders / "tuned" / entry["file"])["model.embed_tokens.weight"].view(torch.int32)
    base = Shards(folders / "base").read("model.embed_tokens.weight").view(torch.int32)
    assert torch.equal(stored[200], tuned[200])  # the added row is stored whole
    assert torch.equal(stored[:200], tuned[:200] ^ base)


@pytest.mark.parametrize("std", [0.0, 1e-9, 1e6])
def test_any_size_of_change(tiny_llama, tmp_path, std):
    """Where subtraction would lose the small beside the large."""
    model = tiny_llama(64, tie=True)
    model.save_pretrained(tmp_path / "base")
    tuned_from(model, tmp_path / "tuned", std=std)
    diff_make(tmp_path / "base", tmp_path / "tuned", tmp_path / "diff")
    diff_apply(tmp_path / "diff", tmp_path / "base", tmp_path / "result")
    assert bits(tmp_path / "result") == bits(tmp_path / "tuned")
    assert "lm_head.weight" not in bits(tmp_path / "result")  # tied, as it was


def test_odd_bits_come_back_too(tmp_path, tiny_llama):
    """NaN with a payload, both zeros, integers, booleans, scalars, tensors of one side only, fewer rows."""
    tiny_llama(64).save_pretrained(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "tuned")
    odd = torch.tensor([0x7FC00123, -2147483648, 0, 0x7F800000], dtype=torch.int32).view(torch.float32)
    ours = {
        "odd": odd,
        "half": torch.randn(3, 2).bfloat16(),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "rows": torch.randn(2, 3).double(),
        "new": torch.randn(4).half(),
        "empty": torch.zeros(0, 3),
    }
    theirs = {**ours, "odd": -odd, "half": torch.randn(3, 2).bfloat16(), "count": torch.tensor(-1)}
    theirs = {**theirs, "rows": torch.randn(5, 3).double(), "old": torch.ones(2)}
    del theirs["new"]
    save_file(theirs, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    save_file(ours, tmp_path / "tuned" / "model.safetensors", metadata={"format": "pt"})
    diff_make(tmp_path / "base", tmp_path / "tuned", tmp_path / "diff")
    diff_apply(tmp_path / "diff", tmp_path / "base", tmp_path / "result")
    assert bits(tmp_path / "result") == bits(tmp_path / "tuned")


def test_a_base_in_another_dtype(tiny_llama, tmp_path):
    model = tiny_llama(64)
    model.save_pretrained(tmp_path / "base")
    tuned_from(model.bfloat16(), tmp_path / "tuned")
    diff_make(tmp_path / "base", tmp_path / "tuned", tmp_path / "diff")
    diff_apply(tmp_path / "diff", tmp_path / "base", tmp_path / "result")
    assert bits(tmp_path / "result") == bits(tmp_path / "tuned")


# One flipped bit


NAME = "model.layers.1.mlp.up_proj.weight"


def test_in_the_base(folders):
    flip(file_of(folders / "base", NAME), NAME)
    with pytest.raises(AdapterError, match=f"base: '{NAME}' of the base is not the one the difference was made with"):
        diff_apply(folders / "diff", folders / "base", folders / "result")
    assert not (folders / "result").exists()
    with pytest.raises(AdapterError, match=f"base .base.: 1 tensor, first .'{NAME}'"):
        diff_verify(folders / "diff", folders / "base")


def test_in_the_difference(folders):
    file = json.loads((folders / "tuned" / INDEX).read_text(encoding="utf-8"))["weight_map"][NAME]
    flip(folders / "diff" / f"diff.{file}", NAME)
    with pytest.raises(AdapterError, match=f"diff: '{NAME}' of the difference is not the one"):
        diff_apply(folders / "diff", folders / "base", folders / "result")
    assert sorted(path.name for path in folders.iterdir()) == ["base", "diff", "tuned"]
    with pytest.raises(AdapterError, match=f"diff .diff.: 1 tensor, first .'{NAME}'"):
        diff_verify(folders / "diff")


def test_in_the_result(folders):
    diff_apply(folders / "diff", folders / "base", folders / "result")
    flip(file_of(folders / "result", NAME), NAME)
    with pytest.raises(AdapterError, match=f"result .result.: 1 tensor, first .'{NAME}'"):
        diff_verify(folders / "diff", result=folders / "result")


def test_in_a_file_that_travels(folders):
    (folders / "diff" / "files" / "tokenizer.model").write_bytes(b"\0\3")
    with pytest.raises(AdapterError, match="tokenizer.model: is not the file the difference was made with"):
        diff_apply(folders / "diff", folders / "base", folders / "result")
    assert not (folders / "result").exists()


def test_in_the_manifest(folders):
    path = folders / "diff" / "diff.json"
    text = path.read_text(encoding="utf-8")
    for damaged in (text[:-9], text.replace('"shape": [\n     64', '"shape": [\n     65', 1), "[]", '{"content": {}}'):
        assert damaged != text
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(AdapterError, match="diff.json: damaged: .* Copy the folder again"):
            diff_apply(folders / "diff", folders / "base", folders / "result")
    path.unlink()
    with pytest.raises(AdapterError, match="has no diff.json. Give the folder that `alpaca-lora diff make` wrote"):
        diff_verify(folders / "diff")


# Pairs that do not belong together, folders that do not hold what they say


@pytest.mark.parametrize(("field", "value"), [("file", "../x.safetensors"), ("files", "../x.json")])
def test_a_manifest_that_points_outside(folders, field, value):
    from alpaca_lora.files import sha256_of_json

    path = folders / "diff" / "diff.json"
    content = json.loads(path.read_text(encoding="utf-8"))["content"]
    if field == "file":
        content["tensors"][NAME]["file"] = value
    else:
        content["files"][value] = ""
    path.write_text(json.dumps({"content": content, "sha256": sha256_of_json(content)}), encoding="utf-8")
    with pytest.raises(ModelError, match=f"names '{value}', which lies outside the folder; refused"):
        diff_apply(folders / "diff", folders / "base", folders / "result")


def test_another_architecture(folders, tiny_llama):
    tiny_llama(200, hidden=32, kv_heads=2).save_pretrained(folders / "narrow")
    with pytest.raises(
        AdapterError, match=r"'lm_head.weight' is \(201, 64\), the base's \(200, 32\); only the number of"
    ):
        diff_make(folders / "narrow", folders / "tuned", folders / "out")
    config = json.loads((folders / "narrow" / "config.json").read_text(encoding="utf-8"))
    other = {**config, "architectures": ["MistralForCausalLM"]}
    (folders / "narrow" / "config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(AdapterError, match="tuned: is a .'LlamaForCausalLM'., the base a .'MistralForCausalLM'."):
        diff_make(folders / "narrow", folders / "tuned", folders / "out")
    assert not (folders / "out").exists()


def test_another_base(folders, tiny_llama):
    tiny_llama(200, kv_heads=2, seed=1).save_pretrained(folders / "other")
    with pytest.raises(AdapterError, match="other: '.*' of the base is not the one the difference was made with"):
        diff_apply(folders / "diff", folders / "other", folders / "result")
    assert not (folders / "result").exists()


def test_folders(folders):
    with pytest.raises(AdapterError, match="tuned: exists and is not an empty folder"):
        diff_apply(folders / "diff", folders / "base", folders / "tuned")
    with pytest.raises(ModelError, match="no such folder"):
        diff_make(folders / "nowhere", folders / "tuned", folders / "out")
    next((folders / "diff").glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match="diff.model-.*: is missing"):
        diff_verify(folders / "diff")
