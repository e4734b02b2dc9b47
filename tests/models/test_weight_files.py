"""A model's safetensors files and the JSON beside them: one sentence for whatever is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from alpaca_lora import finetune, load, merge
from alpaca_lora.config import FinetuneConfig
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AlpacaLoraError, ModelError
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.models.load import Placement, load_config, load_model, load_tokenizer, resolve_base
from alpaca_lora.models.weight_files import stored_tensors, weight_map
from alpaca_lora.prompts import Template

FLOAT32 = Placement(torch.device("cpu"), torch.float32)


@pytest.fixture
def base(short_base: str, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(short_base, tmp_path / "base"))


def edit(path, **values):
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 1_000 and text.endswith(".")
    return text


def test_what_is_stored(base):
    found = stored_tensors(str(base))
    assert found["model.norm.weight"] == ("F32", (32,))
    assert len(found) == 21


def header(base, change):
    """The weights' file with another header."""
    path = base / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    text = change(content[8 : 8 + size].decode()).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


@pytest.mark.parametrize(
    "damage",
    [
        lambda base: (base / "model.safetensors").write_bytes(b""),
        lambda base: (base / "model.safetensors").write_bytes(b"\xff" * 8),
        lambda base: (base / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0[]"),
        lambda base: header(base, lambda text: text[:-9]),
        lambda base: header(base, lambda text: text.replace("F32", "F16")),
        lambda base: header(base, lambda text: text.replace("F32", "F33")),
        lambda base: header(base, lambda text: text.replace("[32]", "[-32]")),
        lambda base: header(base, lambda text: text.replace("[32]", "[4294967296]")),
        lambda base: header(base, lambda text: text.replace("[32]", "[16]", 1)),
        lambda base: header(base, lambda text: text.replace("model.norm.weight", "x" * 300)),
        lambda base: header(base, lambda text: text.replace("[64,32]", "[32,64]")),
    ],
    ids=["empty", "length", "list", "cut", "dtype", "unknown", "negative", "huge", "half", "renamed", "turned"],
)
def test_a_header_that_lies(base, damage):
    damage(base)
    with pytest.raises(ModelError, match="^base_model: .*base.* Copy the model again") as caught:
        load_model(resolve_base(str(base)), FLOAT32)
    one_sentence(caught)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "which is no file name"),
        ("a\0b", "which is no file name"),
        ("", "which is no file name"),
        ("/dev/zero", "which lies outside the model's folder; refused."),
        ("gone.safetensors", "it lacks gone.safetensors. Copy the model again."),
        ("pipe.safetensors", "it lacks pipe.safetensors. Copy the model again."),
    ],
)
def test_an_index_that_names_what_is_no_file(base, name, reason):
    os.mkfifo(base / "pipe.safetensors")
    (base / "model.safetensors").rename(base / "model-1.safetensors")
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_model(resolve_base(str(base)), FLOAT32)
    assert reason in one_sentence(caught)


def test_an_index(base):
    path = base / "model.safetensors.index.json"
    path.write_text('{"metadata": {}, "weight_map": {"a": "b.safetensors"}}', encoding="utf-8")
    assert weight_map(path) == {"a": "b.safetensors"}


ODD = ("x", -1, 0, 2.5, None, [], {}, True, 10**30, float("nan"), "x" * 300)


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "hidden_act", "rope_parameters", "model_type"])
def test_a_config_with_odd_values(base, key):
    """Some are read as the default, and load; none ends in transformers' own exception."""
    told = 0
    for value in ODD:
        edit(base / "config.json", **{key: value})
        try:
            load_model(resolve_base(str(base)), FLOAT32)
        except ModelError as error:
            assert str(base) in str(error) and "\n" not in str(error)
            told += 1
    assert told >= 6


@pytest.mark.parametrize(
    ("file", "values", "use"),
    [
        ("config.json", {"num_hidden_layers": "2"}, load_config),
        ("generation_config.json", {"early_stopping": "x"}, lambda base: load_model(base, FLOAT32)),
        ("tokenizer_config.json", {"model_max_length": "long"}, load_tokenizer),
        ("tokenizer_config.json", {"added_tokens_decoder": 5}, load_tokenizer),
        ("tokenizer.json", {"model": {"type": "Cabbage"}}, load_tokenizer),
        ("tokenizer.json", {"model": 3}, load_tokenizer),
    ],
)
def test_transformers_own_exceptions_name_the_file(base, file, values, use):
    edit(base / file, **values)
    with pytest.raises(ModelError, match=f"^{base}/[a-z_]+.json: transformers cannot use it: .*Copy the model again."):
        use(str(base))


def test_a_panic_of_tokenizers_is_told(base):
    """It is no Exception, so that nothing but this would catch it."""
    edit(base / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    load_tokenizer(str(base))
    content = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["continuing_subword_prefix"] = "x" * 13
    edit(base / "tokenizer.json", **content)
    with pytest.raises(ModelError, match=f"^{base}/tokenizer.json: transformers cannot use it: range .*Copy the model"):
        load_tokenizer(str(base))


def test_files_that_are_none(base):
    for file, use in (("tokenizer_config.json", load_tokenizer), ("config.json", load_config)):
        (base / file).unlink()
        os.mkfifo(base / file)
        with pytest.raises(ModelError) as caught:
            use(str(base))
        assert str(caught.value) == f"{base / file}: is a pipe or a device, not a file. Copy the model again."


def test_a_token_with_an_id_far_too_high(base):
    """tokenizers writes out every id below, which takes minutes."""
    content = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["▁the"] = 2**31
    edit(base / "tokenizer.json", **content)
    encoder = Encoder(load_tokenizer(str(base)), Template.load("alpaca"))
    with pytest.raises(ModelError, match="has 4,000 tokens, and one of them has the id 2,147,483,648: its tok"):
        assert encoder.fingerprint


def test_a_token_that_the_model_has_no_row_for(base):
    """On a GPU nothing would work after it."""
    model = load(base)
    assert model.begin([1, 3_999], Sampling()).prompt == [1, 3_999]
    with pytest.raises(ModelError, match="the tokenizer gives id 4000, and the model knows 4000 ids only"):
        model.begin([1, 4_000], Sampling())


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300, "a\0b", "\ud800"], ids=["long", "folder", "nul", "half"])
@pytest.mark.parametrize(
    "use",
    [
        load,
        Template.load,
        FinetuneConfig.make,
        lambda name: merge(name, "never"),
        lambda name: finetune(base_model="demo", data=name, output_dir="never"),
        lambda name: finetune(base_model=name, data="seeds", output_dir="never"),
        lambda name: finetune(base_model="demo", data="seeds", output_dir=name),
    ],
    ids=["load", "template", "recipe", "merge", "data", "base", "output_dir"],
)
def test_names_that_no_file_can_have(tmp_path, monkeypatch, use, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AlpacaLoraError):
        use(name)
