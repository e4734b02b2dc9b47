"""Adapters of other kinds than LoRA, and LoRA with more to it: run as peft runs them, or refused by name."""

from __future__ import annotations

import copy
import io
import json
import shutil
import sys
from dataclasses import fields
from unittest.mock import Mock

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora import config as lora_config
from safetensors.torch import load_file, save_file

from alpaca_lora import answer, chat, cli, export, finetune, generate, load, merge, serve
from alpaca_lora.errors import AdapterError, ConfigError, ModelError
from alpaca_lora.generation.batching import Batch
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.models.lora import quiet_peft
from alpaca_lora.runs import peft_config
from alpaca_lora.runs.adapter_files import WEIGHTS
from alpaca_lora.runs.peft_config import CONFIG
from alpaca_lora.runs.saved_adapter import SavedAdapter

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*has no alpaca_lora.json", "ignore:.*save_embedding_layers", "ignore::UserWarning:peft"
)

LINEAR = {"target_modules": ["q_proj", "v_proj"]}
SETTINGS = {  # of kinds that need others than LINEAR
    "ADALORA": {**LINEAR, "init_r": 4, "target_r": 2, "total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 3, "adapter_layers": 1},
    "BOFT": {**LINEAR, "boft_block_size": 4},
    "C3A": {**LINEAR, "block_size": 16},
    "CPT": {"cpt_token_ids": [3, 4], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 1]},
    "FOURIERFT": {**LINEAR, "n_frequency": 20},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "OFT": {**LINEAR, "oft_block_size": 4, "r": 0},
    "TRAINABLE_TOKENS": {"token_indices": [3, 5], "target_modules": ["embed_tokens"]},
    "VBLORA": {**LINEAR, "vector_length": 16, "num_vectors": 16},
    **{kind: {"num_virtual_tokens": 3} for kind in ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING")},
}
RUN = sorted(peft_config._RUN & {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING})
REFUSED = sorted({kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - {*RUN})

LORA = {
    "bias": {"bias": "all"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "lora_bias": {"lora_bias": True},
    "exclude_modules": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "layers_to_transform": {"layers_to_transform": [1]},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "patterns": {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    "modules_to_save": {"modules_to_save": ["lm_head", "norm"]},
    "trainable_token_indices": {"trainable_token_indices": [3, 5]},
    "target_parameters": {"target_parameters": ["mlp.up_proj.weight"]},
    "embedding": {"target_modules": ["embed_tokens", "lm_head"]},
    "velora": {"velora_config": lora_config.VeloraConfig()},
    "monteclora": {"monteclora_config": lora_config.MontecloraConfig()},
    "bdlora": {
        "use_bdlora": lora_config.BdLoraConfig(
            target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"], nblocks=2
        )
    },
    **{
        f"init_{start}": {"init_lora_weights": start}
        for start in ("eva", "orthogonal", "mica", "pissa", "olora", False)
    },
}
MORE = {
    "alora_invocation_tokens": [5, 6],
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 1e-4},
    "layer_replication": [[0, 2], [1, 2]],
    "megatron_config": {"hidden_size": 64},
    "use_qalora": True,
}


def randomise(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for _, tensor in model.named_parameters():
            if tensor.requires_grad:
                tensor.add_(0.2 * torch.randn_like(tensor))


def saved(model, folder, kind="LORA", **settings):
    """A real adapter, as peft itself makes and saves one."""
    form = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    torch.manual_seed(0)
    with quiet_peft():
        made = get_peft_model(model, form(task_type="CAUSAL_LM", **settings))
    randomise(made)
    made.save_pretrained(folder)
    return folder


def lora(model, folder, **settings):
    return saved(model, folder, **{"r": 4, "lora_alpha": 8, **LINEAR, **settings})


def edit(folder, **settings):
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **settings}), encoding="utf-8")
    return folder


def logits(model, last=16):
    with torch.no_grad():
        return model(input_ids=torch.arange(1, last + 1)[None]).logits[0]


def in_a_batch(model):
    """Logits after two prompts, one padded, whose last token is computed on keys and values kept."""
    rows = torch.tensor([[0] * 5 + [*range(1, 12)], [*range(1, 17)]])
    seen, layers = (rows > 0).long(), []
    batch = Batch(model, 0)
    with torch.no_grad():
        batch._forward(rows[:, :-1], seen[:, :-1], layers)
        return batch._forward(rows[:, -1:], seen, layers)


def check_same(base, folder):
    """The adapter does something here, and what it does is what it does in peft."""
    with quiet_peft():
        reference = PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()
    wanted = logits(reference)
    assert (wanted - logits(base)).abs().max() > 0.01
    model = SavedAdapter.read(folder).put_on(copy.deepcopy(base), "tiny")
    torch.testing.assert_close(logits(model), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        in_a_batch(model), torch.stack([logits(reference, 11)[-1], wanted[-1]]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", RUN)
def test_a_kind_that_is_run_answers_as_in_peft(tiny_llama, tmp_path, kind):
    base = tiny_llama()
    check_same(base, saved(tiny_llama(), tmp_path / "adapter", kind, **SETTINGS.get(kind, LINEAR)))


@pytest.mark.parametrize("name", LORA)
def test_a_lora_with_more_to_it_answers_as_in_peft(tiny_llama, tmp_path, name):
    check_same(tiny_llama(), lora(tiny_llama(), tmp_path / "adapter", **LORA[name]))


def test_biases_are_the_adapters(tiny_llama, tmp_path):
    """A base with biases: `bias` trains them, too."""
    from transformers import LlamaForCausalLM

    config = tiny_llama().config
    config.attention_bias = True
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).eval()
    adapter = lora(copy.deepcopy(base), tmp_path / "adapter", bias="all")
    assert any(name.endswith("q_proj.base_layer.bias") for name in load_file(adapter / WEIGHTS))
    check_same(base, adapter)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "ADAPTION_PROMPT", "LILY"])
