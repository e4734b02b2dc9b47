"""The contract: an adapter is used with the base, tokenizer and template it was trained with, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alpaca_lora import finetune, load
from alpaca_lora.adapters.contract import NAME, Contract, read_contract, write_run_file
from alpaca_lora.errors import AdapterError


@pytest.fixture(scope="module")
def trained(tiny_base, records, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "adapter"
    rows = [record._asdict() for record in records]
    quick = {"val_set_size": 0, "batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "dtype": "float32"}
    template = {"prompt_template": "alpaca_short"}
    return finetune(base_model=tiny_base, data=rows, output_dir=out, **quick, **template).adapter_dir


@pytest.fixture
def adapter(trained, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(trained, tmp_path / "adapter", ignore=shutil.ignore_patterns("checkpoints")))


def edit(folder, **values):
    content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    content["contract"].update(values)
    (folder / NAME).write_text(json.dumps(content), encoding="utf-8")


def test_what_was_written_is_read(trained, tmp_path):
    contract = read_contract(trained)
    assert isinstance(contract, Contract)
    write_run_file(tmp_path, contract, metrics={})
    assert read_contract(tmp_path) == contract
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_the_adapter_answers_with_its_own_template(adapter, tiny_base):
    model = load(adapter)
    assert model.encoder.template.name == "alpaca_short"
    assert model.encoder.template == read_contract(adapter).load_template()
    assert model.stop_ids == [2]
    assert load(adapter, prompt_template="alpaca").encoder.template.name == "alpaca"


def test_an_adapter_moves_with_its_base(adapter, tiny_base, tmp_path):
    moved = shutil.copytree(tiny_base, tmp_path / "moved")
    edit(adapter, base_model=str(tmp_path / "gone"))
    with pytest.raises(Exception, match="no such folder"):
        load(adapter)
    assert load(adapter, base_model=str(moved)).contract.base_model == str(tmp_path / "gone")


def test_another_tokenizer(adapter, bpe_tokenizer):
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        (adapter / name).unlink(missing_ok=True)
    bpe_tokenizer.save_pretrained(adapter)
    with pytest.raises(AdapterError, match="the tokenizer is not the one this adapter was trained with"):
        load(adapter)


def test_other_special_ids(adapter):
    path = adapter / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "eos_token": "<s>"}), encoding="utf-8")
    with (
        pytest.warns(UserWarning, match="eos_token_id: the tokenizer says 1"),
        pytest.raises(AdapterError, match="vocabulary or special ids differ. Use the tokenizer files saved beside"),
    ):
        load(adapter)


def test_another_base_of_the_same_shape(adapter, tiny_llama, sentencepiece_tokenizer, tmp_path):
    tiny_llama(32_000, hidden=32, seed=1).save_pretrained(tmp_path / "other")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError) as caught:
        load(adapter, base_model=str(tmp_path / "other"))
    contract = read_contract(adapter)
    assert f"{adapter}: this adapter was trained on another base: it wants {contract.base_model!r}" in str(caught.value)
    assert f"(fingerprint {contract.base_fingerprint[:12]}), not one with fingerprint" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "\xff", '{"contract": 3}', '{"contract": {"base_model": "demo"}}'],
)
def test_a_damaged_file(adapter, text):
    (adapter / NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(AdapterError, match="alpaca_lora.json: damaged: .* Copy the folder again from"):
        load(adapter)


@pytest.mark.parametrize(
    "values", [{"template": "alpaca"}, {"stop_ids": "</s>"}, {"eos_id": None}, {"base_model": 3}, {"prefix_ids": ["1"]}]
)
def test_a_value_of_the_wrong_type(adapter, values):
    edit(adapter, **values)
    with pytest.raises(AdapterError, match=f"alpaca_lora.json: damaged: .*{next(iter(values))}"):
        load(adapter)


def test_a_template_may_not_reach_into_objects(adapter):
    template = read_contract(adapter).template
    edit(adapter, template={**template, "prompt_no_input": "{instruction.__class__}"})
    with pytest.raises(Exception, match="only the bare"):
        load(adapter)


def test_an_adapter_of_another_tool_has_no_contract_and_loads(adapter, tiny_base):
    (adapter / NAME).unlink()
    model = load(adapter)
    assert model.contract is None
    assert model.encoder.template.name == "alpaca"
    assert model.stop_ids == [2]
    assert isinstance(model.generate("Name a cat."), str)


def test_an_adapter_that_names_no_base(adapter, tiny_base):
    (adapter / NAME).unlink()
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}), encoding="utf-8")
    with pytest.raises(AdapterError, match="names no base model; give base_model"):
        load(adapter)
    assert load(adapter, base_model=tiny_base).contract is None


def test_a_damaged_adapter_config_without_contract(adapter):
    (adapter / NAME).unlink()
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(AdapterError, match="adapter_config.json: damaged"):
        load(adapter)
