"""Plans: what fits, how long, how much, what to change, and questions that have no answer."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import alpaca_lora
from alpaca_lora.cli import main
from alpaca_lora.config import FinetuneConfig
from alpaca_lora.errors import ConfigError
from alpaca_lora.models.geometry import SHAPES
from alpaca_lora.planning.time import UTILISATION, like_alpaca


def test_a_recipe_on_eight_gpus():
    plan = alpaca_lora.plan("a100-80g", recipe="alpaca-13b", gpus=8, price=1.9)
    assert plan.fits and plan.choices
    assert plan.training.optimizer == SHAPES["llama-13b"].parameters  # 8 bytes over 8 GPUs
    assert plan.work.steps == 2030
    flops = plan.work.operations(plan.config, plan.shape)
    assert flops == pytest.approx(8 * 13.0e9 * plan.work.tokens, rel=0.05)  # 6 a parameter, and 2 again
    assert plan.seconds == pytest.approx(flops / (8 * 312e12 * UTILISATION))
    assert plan.cost == pytest.approx(plan.seconds / 3600 * 8 * 1.9)
    half = alpaca_lora.plan("a100-80g", recipe="alpaca-13b", gpus=8, utilisation=UTILISATION / 2)
    assert half.seconds == pytest.approx(2 * plan.seconds) and half.cost is None


def test_the_utilisation_is_said_to_be_computed():
    plan = alpaca_lora.plan("h100-80g", recipe="alpaca-lora-7b")
    assert plan.utilisation == UTILISATION
    assert "at 34% of 989 TFLOP/s (computed)" in " ".join(str(plan).split())
    given = alpaca_lora.plan("h100-80g", recipe="alpaca-lora-7b", utilisation=0.45)
    assert "at 45% of 989 TFLOP/s (given)" in " ".join(str(given).split())


def test_what_does_not_fit_can_be_changed():
    plan = alpaca_lora.plan("rtx4090", recipe="alpaca-lora-7b", max_tokens=16_384)
    assert not plan.fits
    fitting = {change for change, other in plan.choices if other.fits}
    assert {"max_tokens=1024", "gradient_checkpointing=true", "method=qlora, checkpointing"} <= fitting
    text = str(plan)
    assert "It does not fit" in text and "gradient_checkpointing=true" in text
    alone = dict(alpaca_lora.plan("a100-80g", recipe="alpaca-7b").choices)
    assert alone["2 GPUs, fsdp=true, checkpointing"].gpus == 2
    assert alone["optimizer=paged_adamw_8bit, fsdp=false, checkpointing"].fits


def test_auto_is_what_a_run_would_take():
    plan = alpaca_lora.plan("h100-80g", recipe="alpaca-qlora-7b")
    assert plan.max_tokens == 16_384
    assert plan.max_tokens % 128 == 0 and plan.fits
    tight = alpaca_lora.plan("rtx3090", recipe="alpaca-lora-7b")
    assert 1024 <= tight.max_tokens < 16_384 and tight.max_tokens % 128 == 0 and tight.fits
    hopeless = alpaca_lora.plan("rtx3090", recipe="alpaca-7b")
    assert hopeless.max_tokens == 1024 and not hopeless.fits


def test_auto_is_the_largest_that_fits_in_what_is_free():
    from alpaca_lora.planning.budget import SHARE, auto_tokens
    from alpaca_lora.planning.memory import CUDA_BYTES, MemoryModel, MicroBatchSize

    config = FinetuneConfig(base_model="x", data="x", output_dir="x", cutoff_len=512)
    formula = MemoryModel(config, SHAPES["llama-7b"])

    def needed(tokens):
        return formula.training(MicroBatchSize(tokens, tokens, 0, 512)).needed - CUDA_BYTES

    for gib in (22, 24, 30, 40):
        found = auto_tokens(formula, gib * 2**30)
        assert needed(found) <= SHARE * gib * 2**30 < needed(found + 128)
    assert auto_tokens(formula, 200 * 2**30) == 16_384
    assert auto_tokens(formula, 2**30) == 1024
    long = FinetuneConfig(base_model="x", data="x", output_dir="x", cutoff_len=2048)
    assert auto_tokens(MemoryModel(long, SHAPES["llama-7b"]), 2**30) == 2048


def test_a_run_on_a_gpu_asks_the_same_formula(monkeypatch):
    """Without a GPU: only what is free of its memory is made up."""
    import torch
    from transformers import LlamaConfig

    from alpaca_lora.models.load import Placement
    from alpaca_lora.planning.steps import _auto_tokens

    config = FinetuneConfig.make("alpaca-lora-7b", output_dir="-")
    placement = Placement(torch.device("cuda"), torch.bfloat16)
    model_config = LlamaConfig()  # whose defaults are 7B's
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (23 * 2**30, 24 * 2**30))
    planned = alpaca_lora.plan("rtx4090", recipe="alpaca-lora-7b")
    assert _auto_tokens(config, model_config, placement) == planned.max_tokens > 1024


def test_counts_of_ones_own_data(demo_base):
    plans = {
        layout: alpaca_lora.plan(
            "l4", base_model="demo", data="seeds", layout=layout, batch_size=50, num_epochs=2, val_set_size=0.1
        )
        for layout in ("padded", "packed", "tree")
    }
    works = {layout: plan.work for layout, plan in plans.items()}
    assert {work.steps for work in works.values()} == {6}
    assert works["tree"].tokens < works["packed"].tokens < works["padded"].tokens
    assert works["tree"].predicted == works["packed"].predicted == works["padded"].predicted
    assert works["tree"].pairs < works["packed"].pairs  # shared prompts are seen through once
    assert plans["tree"].seconds < plans["padded"].seconds
    assert "157 examples of seeds in the layout tree" in works["tree"].source


def test_without_data_the_counts_are_alpacas():
    config = FinetuneConfig(base_model="x", data="x", output_dir="x")
    work = like_alpaca(config, 4096, 1)
    assert work.steps == 1218 and work.tokens == 1218 * 128 * 127
    assert not work.alone and work.largest[0].tokens == 4096
    assert like_alpaca(config, 4096, 8).alone and like_alpaca(config, 4096, 8).largest[0].tokens == 2032


def test_pairs_are_two_answers_and_dpo_has_a_reference():
    """A pass over the pairs more, however many epochs there are; a pair is never split."""
    made = {"base_model": "x", "data": "x", "output_dir": "x", "cutoff_len": 1024, "num_epochs": 2}
    works = {name: like_alpaca(FinetuneConfig(objective=name, **made), 1024, 1) for name in ("sft", "dpo", "orpo")}
    assert works["dpo"].tokens == works["orpo"].tokens == 2 * works["sft"].tokens
    assert [works[name].largest[0].tokens for name in works] == [1024, 2048, 2048]
    shape = SHAPES["llama-7b"]
    dpo, orpo = (works[name].operations(FinetuneConfig(objective=name, **made), shape) for name in ("dpo", "orpo"))
    forward = shape.forward_flops(works["dpo"].tokens, works["dpo"].pairs, works["dpo"].predicted)
    assert dpo - orpo == pytest.approx(forward / 2)


DOCS = (Path(__file__).parents[2] / "docs" / "planner.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^alpaca-lora (plan .*)", DOCS, re.MULTILINE))
def test_documented_commands(line, demo_base, capsys):
    words = shlex.split(line, comments=True)
    if "does not fit" in line:
        with pytest.raises(SystemExit):
            main(words)
    else:
        main(words)
    text = capsys.readouterr().out
    shown = DOCS.partition("What to change")[2].partition("```")[0].splitlines()[1:]
    assert ("What to change" in text) == ("does not fit" in line)
    assert all(change in text for change in shown) or "rtx4090" not in line


def test_it_fits_if_evaluation_does_too():
    plan = alpaca_lora.plan("mine", recipe="alpaca-qlora-7b", gpu_memory=7, gpu_tflops=50, gpus=8, max_tokens=16_384)
    assert plan.training.needed < 7 * 2**30 < plan.evaluation.needed == plan.needed and not plan.fits


def test_a_recipe_on_the_built_in_records_counts_them(demo_base):
    assert alpaca_lora.plan("l4", recipe="quickstart").work.steps == 15


def test_settings_are_options(demo_base, capsys):
    options = (
        "--batch_size 8 --val_set_size 4 --num_epochs 2 --cutoff_len 256 --lora_target_modules all-linear --lora_r 4"
    )
    main(["plan", "--base_model", "demo", "--data", "seeds", "--gpu", "l4", *options.split(), "--dtype", "float32"])
    assert "Time: 1 min for 42 steps" in capsys.readouterr().out


def test_impossible_questions():
    with pytest.raises(ConfigError) as caught:
        alpaca_lora.plan("t4", recipe="alpaca-7b", gpus=0, utilisation=2, price=-1)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["gpus", "utilisation", "price", "dtype"]
    with pytest.raises(ConfigError, match="gpu: 'a100-8g' is not in the table"):
        alpaca_lora.plan("a100-8g", recipe="alpaca-7b")
    with pytest.raises(ConfigError, match="Did you mean h100-80g or h100-pcie?"):
        alpaca_lora.plan("h100", recipe="alpaca-7b")
    with pytest.raises(ConfigError, match="gpus: 1.5 must be a whole number"):
        alpaca_lora.plan("h200", recipe="alpaca-lora-7b", gpus=1.5)
    with pytest.raises(ConfigError, match="'max_length' is not a setting. Here it is 'cutoff_len', see docs/migrating"):
        alpaca_lora.plan("h200", recipe="alpaca-7b", max_length=512)
    with pytest.raises(ConfigError, match="batch_size: 128 examples cannot be split over 129 GPUs"):
        alpaca_lora.plan("h200", recipe="alpaca-7b", gpus=129)
    with pytest.raises(ConfigError, match="fsdp: quantised weights cannot be sharded"):
        alpaca_lora.plan("h200", recipe="alpaca-qlora-7b", fsdp=True)
    with pytest.raises(ConfigError, match="lora_r: 4,097 is more than 4,096, q_proj's smaller side"):
        alpaca_lora.plan("h200", recipe="alpaca-lora-7b", lora_r=4097)
    with pytest.raises(ConfigError, match="'max_token' is not a setting"):
        alpaca_lora.plan("h200", recipe="alpaca-7b", max_token=1)
    with pytest.raises(ConfigError, match="lora_target_modules: 'q_projj' is no linear module"):
        str(alpaca_lora.plan("h200", recipe="alpaca-lora-7b", lora_target_modules=["q_projj"]))


def test_the_command(capsys):
    main(["plan", "--recipe", "alpaca-13b", "--gpu", "a100-80g", "--gpus", "8", "--price", "1.9"])
    text = capsys.readouterr().out
    assert "13.02B parameters), full, tree, 8 x a100-80g, sharded (FSDP2)" in text
    assert "Money: " in text and "3 hours, less than $100" in text and "It fits" in text
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--recipe", "alpaca-7b", "--gpu", "mine", "--gpu_memory", "24", "--gpu_tflops", "100"])
    assert ended.value.code == 1
    assert "What to change" in capsys.readouterr().out


def test_a_batch_of_more_than_there_is():
    with pytest.raises(ConfigError, match="batch_size: 1,000,000 is more than Alpaca's 52,002 examples. Lower it."):
        alpaca_lora.plan("rtx3090", recipe="alpaca-lora-7b", batch_size=1_000_000)