def test_a_kind_that_is_not_run_is_refused_by_name(tiny_llama, tmp_path, kind):
    adapter = saved(tiny_llama(), tmp_path / "adapter", kind, **SETTINGS.get(kind, LINEAR))
    with pytest.raises(
        AdapterError, match=f"is an adapter of the kind '{kind}' .peft_type., which is not applied here"
    ):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_every_kind_peft_knows_is_run_or_refused(tmp_path):
    assert {"LORA", "IA3", "LOHA", "LOKR", "OFT", "VERA"} <= {*RUN} and {"POLY", "XLORA"} <= {*REFUSED}
    for kind in [*REFUSED, "NOT_YET_INVENTED"]:
        (tmp_path / CONFIG).write_text(json.dumps({"peft_type": kind}), encoding="utf-8")
        with pytest.raises(AdapterError, match=f"'{kind}' .peft_type., which is not "):
            SavedAdapter.read(tmp_path)


def test_every_field_of_pefts_lora_stands_in_one_table():
    tables = (peft_config._SAYS, peft_config._MATRICES, peft_config._APPLIED, peft_config._REFUSED.keys())
    names = [name for table in tables for name in table]
    assert len(names) == len({*names})
    assert {entry.name for entry in fields(LoraConfig)} <= {*names}


@pytest.mark.parametrize("field", MORE)
def test_what_changes_the_mathematics_is_refused_by_name(tiny_llama, tmp_path, field):
    adapter = edit(lora(tiny_llama(), tmp_path / "adapter"), **{field: MORE[field]})
    with pytest.raises(AdapterError, match=f"is more than LoRA: its adapter_config.json says {field}="):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


