"""Going on from an adapter: the first loss is its last, its contract holds, and the new run remembers it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpaca_lora import cli, finetune, load
from alpaca_lora.config.recipes import OF_ADAPTER
from alpaca_lora.errors import AdapterError, ConfigError
from alpaca_lora.models.load import Placement, load_model
from alpaca_lora.models.lora import quiet_peft
from alpaca_lora.runs.run_file import read_contract
from alpaca_lora.runs.saved_adapter import SavedAdapter
from alpaca_lora.training import callbacks, parent_adapter

WEIGHTS = "adapter_model.safetensors"
QUICK = {"dtype": "float32", "cutoff_len": 128, "val_set_size": 4, "batch_size": 4}
SHAPE = {"lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.0}


@pytest.fixture(scope="module")
def rows(records):
    return [record._asdict() for record in records]


@pytest.fixture(scope="module")
def parent(short_base, rows, tmp_path_factory):
    """A run of two steps with settings that are not the defaults, without its checkpoints."""
    out = tmp_path_factory.mktemp("parent") / "first"
    more = {"prompt_template": "alpaca_short", "max_steps": 2, "learning_rate": 3e-2}
    run = finetune(base_model=short_base, data=rows, output_dir=out, **QUICK, **SHAPE, **more)
    shutil.rmtree(out / "checkpoints")
    return run


@pytest.fixture(scope="module")
def child(parent, rows):
    """A run of two steps on what its parent was trained on."""
    more = {"max_steps": 2, "learning_rate": 3e-2}
    return finetune(adapter=parent.output_dir, data=rows, output_dir=f"{parent.output_dir}-2", **more, **QUICK)


@pytest.fixture
def adapter(parent, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(parent.output_dir, tmp_path / "adapter"))


@pytest.fixture
def plain(adapter):
    """The same, as another tool would have left it."""
    for entry in adapter.iterdir():
        if not entry.name.startswith("adapter"):
            entry.unlink()
    return adapter


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def refused(error, out, rows, **settings):
    with pytest.raises(error) as caught:
        finetune(data=rows, output_dir=out, **{**QUICK, "max_steps": 1, **settings})
    assert not (out / WEIGHTS).exists()
    return caught.value


def eval_losses(run):
    return [line["eval_loss"] for line in run.history if "eval_loss" in line]


def run_file(run):
    return json.loads((run.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))


def test_a_child_starts_where_its_parent_ended(parent, child):
    assert eval_losses(parent)[0] - eval_losses(parent)[-1] > 1e-4
    assert eval_losses(child)[0] == pytest.approx(eval_losses(parent)[-1], rel=1e-6)
    assert eval_losses(child)[0] - eval_losses(child)[-1] > 1e-4
    config = json.loads((child.output_dir / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], set(config["target_modules"])) == (4, 8, {"q_proj", "down_proj"})
    old, new = (load_file(run.output_dir / WEIGHTS) for run in (parent, child))
    assert {name: tensor.shape for name, tensor in old.items()} == {name: tensor.shape for name, tensor in new.items()}
    assert not any(torch.equal(old[name], new[name]) for name in old)  # every matrix trained
    assert read_contract(child.output_dir) == read_contract(parent.output_dir)
    assert load(child.output_dir).encoder.template.name == "alpaca_short"


def test_a_run_remembers_its_parents(parent, child, rows, short_base, tmp_path, capsys):
    quick = {**QUICK, "max_steps": 1, "warmup_steps": 0}
    third = finetune(adapter=child.output_dir, data=rows[:8], output_dir=tmp_path / "third", **quick)
    shown = f"{child.output_dir}: base {short_base!r}, template 'alpaca_short', rank 4, alpha 8, dropout 0."
    assert f"Going on from {shown}" in capsys.readouterr().out
    assert "parent" not in run_file(parent)
    first = {
        "path": str(parent.output_dir),
        "sha256": hashlib.sha256((parent.output_dir / WEIGHTS).read_bytes()).hexdigest(),
        "data": run_file(parent)["data"]["fingerprint"],
        "parent": None,
    }
    second = run_file(third)["parent"]
    assert second["path"] == str(child.output_dir)
    assert second["data"] == run_file(child)["data"]["fingerprint"] == first["data"]
    assert run_file(third)["data"]["fingerprint"] != first["data"]
    assert second["parent"] == run_file(child)["parent"] == first
    card = (third.output_dir / "README.md").read_text(encoding="utf-8")
    assert f"| continues | `{child.output_dir}` (sha256 `{second['sha256'][:16]}`" in card
    assert f", which continues `{parent.output_dir}` (sha256 `{first['sha256'][:16]}`" in card
    assert "continues" not in (parent.output_dir / "README.md").read_text(encoding="utf-8")


def test_4_bits_dora_and_rslora_go_on_too(short_base, rows, tmp_path):
    kind = {"use_dora": True, "use_rslora": True, "lora_target_modules": "all-linear", "lora_dropout": 0.1}
    more = {**QUICK, "data": rows, "method": "qlora", "max_steps": 2, "learning_rate": 3e-2}
    first = finetune(base_model=short_base, output_dir=tmp_path / "first", **more, **kind)
    again = finetune(adapter=first.output_dir, output_dir=tmp_path / "second", **more)
    assert eval_losses(again)[0] == pytest.approx(eval_losses(first)[-1], rel=1e-6)
    assert run_file(again)["config"].items() >= kind.items()
    assert {tensor.dtype for tensor in load_file(again.output_dir / WEIGHTS).values()} == {torch.float32}


# Resuming


def test_a_child_resumes_from_itself_and_from_the_same_parent_only(parent, adapter, rows, tmp_path, monkeypatch):
    settings = {**QUICK, "data": rows, "max_steps": 3, "save_steps": 2}
    whole = finetune(adapter=adapter, output_dir=tmp_path / "whole", **settings)

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
        with pytest.raises(KeyboardInterrupt):
            finetune(adapter=adapter, output_dir=tmp_path / "out", **settings)
    with pytest.raises(ConfigError, match="resume: the adapter to start from changed since the run began"):
        finetune(adapter=whole.output_dir, output_dir=tmp_path / "out", resume=True, **settings)
    moved = Path(shutil.move(adapter, tmp_path / "moved"))  # it counts by its content
    run = finetune(adapter=moved, output_dir=tmp_path / "out", resume=True, **settings)
    assert eval_losses(run) == eval_losses(whole)
    assert (run.output_dir / WEIGHTS).read_bytes() == (whole.output_dir / WEIGHTS).read_bytes()


# Settings


def test_settings_that_contradict_the_adapter_are_told_together(parent, rows, tmp_path):
    wrong = {"lora_r": 16, "use_dora": True, "lora_target_modules": "all-linear", "prompt_template": "alpaca_legacy"}
    error = refused(ConfigError, tmp_path / "out", rows, adapter=parent.output_dir, **wrong)
    of = f"is not that of the adapter {parent.output_dir}"
    assert error.problems == [
        f"lora_r: 16 {of}, 4. Leave it out.",
        f"lora_target_modules: 'all-linear' {of}, ['down_proj', 'q_proj']. Leave it out.",
        f"use_dora: True {of}, False. Leave it out.",
        f"prompt_template: 'alpaca_legacy' {of}, 'alpaca_short'. Leave it out.",
    ]


def test_an_adapter_given_beside_a_recipe_has_decided(parent, rows, tmp_path):
    """Base, template and LoRA settings of the recipe are for the recipe's own adapter; all else holds."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "base_model: huggyllama/llama-7b\nadapter: runs/other\nprompt_template: alpaca_legacy\nlora_r: 16\n"
        "lora_alpha: 16\nlora_dropout: 0.2\nlora_target_modules: [q_proj, v_proj]\nuse_dora: true\n"
        "learning_rate: 1.0e-3\n"
    )
    run = finetune(
        recipe=recipe, adapter=parent.output_dir, data=rows, output_dir=tmp_path / "out", **QUICK, max_steps=1
    )
    config = run_file(run)["config"]
    typed = {**QUICK, "recipe": recipe, "adapter": parent.output_dir, "data": tmp_path / "rows.json", "max_steps": 1}
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    cli.main(["finetune", *(f"--{key}={value}" for key, value in typed.items()), f"--output_dir={tmp_path / 'typed'}"])
    own = json.loads((tmp_path / "typed" / "alpaca_lora.json").read_text(encoding="utf-8"))["config"]
    assert {**own, "data": None, "output_dir": None} == {**config, "data": None, "output_dir": None}
    assert config.items() >= {"learning_rate": 1e-3, "lora_dropout": 0.2, "prompt_template": "alpaca_short"}.items()
    of_parent = {**run_file(parent)["config"], "lora_target_modules": ["down_proj", "q_proj"]}
    assert {name: config[name] for name in OF_ADAPTER} == {name: of_parent[name] for name in OF_ADAPTER}
    saved = SavedAdapter.read(parent.output_dir)
    assert {*parent_adapter._settings_of(saved)[0], "base_model", "prompt_template"} == set(OF_ADAPTER)


