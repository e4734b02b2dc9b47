"""The contract: an adapter is used with the base, tokenizer and template it was trained with, or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from alpaca_lora import cli, finetune, load, merge
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AdapterError
from alpaca_lora.models.fingerprint import fingerprint
from alpaca_lora.models.load import load_config
from alpaca_lora.prompts import Template
from alpaca_lora.runs.adapter_files import WEIGHTS
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RUN_FILE, RunFile, read_contract


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
    """Another contract, as a version of before contracts were hashed could have written it."""
    content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    content["contract"].update(values)
    content.pop("contract_sha256")
    (folder / RUN_FILE).write_text(json.dumps(content), encoding="utf-8")


def test_what_was_written_is_read(trained, tmp_path):
    contract = read_contract(trained)
    assert isinstance(contract, Contract)
    RunFile(contract).write(tmp_path)
    assert read_contract(tmp_path) == contract
    assert [entry.name for entry in tmp_path.iterdir()] == [RUN_FILE]


def test_the_adapter_answers_with_its_own_template(adapter, tiny_base):
    model = load(adapter)
    assert model.encoder.template.name == "alpaca_short"
    assert model.encoder.template == read_contract(adapter).load_template()
    assert model.stop_ids == [2]


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
    with pytest.raises(AdapterError, match="the tokenizer is not the one trained with") as caught:
        load(adapter)
    assert "nothing uses them together" in str(caught.value)  # it has more ids than the base knows


@pytest.mark.filterwarnings("ignore:eos_token_id. the tokenizer says 1")
def test_other_special_ids(adapter):
    path = adapter / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "eos_token": "<s>"}), encoding="utf-8")
    with pytest.raises(AdapterError, match="vocabulary or special ids differ. Use the tokenizer files saved beside"):
        load(adapter)


def test_another_base_of_the_same_shape(adapter, tiny_llama, sentencepiece_tokenizer, tmp_path):
    tiny_llama(32_000, hidden=32, seed=1).save_pretrained(tmp_path / "other")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError) as caught:
        load(adapter, base_model=str(tmp_path / "other"))
    contract = read_contract(adapter)
    assert f"{adapter}: this adapter was trained on another base: it wants {contract.base_model!r}" in str(caught.value)
    assert f"(fingerprint {contract.base_fingerprint[:12]}), not one with fingerprint" in str(caught.value)


def test_a_shallower_base(adapter, tiny_llama, sentencepiece_tokenizer, tmp_path):
    base = tiny_llama(32_000, hidden=32)
    base.model.layers = base.model.layers[:1]
    base.config.num_hidden_layers = 1
    base.save_pretrained(tmp_path / "other")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "other")
    for use in (load, forced_merge(tmp_path / "out", force=False)):
        with pytest.raises(AdapterError, match="this adapter was trained on another base"):
            use(adapter, base_model=str(tmp_path / "other"))
    with (
        pytest.warns(UserWarning, match="going on, as force says: .* trained on another base"),
        pytest.raises(AdapterError, match="does not fit .*other': 4 unexpected keys, first .*layers.1.self_attn"),
    ):
        forced_merge(tmp_path / "out")(adapter, base_model=str(tmp_path / "other"))


def test_a_base_of_another_vocabulary(adapter, tiny_llama, sentencepiece_tokenizer, tmp_path):
    """The adapter's shapes fit; ids that the base does not know would not."""
    tiny_llama(31_999, hidden=32).save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError, match="this adapter was trained on another base"):
        load(adapter, base_model=str(tmp_path / "other"))
    match = "the tokenizer has 32000 ids, and the base knows 31999 only; nothing uses them together"
    with pytest.raises(AdapterError, match=match):
        forced_merge(tmp_path / "out")(adapter, base_model=str(tmp_path / "other"))
    contract = read_contract(adapter)
    encoder = Encoder(sentencepiece_tokenizer, contract.load_template())
    with pytest.raises(AdapterError, match=match):
        contract.check(encoder, "other", adapter, model_config=load_config(str(tmp_path / "other")), force=True)


def test_a_tampered_adapter(adapter, tmp_path):
    tensors = load_file(adapter / WEIGHTS)
    first = sorted(tensors)[0]
    save_file({**tensors, first: tensors[first] * 1.01}, adapter / WEIGHTS)
    for use in (load, forced_merge(tmp_path / "out")):
        with pytest.raises(AdapterError, match=f"was trained here: 1 tensor changed, .*{first}"):
            use(adapter)
    save_file({**tensors, first: tensors[first] * float("nan")}, adapter / WEIGHTS)
    with pytest.raises(AdapterError, match="NaN or Inf in 1 tensor"):
        forced_merge(tmp_path / "out")(adapter)
    assert not (tmp_path / "out").exists()


# All mismatches at once, and --force


def forced_merge(out, force=True):
    return lambda adapter, base_model=None: merge(adapter, out, base_model=base_model, certify=False, force=force)


