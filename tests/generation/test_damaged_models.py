"""What was damaged or edited after it was written does not answer: weights, config, contract, tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpaca_lora import finetune, load, merge
from alpaca_lora.adapters import export, extract
from alpaca_lora.adapters import weight_diff as diff
from alpaca_lora.errors import AdapterError, ModelError
from alpaca_lora.generation.batching import NOT_FINITE
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.models import fingerprint

QUICK = {"val_set_size": 0, "batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "dtype": "float32"}
GREEDY = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def made(short_base, records, tmp_path_factory):
    """An adapter, what merging it gives, and a fully tuned model."""
    out = tmp_path_factory.mktemp("made")
    rows = [record._asdict() for record in records]
    run = finetune(base_model=short_base, data=rows, output_dir=out / "adapter", **QUICK)
    finetune(base_model=short_base, data=rows, output_dir=out / "full", method="full", **QUICK)
    merge(run.adapter_dir, out / "merged", certify=False)
    return out


@pytest.fixture
def copy(made, tmp_path):
    """A copy of one of them, to damage."""

    def copied(name):
        skipped = shutil.ignore_patterns("checkpoints")
        return Path(shutil.copytree(made / name, tmp_path / name, ignore=skipped, dirs_exist_ok=True))

    return copied


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def damage(folder, factor=1.5):
    """One value of one tensor becomes another."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][17, 23] *= factor
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["merged", "full"])
def test_changed_weights_do_not_answer(copy, name, tmp_path, short_base):
    folder = copy(name)
    assert isinstance(load(folder).generate("Name a cat.", sampling=GREEDY), str)
    damage(folder)
    match = f"{folder}: its weights are not those that were written there.*Copy the folder again"
    for use in (
        load,
        lambda folder: export(folder, tmp_path / "gguf", format="gguf-f16"),
        lambda folder: extract.extract(short_base, folder, tmp_path / "extracted"),
        lambda folder: diff.make_diff(short_base, folder, tmp_path / "diff"),
        lambda folder: finetune(base_model=str(folder), data="seeds", output_dir=tmp_path / "run", **QUICK),
    ):
        with pytest.raises(ModelError, match=match):
            use(folder)


def test_the_certificate_speaks_for_a_merge_without_contract(copy):
    """Merges of other tools' adapters have no run file."""
    folder = copy("merged")
    (folder / "alpaca_lora.json").unlink()
    assert isinstance(load(folder).generate("Name a cat.", sampling=GREEDY), str)
    damage(folder)
    with pytest.raises(ModelError, match="its weights are not those .*by merge_certificate.json.*remove 'merged' from"):
        load(folder)
    edit(folder / "merge_certificate.json", lambda content: content.pop("merged"))
    assert isinstance(load(folder).generate("Name a cat.", sampling=GREEDY), str)  # meant so


def test_weights_are_read_once_for_it(copy, monkeypatch):
    folder = copy("merged")
    load(folder)
    monkeypatch.setattr(fingerprint, "_taken", lambda paths: pytest.fail("read again"))
    load(folder)
    moved = folder.rename(folder.with_name("moved"))
    load(moved)


@pytest.mark.parametrize("name", ["merged", "full", "adapter"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rms_norm_eps", 1e-2),
        ("rope_parameters", {"rope_theta": 5e5, "rope_type": "default"}),
        ("hidden_act", "gelu"),
        ("num_key_value_heads", 2),
        ("num_attention_heads", 2),
        ("max_position_embeddings", 64),
    ],
)
def test_an_edited_config_does_not_answer(copy, short_base, tmp_path, name, key, value):
    """None of these but the heads' numbers changes a shape; the answers would be others."""
    folder = copy(name)
    whole = name != "adapter"
    base = folder if whole else Path(shutil.copytree(short_base, tmp_path / "base"))
    edit(base / "config.json", lambda content: content.update({key: value}))
    shown = key if key != "rope_parameters" else "rope_parameters.rope_theta"
    with pytest.raises((AdapterError, ModelError), match="config.json") as caught:
        load(folder, base_model=None if whole else str(base))
    assert f"{shown} is " in str(caught.value)
    if not whole:
        with pytest.raises(AdapterError, match="the base's config.json is not the one trained with"):
            merge(folder, tmp_path / "out", base_model=str(base), certify=False)


def test_a_config_edited_on_purpose_can_be_forced(copy):
    folder = copy("merged")
    edit(folder / "config.json", lambda content: content.update(rms_norm_eps=1e-4))
    with pytest.warns(UserWarning, match="going on, as force says: .*rms_norm_eps is 0.0001, not 1e-06"):
        assert isinstance(load(folder, force=True).generate("Name a cat.", sampling=GREEDY), str)