def test_settings_that_agree_and_a_base_that_moved(parent, rows, short_base, tmp_path):
    moved = shutil.copytree(short_base, tmp_path / "moved")
    same = {**SHAPE, "lora_target_modules": ["down_proj", "q_proj"], "prompt_template": "alpaca_short"}
    more = {**QUICK, "max_steps": 1, "lora_dropout": 0.2}  # dropout is not the adapter's
    run = finetune(
        adapter=parent.output_dir, base_model=moved, data=rows, output_dir=tmp_path / "out", **{**same, **more}
    )
    assert read_contract(run.output_dir).base_model == str(moved)
    config = json.loads((run.output_dir / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["lora_dropout"]) == (str(moved), 0.2)
    assert run_file(run)["config"]["lora_dropout"] == 0.2


def test_another_base(parent, rows, short_base, tiny_llama, tmp_path):
    tiny_llama(4_000, hidden=32, seed=1).save_pretrained(tmp_path / "other")
    error = refused(AdapterError, tmp_path / "out", rows, adapter=parent.output_dir, base_model=tmp_path / "other")
    assert f"{parent.output_dir}: this adapter was trained on another base: it wants {short_base!r}" in str(error)
    assert "force" not in str(error)


def test_all_weights_cannot_go_on_from_matrices(parent, rows, tmp_path):
    error = refused(ConfigError, tmp_path / "out", rows, adapter=parent.output_dir, method="full")
    assert "adapter: method=full trains every weight" in str(error)
    assert f"alpaca-lora merge {parent.output_dir} OUT" in str(error)


def test_the_command_needs_no_base(parent, tmp_path):
    arguments = {"adapter": parent.output_dir, "data": "seeds", "output_dir": tmp_path / "out", "lora_r": 16}
    with pytest.raises(SystemExit, match="alpaca-lora: lora_r: 16 is not that of the adapter .*, 4. Leave it out."):
        cli.main(["finetune", *(f"--{key}={value}" for key, value in arguments.items())])


# Adapters that cannot be continued


def test_no_adapter(short_base, rows, tmp_path):
    error = refused(AdapterError, tmp_path / "out", rows, adapter=short_base)
    assert "is not an adapter folder (no adapter_config.json)" in str(error)


def test_a_run_that_has_not_ended(adapter, rows, tmp_path):
    edit(adapter / "alpaca_lora.json", finished=False)
    error = refused(AdapterError, tmp_path / "out", rows, adapter=adapter)
    assert "holds a run that has not ended" in str(error)


def test_a_tampered_adapter(adapter, rows, tmp_path):
    tensors = load_file(adapter / WEIGHTS)
    first = sorted(tensors)[0]
    save_file({**tensors, first: torch.zeros_like(tensors[first])}, adapter / WEIGHTS)
    error = refused(AdapterError, tmp_path / "out", rows, adapter=adapter)
    assert "is not the adapter that was trained here: 1 tensor changed" in str(error)


@pytest.mark.parametrize("damage", ["first", {"path": "first"}, {"path": 1, "sha256": "a", "data": None}])
def test_a_damaged_chain_of_parents(adapter, rows, tmp_path, damage):
    edit(adapter / "alpaca_lora.json", parent=damage)
    error = refused(AdapterError, tmp_path / "out", rows, adapter=adapter)
    assert "alpaca_lora.json: damaged: " in str(error)


def test_its_own_folder(adapter, rows):
    with pytest.raises(ConfigError, match="holds another run. Name a new folder"):
        finetune(adapter=adapter, data=rows, output_dir=adapter, **QUICK)


# Adapters made elsewhere


def test_another_tools_adapter(short_base, rows, tmp_path):
    """Also in bfloat16, and with settings this library has no switch for."""
    from peft import LoraConfig, get_peft_model

    model = load_model(short_base, Placement(torch.device("cpu"), torch.float32))
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=r".*layers\.1.*q_proj", rank_pattern={"q_proj": 2})
    with quiet_peft():
        get_peft_model(model, config).to(torch.bfloat16).save_pretrained(tmp_path / "plain")
    settings = {"data": rows, "output_dir": tmp_path / "out", "prompt_template": "alpaca_short", **QUICK}
    settings |= {"adapter": tmp_path / "plain", "base_model": short_base, "max_steps": 1, "warmup_steps": 0}
    with pytest.warns(UserWarning, match="cannot be checked whether .* nor with which .*; 'alpaca_short' is used"):
        run = finetune(**settings)
    tensors = load_file(run.output_dir / WEIGHTS)
    assert sorted(tuple(tensor.shape) for tensor in tensors.values()) == [(2, 32), (32, 2)]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    described = run_file(run)["parent"]
    assert (described["path"], described["data"], described["parent"]) == (str(tmp_path / "plain"), None, None)
    assert read_contract(run.output_dir).template["name"] == "alpaca_short"