def test_every_mismatch_is_named_at_once(trained, bpe_tokenizer):
    contract = replace(read_contract(trained), eos_id=7, stop_ids=[7])
    encoder = Encoder(bpe_tokenizer, Template.load("alpaca"))
    found = contract.mismatches(encoder, "0123456789abcdef")
    assert [problem.split(":")[0] for problem in found] == [
        "the template 'alpaca' is not the one trained with, 'alpaca_short'. Leave prompt_template out to use that.",
        f"the tokenizer is not the one trained with (base {contract.base_model!r})",
        "the ids in front of a prompt (BOS)",
        "EOS",
        f"the stop ids [7] lack EOS, {bpe_tokenizer.eos_token_id}",
        "this adapter was trained on another base",
    ]
    assert contract.mismatches(encoder) == found[:-1]  # whole weights have no base
    with pytest.raises(AdapterError) as caught:
        contract.check(encoder, "0123456789abcdef", trained, force=False)
    assert str(caught.value) == (
        "\n  - ".join(["6 mismatches:", *(f"{trained}: {problem}" for problem in found)])
        + "\n--force (force=True) goes on all the same."
    )
    with pytest.raises(AdapterError) as caught:
        contract.check(encoder, "0123456789abcdef", trained)
    assert "force" not in str(caught.value)
    with pytest.warns(UserWarning, match="going on, as force says: 6 mismatches:") as warned:
        assert contract.check(encoder, "0123456789abcdef", trained, force=True) == found
    assert len(warned) == 1


def test_a_template_counts_by_its_bytes(trained, sentencepiece_tokenizer, recwarn):
    contract = read_contract(trained)
    same = replace(contract.load_template(), name="mine.json", description="mine")
    encoder = Encoder(sentencepiece_tokenizer, same)
    assert contract.check(encoder, contract.base_fingerprint, trained, force=True) == []
    assert list(recwarn) == []
    assert contract.mismatches(Encoder(sentencepiece_tokenizer, replace(same, prompt_no_input="{instruction}"))) == [
        "the template 'mine.json' is not the one trained with, 'alpaca_short'. Leave prompt_template out to use that."
    ]


def test_stop_ids_without_eos(adapter, sentencepiece_tokenizer):
    edit(adapter, stop_ids=[5])
    contract = read_contract(adapter)
    found = contract.mismatches(Encoder(sentencepiece_tokenizer, contract.load_template()))
    assert found == ["the stop ids [5] lack EOS, 2: answers would not end."]


def test_a_forced_merge_is_certified_as_such(adapter, tiny_llama, sentencepiece_tokenizer, tmp_path):
    tiny_llama(32_000, hidden=32, seed=1).save_pretrained(tmp_path / "other")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "other")
    edit(adapter, tokenizer_fingerprint="another")
    with pytest.raises(AdapterError) as caught:
        forced_merge(tmp_path / "out", force=False)(adapter, base_model=str(tmp_path / "other"))
    text = str(caught.value)
    assert text.startswith(f"2 mismatches:\n  - {adapter}: the tokenizer is not the one trained with")
    assert f"\n  - {adapter}: this adapter was trained on another base" in text
    assert text.endswith("\n--force (force=True) goes on all the same.")
    assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match="going on, as force says: 2 mismatches"):
        merge(adapter, tmp_path / "out", base_model=str(tmp_path / "other"), force=True)
    certificate = json.loads((tmp_path / "out" / "merge_certificate.json").read_text(encoding="utf-8"))
    assert [line.split(": ")[1] for line in certificate["forced"]] == [
        f"the tokenizer is not the one trained with (base {read_contract(adapter).base_model!r})",
        "this adapter was trained on another base",
    ]
    assert certificate["logits"]["same_greedy_answers"] == 20
    assert certificate["base"]["fingerprint"] == fingerprint(str(tmp_path / "other"))


def test_force_where_nothing_has_to_be(adapter, tmp_path, recwarn):
    cli.main(["merge", str(adapter), str(tmp_path / "out"), "--force", "--certify", "false"])
    assert json.loads((tmp_path / "out" / "merge_certificate.json").read_text(encoding="utf-8"))["forced"] == []
    assert [str(entry.message) for entry in recwarn if "force" in str(entry.message)] == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "\xff", '{"contract": 3}', '{"contract": {"base_model": "demo"}}'],
)
def test_a_damaged_file(adapter, text):
    (adapter / RUN_FILE).write_bytes(text.encode("latin-1"))
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
    (adapter / RUN_FILE).unlink()
    model = load(adapter)
    assert model.contract is None
    assert model.encoder.template.name == "alpaca"
    assert model.stop_ids == [2]
    assert isinstance(model.generate("Name a cat."), str)


def test_an_adapter_that_names_no_base(adapter, tiny_base):
    (adapter / RUN_FILE).unlink()
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}), encoding="utf-8")
    with pytest.raises(AdapterError, match="names no base model. Give it as base_model"):
        load(adapter)
    assert load(adapter, base_model=tiny_base).contract is None


def test_a_damaged_adapter_config_without_contract(adapter):
    (adapter / RUN_FILE).unlink()
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(AdapterError, match="adapter_config.json: damaged"):
        load(adapter)
