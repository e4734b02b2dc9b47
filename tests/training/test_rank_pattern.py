"""Ranks by module: trained, saved, loaded, merged and gone on from as asked for; counted alike by the plan."""

from __future__ import annotations

import json

import pytest
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from alpaca_lora import FinetuneConfig, cli, finetune, load, merge
from alpaca_lora.errors import ConfigError
from alpaca_lora.models.geometry import Geometry
from alpaca_lora.models.load import load_config

QUICK = {"dtype": "float32", "cutoff_len": 128, "val_set_size": 0, "batch_size": 4, "max_steps": 2}
QUICK |= {"learning_rate": 1e-2, "warmup_steps": 0, "lora_dropout": 0.0}
RANKS = {"v_proj": 3, "layers.1.self_attn.q_proj": 2}


@pytest.fixture(scope="module")
def rows(records):
    return [record._asdict() for record in records]


@pytest.fixture(scope="module")
def run(short_base, rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks") / "first"
    return finetune(base_model=short_base, data=rows, output_dir=out, rank_pattern=RANKS, lora_r=4, **QUICK)


def ranks_of(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {name.split("layers.")[1]: len(tensor) for name, tensor in tensors.items() if "lora_A" in name}
    return {name.removesuffix(".lora_A.weight"): rank for name, rank in found.items()}


def test_matrices_have_the_ranks(run, short_base):
    assert ranks_of(run.output_dir) == {
        "0.self_attn.q_proj": 4,
        "0.self_attn.v_proj": 3,
        "1.self_attn.q_proj": 2,
        "1.self_attn.v_proj": 3,
    }
    tensors = load_file(run.output_dir / "adapter_model.safetensors")
    counted = Geometry.of(load_config(short_base)).lora_parameters(4, None, RANKS)
    assert counted == sum(tensor.numel() for tensor in tensors.values())
    assert "rank 4, 3 of v_proj, 2 of layers.1.self_attn.q_proj, alpha 16" in (run.output_dir / "README.md").read_text()


def test_a_modules_scale_is_alpha_over_its_own_rank(run):
    model = load(run.output_dir).model
    scales = {name: one.scaling["default"] for name, one in model.named_modules() if isinstance(one, LoraLayer)}
    assert {name.split("layers.")[1]: scale for name, scale in scales.items()} == {
        "0.self_attn.q_proj": 4,
        "0.self_attn.v_proj": 16 / 3,
        "1.self_attn.q_proj": 8,
        "1.self_attn.v_proj": 16 / 3,
    }


def test_merged_and_gone_on_from(run, rows, tmp_path):
    assert merge(run.output_dir, tmp_path / "merged").certificate["logits"]["max_difference"] < 1e-4
    second = finetune(adapter=run.output_dir, data=rows, output_dir=tmp_path / "second", **QUICK).output_dir
    assert ranks_of(second) == ranks_of(run.output_dir)
    content = json.loads((second / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["config"]["rank_pattern"] == RANKS
    with pytest.raises(ConfigError, match=r"rank_pattern: {'v_proj': 5} is not that of the adapter"):
        finetune(adapter=run.output_dir, data=rows, output_dir=tmp_path / "x", rank_pattern={"v_proj": 5}, **QUICK)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (
            {"v_porj": 2},
            "'v_porj' fits no module with LoRA. Did you mean 'v_proj'? Modules: q_proj, v_proj;",
        ),
        ({"k_proj": 2}, "rank_pattern: 'k_proj' fits no module with LoRA."),
        ({"layers.2.self_attn.v_proj": 2}, "fits no module with LoRA"),
        ({"v_proj": 2, "layers.0.self_attn.v_proj": 3}, "'v_proj' and 'layers.0.self_attn.v_proj' fit the same module"),
        ({"v_proj": 33}, "rank_pattern: 'v_proj': 33 is more than 32, its smaller side. Lower it."),
    ],
)
def test_patterns_that_do_not_fit(short_base, rows, tmp_path, pattern, said):
    with pytest.raises(ConfigError) as caught:
        finetune(base_model=short_base, data=rows, output_dir=tmp_path / "out", rank_pattern=pattern, **QUICK)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pattern", [{"v_proj": 0}, {"v_proj": 2.5}, {"v_proj": True}, {3: 2}, "v_proj=2"])
def test_ranks_are_whole_numbers(pattern):
    with pytest.raises(ConfigError, match="rank_pattern: .* must be pairs of a module's name and its rank, a whole"):
        FinetuneConfig(base_model="-", data="-", output_dir="-", rank_pattern=pattern)


def test_on_the_command_line(short_base, capsys):
    plan = ["plan", "--gpu", "l4", "--base_model", short_base, "--rank_pattern"]
    with pytest.raises(SystemExit, match="'v_porj' fits no module"):
        cli.main([*plan, "v_porj=2,q_proj=3"])
    cli.main([*plan, "v_proj=2,layers.1.self_attn.q_proj=3"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main([*plan, "v_proj"])
    assert "Give pairs such as v_proj=16,q_proj=4" in capsys.readouterr().err
