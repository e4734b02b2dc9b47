"""Recipes, the tables about them, and the scripts that start them: everything they name exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from alpaca_lora.config import FinetuneConfig, recipe_names, recipe_path
from alpaca_lora.models.geometry import SHAPES, Geometry

ROOT = Path(__file__).parents[1]
GEOMETRIES = {
    "huggyllama/llama-7b": SHAPES["llama-7b"],
    "huggyllama/llama-13b": SHAPES["llama-13b"],
    "demo": Geometry(49_152, 576, 1536, 30, 9, 3, head_dim=64, tie_word_embeddings=True),
}
SETTINGS = {entry.name for entry in fields(FinetuneConfig)}
SLURM = ROOT / "examples" / "slurm" / "alpaca-7b.sbatch"
SKYPILOT = ROOT / "examples" / "skypilot" / "alpaca-7b.yaml"


def test_names():
    sizes = {f"{kind}-{size}" for kind in ("alpaca", "alpaca-lora", "alpaca-qlora") for size in ("7b", "13b")}
    assert set(recipe_names()) == sizes | {"alpaca-dpo-7b", "medalpaca-lora-7b", "quickstart"}


@pytest.mark.parametrize(("size", "rate", "epochs"), [("7b", 2e-5, 3), ("13b", 1e-5, 5)])
def test_stanfords_numbers(size, rate, epochs):
    config = FinetuneConfig.make(recipe=f"alpaca-{size}")
    assert (config.method, config.fsdp, config.dtype) == ("full", True, "bfloat16")
    assert (config.learning_rate, config.num_epochs, config.batch_size) == (rate, epochs, 128)
    assert (config.cutoff_len, config.weight_decay, config.lr_scheduler) == (512, 0, "cosine")
    assert (config.warmup_steps, config.val_set_size, config.prompt_template) == (0.03, 0, "alpaca_legacy")


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_alpaca_loras_numbers(size):
    config = FinetuneConfig.make(recipe=f"alpaca-lora-{size}")
    assert (config.method, config.fsdp, config.dtype) == ("lora", False, "bfloat16")
    assert (config.lora_r, config.lora_alpha, config.lora_dropout) == (16, 16, 0.05)
    assert config.lora_target_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (config.learning_rate, config.num_epochs, config.batch_size) == (3e-4, 3, 128)
    assert (config.cutoff_len, config.val_set_size, config.warmup_steps) == (512, 2000, 100)


def test_zephyrs_numbers():
    """Those of its DPO, with a learning rate for LoRA; the matrices are those of the adapter it goes on from."""
    config, parent = (FinetuneConfig.make(recipe=f"alpaca-{kind}-7b") for kind in ("dpo", "lora"))
    assert (config.objective, config.beta, config.num_epochs, config.warmup_steps) == ("dpo", 0.1, 1, 0.1)
    assert (config.learning_rate, config.lr_scheduler) == (5e-6, "cosine")
    assert config.adapter == parent.output_dir
    for name in ("base_model", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "prompt_template"):
        assert getattr(config, name) == getattr(parent, name)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_can_be_built(name):
    """Its config is valid, and its LoRA fits its base model, built without weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alpaca_lora.models.lora import add_lora

    config = FinetuneConfig.make(recipe=name)
    assert config.output_dir == f"runs/{name}"
    geometry = GEOMETRIES[config.base_model]
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**asdict(geometry)))
    expected = geometry.parameters
    if config.method != "full":
        settings = {"r": config.lora_r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
        model = add_lora(model, **settings, targets=config.lora_target_modules)
        expected = geometry.lora_parameters(config.lora_r, config.lora_target_modules)
    assert sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad) == expected


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_begins_with_what_it_is(name):
    first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# .{20,}\.", first)


def test_scaling_tables_are_what_the_script_prints():
    spec = importlib.util.spec_from_file_location("memory", ROOT / "benchmarks" / "memory.py")
    memory = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(memory)
    assert memory.report(4096) in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def finetune_commands(text):
    """(recipe, options) of every `finetune` command in a text, continuation lines joined."""
    lines = re.findall(r"finetune --[^\n]*", re.sub(r"\\\n\s*", "", text))
    for line in lines:
        words = shlex.split(line, comments=True)
        yield words[words.index("--recipe") + 1], {word[2:] for word in words if word.startswith("--")}


@pytest.mark.parametrize("path", [SLURM, SKYPILOT, ROOT / "docs" / "scaling.md"], ids=lambda path: path.name)
def test_commands_name_what_exists(path):
    commands = list(finetune_commands(path.read_text(encoding="utf-8")))
    assert commands
    for recipe, options in commands:
        assert recipe in recipe_names()
        assert options - {"recipe"} <= SETTINGS


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", SLURM], check=True)
    directives = re.findall(r"^#SBATCH --([\w-]+)", SLURM.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"nodes", "gpus-per-node", "requeue", "signal", "open-mode"} <= set(directives)


def test_the_skypilot_task_is_yaml_and_bash():
    task = yaml.safe_load(SKYPILOT.read_text(encoding="utf-8"))
    assert set(task) == {"name", "workdir", "num_nodes", "resources", "setup", "run"}
    assert set(task["resources"]["accelerators"].values()) == {8}
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n", "-c", task[part]], check=True)
    for file in ("constraints.txt", "pyproject.toml"):
        assert (ROOT / file).exists()


@pytest.mark.parametrize("path", [SLURM, SKYPILOT], ids=lambda path: path.name)
def test_launchers_use_torchruns_own_options(path):
    from torch.distributed.run import get_args_parser

    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    (command,) = re.findall(r"torchrun (.*) -m alpaca_lora", text)
    assert set(re.findall(r"--\w+", command)) <= known