def test_what_the_config_says_beside_does_not_count(copy):
    folder = copy("merged")
    before = load(folder).generate("Name a cat.", sampling=GREEDY)
    edit(
        folder / "config.json",
        lambda content: content.update(transformers_version="5.0.0", use_cache=False, pad_token_id=0, dtype="bfloat16"),
    )
    edit(folder / "config.json", lambda content: content.pop("mlp_bias"))  # its default is what it was
    assert load(folder).generate("Name a cat.", sampling=GREEDY) == before


@pytest.mark.parametrize("name", ["merged", "adapter"])
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda content: content["model"]["merges"].reverse()),
        ("tokenizer.json", lambda content: content["model"]["vocab"].update({"▁the": 5})),
        ("tokenizer_config.json", lambda content: content.update(eos_token="a")),
    ],
    ids=["merges", "vocabulary", "eos"],
)
@pytest.mark.filterwarnings("ignore:eos_token_id")
def test_an_edited_tokenizer_does_not_answer(copy, name, file, change):
    folder = copy(name)
    edit(folder / file, change)
    with pytest.raises(AdapterError, match="the tokenizer is not the one trained with"):
        load(folder)


@pytest.mark.parametrize("name", ["merged", "full", "adapter"])
@pytest.mark.parametrize(
    "change",
    [
        lambda contract: contract["template"].update(prompt_no_input="{instruction}"),
        lambda contract: contract.update(prefix_ids=[]),
        lambda contract: contract.update(eos_id=5),
        lambda contract: contract["stop_ids"].append(5),
        lambda contract: contract.pop("model_config"),
        lambda contract: contract.clear(),
    ],
    ids=["template", "bos", "eos", "stops", "config", "emptied"],
)
def test_a_contract_edited_by_hand_does_not_answer(copy, name, change):
    folder = copy(name)
    edit(folder / "alpaca_lora.json", lambda content: change(content["contract"]))
    with pytest.raises(AdapterError, match="alpaca_lora.json: damaged: its contract .* was changed after"):
        load(folder)


def test_a_contract_may_name_where_its_base_is_now(copy, short_base, tmp_path):
    folder = copy("adapter")
    shutil.copytree(short_base, tmp_path / "base")
    edit(folder / "alpaca_lora.json", lambda content: content["contract"].update(base_model=str(tmp_path / "base")))
    assert load(folder).contract.base_model == str(tmp_path / "base")


def test_a_contract_of_an_earlier_version_loads(copy):
    folder = copy("merged")
    before = load(folder).generate("Name a cat.", sampling=GREEDY)

    def aged(content):
        del content["contract_sha256"], content["contract"]["model_config"]

    edit(folder / "alpaca_lora.json", aged)
    assert load(folder).contract.model_config is None
    assert load(folder).generate("Name a cat.", sampling=GREEDY) == before


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 0}, {"num_beams": 2}], ids=str)
def test_nan_is_no_answer(short_base, sampling):
    model = load(short_base)
    with torch.no_grad():
        model.model.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError) as caught:
        model.generate("Name a cat.", sampling=Sampling(max_new_tokens=4, **sampling))
    assert str(caught.value) == NOT_FINITE


def test_a_beam_search_takes_nothing_from_generation_config(short_base, tmp_path):
    """As answers of one beam: what files say of sampling, penalties and banned tokens is other programs'."""
    folder = Path(shutil.copytree(short_base, tmp_path / "base"))
    beams = Sampling(max_new_tokens=6, num_beams=3)
    before = load(folder).generate("Name a cat.", sampling=beams)
    first = load(folder).prompt_format().encoder.text_ids(before)[0:3]
    edit(
        folder / "generation_config.json",
        lambda content: content.update(suppress_tokens=[*first, *range(100, 2000)], min_new_tokens=6),
    )
    model = load(folder)
    assert model.generate("Name a cat.", sampling=beams) == before
    assert model.model.generation_config.min_new_tokens == 6  # and it is what it was


def test_layers_that_the_config_does_not_count(short_base, tmp_path):
    """transformers leaves them out, and answers with the rest."""
    folder = Path(shutil.copytree(short_base, tmp_path / "base"))
    for layers in (1, 3, 10**9):
        edit(folder / "config.json", lambda content, layers=layers: content.update(num_hidden_layers=layers))
        with pytest.raises(ModelError, match=f"says num_hidden_layers={layers}, and its weights have 2. Copy"):
            load(folder)


def test_a_config_far_too_large_takes_no_memory(short_base, tmp_path):
    folder = Path(shutil.copytree(short_base, tmp_path / "base"))
    edit(folder / "config.json", lambda content: content.update(intermediate_size=1 << 40))
    with pytest.raises(ModelError, match="in another shape than its config.json says"):
        load(folder)