def test_another_tools_adapter_without_a_base(plain, rows, short_base, tmp_path):
    error = refused(ConfigError, tmp_path / "out", rows, adapter=plain, lora_r=16)
    assert error.problems[0].startswith("lora_r: 16 is not that of the adapter")
    assert (
        f"base_model is missing: {plain} has no alpaca_lora.json. Its adapter_config.json names {short_base!r}"
        in (error.problems[1])
    )


@pytest.mark.filterwarnings("ignore:.*save_embedding_layers")
def test_other_shapes(plain, rows, short_base_bpe, tmp_path):
    tensors = load_file(plain / WEIGHTS)
    first = next(name for name in sorted(tensors) if "lora_A" in name)
    save_file({**tensors, first: torch.ones(2, 32)}, plain / WEIGHTS)
    with pytest.warns(UserWarning, match="has no alpaca_lora.json"):
        error = refused(AdapterError, tmp_path / "out", rows, adapter=plain, base_model=short_base_bpe)
    assert "1 other shape, first" in str(error)


@pytest.mark.filterwarnings("ignore:.*save_embedding_layers")
@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=['lm_head']"),
        ({"bias": "all"}, "bias='all'"),
        ({"target_modules": ["embed_tokens"]}, "lora_embedding_A"),
        ({"target_modules": ["lm_head"]}, "lm_head)"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
    ],
)
def test_what_is_more_than_matrices(tiny_llama, rows, tmp_path, settings, what):
    from peft import LoraConfig, get_peft_model

    values = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"], **settings}
    with quiet_peft():
        get_peft_model(tiny_llama(), LoraConfig(**values)).save_pretrained(tmp_path / "plain")
    error = refused(AdapterError, tmp_path / "out", rows, adapter=tmp_path / "plain", base_model="unused")
    assert "is more than LoRA, rsLoRA or DoRA on the decoder's linear modules" in str(error)
    assert what in str(error)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "adapter_config.json: damaged: "),
        ("{}", "has no peft_type, so it is not peft's"),
        ('{"peft_type": "IA3"}', "is an adapter of the kind 'IA3' (peft_type), which is not trained here."),
    ],
)
def test_a_damaged_config(adapter, rows, tmp_path, text, problem):
    (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
    error = refused(AdapterError, tmp_path / "out", rows, adapter=adapter)
    assert problem in str(error)