@pytest.mark.parametrize("start", ["corda", "loftq", "lora_ga", "pissa_niter_4", "newer"])
def test_a_start_that_cannot_be_repeated(tiny_llama, tmp_path, start):
    adapter = edit(lora(tiny_llama(), tmp_path / "adapter"), init_lora_weights=start)
    with pytest.raises(AdapterError, match=f"init_lora_weights='{start}', which changes the base"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_fields_of_a_newer_or_older_peft(tiny_llama, tmp_path):
    """What is off acts nowhere; peft 0.2 wrote the first two."""
    adapter = lora(tiny_llama(), tmp_path / "adapter")
    edit(adapter, enable_lora=None, merge_weights=True, use_magic=False, magic={})
    assert SavedAdapter.read(adapter).config.r == 4
    with pytest.raises(AdapterError, match=r"says magic=\{'depth': 2\}, use_magic=True, which peft .* does not know"):
        SavedAdapter.read(edit(adapter, use_magic=True, magic={"depth": 2}, peft_version="9.0"))


def test_another_task(tiny_llama, tmp_path):
    adapter = edit(lora(tiny_llama(), tmp_path / "adapter"), task_type="SEQ_CLS")
    with pytest.raises(AdapterError, match="was trained for the task 'SEQ_CLS' .task_type."):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


def test_code_beside_an_adapter_never_runs(tiny_llama, tmp_path, monkeypatch):
    adapter = edit(
        lora(tiny_llama(), tmp_path / "adapter"), megatron_config={"hidden_size": 64}, megatron_core="beside_it"
    )
    (adapter / "beside_it.py").write_text("from pathlib import Path\nPath('ran').touch()\n", encoding="utf-8")
    monkeypatch.chdir(adapter)
    monkeypatch.syspath_prepend(".")
    with pytest.raises(AdapterError, match="megatron_config=.*whose code would have to run"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")
    assert "beside_it" not in sys.modules
    assert not (adapter / "ran").exists()


USES = {
    "load": lambda adapter, out: load(adapter),
    "also": lambda adapter, out: load(adapter.parent / "plain", also=[adapter]),
    "generate": lambda adapter, out: generate(adapter, "Hi"),
    "chat": lambda adapter, out: chat(adapter),
    "serve": lambda adapter, out: serve(adapter, port=0),
    "answer": lambda adapter, out: answer(adapter, "probe", out.with_suffix(".json")),
    "merge": lambda adapter, out: merge(adapter, out),
    "continue": lambda adapter, out: finetune(adapter=str(adapter), data="seeds", output_dir=str(out), base_model="x"),
}


@pytest.fixture
def model(short_base):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(short_base).eval()


@pytest.mark.parametrize("use", USES)
def test_everything_that_reads_an_adapter_refuses_it(model, tmp_path, use):
    lora(copy.deepcopy(model), tmp_path / "plain")
    adapter = saved(model, tmp_path / "prompts", "PROMPT_TUNING", num_virtual_tokens=3)
    with pytest.raises(AdapterError, match="prompts: is an adapter of the kind 'PROMPT_TUNING'"):
        USES[use](adapter, tmp_path / "out")
    with pytest.raises(AdapterError, match="is an adapter, not a whole model"):
        export(adapter, tmp_path / "exported", format="ollama")


def test_what_is_run_but_neither_merged_nor_trained_on(model, tmp_path):
    plain = copy.deepcopy(model)
    adapter = saved(model, tmp_path / "ia3", "IA3", **SETTINGS["IA3"])
    local = load(adapter)
    torch.testing.assert_close(
        logits(local.model), logits(PeftModel.from_pretrained(copy.deepcopy(plain), str(adapter)).eval())
    )
    local.select("base")
    assert torch.equal(logits(local.model), logits(plain))
    lora(plain, tmp_path / "plain")
    for first, second in ((adapter, tmp_path / "plain"), (tmp_path / "plain", adapter)):
        with pytest.raises(AdapterError, match="cannot share its base with other adapters .peft_type='IA3'."):
            load(first, also=[second])
    with pytest.raises(AdapterError, match="kind 'IA3' .peft_type., and only LoRA is merged here. Use it unmerged"):
        merge(adapter, tmp_path / "merged")
    with pytest.raises(AdapterError, match="kind 'IA3' .peft_type., which is not trained here"):
        USES["continue"](adapter, tmp_path / "out")


def test_a_base_that_an_adapter_changes_is_not_offered(model, tmp_path):
    adapter = lora(copy.deepcopy(model), tmp_path / "pissa", init_lora_weights="pissa")
    lora(model, tmp_path / "plain")
    assert [*load(adapter).prompt_formats] == ["pissa"]
    assert [*load(tmp_path / "plain").prompt_formats] == ["plain", "base"]
    with pytest.raises(AdapterError, match="pissa: cannot share its base with other adapters .init_lora_weights='pis"):
        load(tmp_path / "plain", also=[adapter])


# Keys of wrapped models


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn."),
    ],
)
def test_keys_of_a_wrapped_model(tiny_llama, tmp_path, wrapped):
    adapter = lora(tiny_llama(), tmp_path / "adapter")
    wanted, tensors = logits(SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")), load_file(adapter / WEIGHTS)
    renamed = {wrapped(name): tensor for name, tensor in tensors.items()}
    assert not renamed.keys() & tensors.keys()
    save_file(renamed, adapter / WEIGHTS)
    assert torch.equal(logits(SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")), wanted)
    save_file({**renamed, **{name: tensor + 1 for name, tensor in tensors.items()}}, adapter / WEIGHTS)
    with pytest.raises(AdapterError, match="with and without a wrapper's prefix .* Save the unwrapped model again"):
        SavedAdapter.read(adapter).put_on(tiny_llama(), "tiny")


# Embeddings beside the matrices


def with_embeddings(base, folder, rows):
    """An adapter as peft saves one with save_embedding_layers, after a tokenizer got more tokens."""
    base.resize_token_embeddings(rows, mean_resizing=False)
    with quiet_peft():
        made = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, **LINEAR))
    randomise(made)
    with torch.no_grad():
        base.get_input_embeddings().weight.mul_(1.5)
    made.save_pretrained(folder, save_embedding_layers=True)
    assert "base_model.model.lm_head.weight" in load_file(folder / WEIGHTS)
    return folder


def test_embeddings_saved_whole_are_loaded_and_merged_as_in_peft(model, short_base, tmp_path):
    adapter = with_embeddings(copy.deepcopy(model), tmp_path / "adapter", model.config.vocab_size)
    check_same(model, adapter)
    assert [*load(adapter).prompt_formats] == ["adapter"]
    merge(adapter, tmp_path / "merged", certify=False)
    wanted = PeftModel.from_pretrained(copy.deepcopy(model), str(adapter)).merge_and_unload().eval()
    torch.testing.assert_close(logits(load(tmp_path / "merged").model), logits(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("use", ["load", "merge"])
def test_a_larger_vocabulary_is_refused_in_one_sentence(model, tmp_path, use):
    adapter = with_embeddings(copy.deepcopy(model), tmp_path / "adapter", model.config.vocab_size + 8)
    with pytest.raises(
        AdapterError, match=r"with 4,0\d\d rows, and .* has 4,0\d\d: it was trained on a base with anoth"
    ):
        USES[use](adapter, tmp_path / "out")


@pytest.mark.parametrize("tie", [False, True])
def test_trained_tokens_are_merged_as_in_peft(tiny_llama, tmp_path, tie):
    tiny_llama(tie=tie).save_pretrained(tmp_path / "base")
    adapter = lora(tiny_llama(tie=tie), tmp_path / "adapter", trainable_token_indices=[3, 5])
    check_same(tiny_llama(tie=tie), adapter)
    merge(adapter, tmp_path / "merged", base_model=str(tmp_path / "base"), certify=False)
    found = type(tiny_llama()).from_pretrained(tmp_path / "merged").eval()
    wanted = PeftModel.from_pretrained(tiny_llama(tie=tie), str(adapter)).eval()
    torch.testing.assert_close(logits(found), logits(wanted), rtol=0, atol=1e-5)


def test_a_whole_model_has_no_base_beside_it(short_base):
    with pytest.raises(
        ConfigError, match="base_model: .* is no adapter, so it has no base beside it. Leave base_model"
    ):
        load(short_base, base_model=short_base)
    with pytest.raises(ConfigError, match="base_model: this model is loaded already, on its base. Give base_model to"):
        generate(load(short_base), "Hi", base_model=short_base)


# Folders that are something else


MLX = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 8, "scale": 20.0}}


@pytest.mark.parametrize("use", [use for use in USES if use != "continue"])
def test_an_adapter_of_another_tool_is_called_by_its_name(model, tmp_path, use):
    lora(model, tmp_path / "plain")
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / CONFIG).write_text(json.dumps(MLX), encoding="utf-8")
    save_file({"model.layers.0.self_attn.q_proj.lora_a": torch.ones(4, 2)}, tmp_path / "mlx" / "adapters.safetensors")
    with pytest.raises(
        AdapterError, match="mlx: its .* has no peft_type, so it is not peft's: it is an adapter of MLX"
    ):
        USES[use](tmp_path / "mlx", tmp_path / "out")


@pytest.mark.parametrize("use", ["load", "generate", "answer", "merge", "continue"])
def test_a_folder_with_neither_adapter_nor_model(tmp_path, use):
    (tmp_path / "litgpt").mkdir()
    (tmp_path / "litgpt" / "lit_model.pth.lora").touch()
    with pytest.raises((AdapterError, ModelError), match="litgpt.*: (it is )?a checkpoint of LitGPT. Convert it"):
        USES[use](tmp_path / "litgpt", tmp_path / "out")


# Where the base is now


@pytest.fixture
def moved(model, short_base, tmp_path):
    """An adapter that names a base which is not here, and where that base is now."""
    adapter = edit(lora(model, tmp_path / "moved"), base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="no such folder: .*gone"):
        load(adapter)
    return adapter, short_base


def test_the_commands_find_a_base_that_has_moved(moved, tmp_path, monkeypatch, capsys):
    adapter, base = moved
    expected = load(adapter, base_model=base).generate("Hi", sampling=Sampling(max_new_tokens=4))
    cli.main(["generate", str(adapter), "Hi", "--base_model", base, "--max_new_tokens", "4"])
    assert capsys.readouterr().out == f"{expected}\n"
    (tmp_path / "questions.jsonl").write_text('{"instruction": "Hi", "input": "", "output": ""}\n', encoding="utf-8")
    command = ["answer", adapter, tmp_path / "questions.jsonl", tmp_path / "out.json", "--max_new_tokens", "4"]
    cli.main([*map(str, command), "--base_model", base])
    assert [made["output"] for made in json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))] == [expected]
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    cli.main(["chat", str(adapter), "--base_model", base, "--max_new_tokens", "4"])
    assert expected in capsys.readouterr().out


def test_a_server_puts_all_its_adapters_on_the_base_that_is_named(moved, tmp_path, monkeypatch):
    adapter, base = moved
    other = shutil.copytree(adapter, tmp_path / "other")
    made = []
    monkeypatch.setattr("alpaca_lora.serving.listening.run", lambda app, listening, token, close, names: close())
    monkeypatch.setattr("alpaca_lora.serving.engine.Engine", lambda model, **limits: made.append(model) or Mock())
    monkeypatch.setattr("alpaca_lora.serving.server.make_app", lambda engine, looks: None)
    cli.main(["serve", str(adapter), "--also", str(other), "--base_model", base, "--port", "0"])
    assert [*made[0].prompt_formats] == ["moved", "base", "other"]
    with pytest.raises(SystemExit, match="no such folder: .*gone"):
        cli.main(["serve", str(adapter), "--also", str(other), "--port", "0"])


def test_a_base_that_is_named_is_checked_against_the_contract(short_base, tiny_llama, tmp_path):
    run = finetune(
        base_model=short_base,
        data="seeds",
        output_dir=str(tmp_path / "run"),
        batch_size=10,
        max_steps=1,
        val_set_size=0,
    )
    other = shutil.copytree(short_base, tmp_path / "other")
    tiny_llama(4_000, hidden=32, seed=7).save_pretrained(other)
    with pytest.raises(SystemExit, match="this adapter was trained on another base: it wants"):
        cli.main(["generate", str(run.output_dir), "Hi", "--base_model", str(other)])
    content = json.loads((run.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))
    content["contract"]["eos_id"] = 7
    del content["contract_sha256"]  # as an earlier version wrote it
    (run.output_dir / "alpaca_lora.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AdapterError, match="EOS: 2 here, 7 in training.* --force .force=True. goes on all the same"):
        generate(run.output_dir, "Hi")
    with pytest.raises(SystemExit) as caught:  # which has no such option
        cli.main(["self-instruct", "run", str(tmp_path / "made"), "--base_model", str(run.output_dir)])
    assert "EOS: 2 here, 7 in training" in str(caught.value) and "force" not in str(caught.value)


def test_a_server_has_no_base_to_name(tmp_path):
    with pytest.raises(ConfigError, match="base_model: is for an adapter on this machine, and base_url names a server"):
        answer("m", "probe", tmp_path / "a.json", base_url="http://127.0.0.1:9/v1", base_model="demo")
