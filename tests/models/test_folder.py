"""What a folder is told to be: the tools and mishaps that leave one which is not an adapter or a model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from alpaca_lora.models.folder import what_is

CASES = {
    "MLX": (["adapter_config.json", "adapters.safetensors"], "an adapter of MLX", "mlx_lm.fuse"),
    "MLX, old": (["adapters.npz"], "an adapter of MLX", "mlx_lm.fuse"),
    "LitGPT": (["lit_model.pth.lora", "hyperparameters.yaml", "tokenizer.json"], "LitGPT", "convert_from_litgpt"),
    "torchtune": (["adapter_0.pt", "adapter_config.json", "config.json"], "torchtune", "FullModelHFCheckpointer"),
    "Diffusers": (["pytorch_lora_weights.safetensors"], "Diffusers", "a language model"),
    "GGUF": (["lora-f16.gguf"], "GGUF", "it was made from"),
    "DeepSpeed": (["global_step100", "zero_to_fp32.py", "adapter_config.json"], "DeepSpeed", "zero_to_fp32"),
    "FSDP": (["__0_0.distcp", ".metadata"], "FSDP", "accelerate merge-weights"),
    "Meta": (["consolidated.00.pth", "params.json", "tokenizer.model"], "Meta", "convert_llama_weights_to_hf"),
    "pickled adapter": (["adapter_model.bin"], "a pickle", "save_pretrained"),
    "pickled model": (["pytorch_model.bin"], "a pickle", "save_pretrained"),
    "checkpoint's model": (
        ["pytorch_model-00001-of-00002.bin", "optimizer.pt", "rng_state.pth"],
        "a pickle",
        "load it",
    ),
    "no config": (["adapter_model.safetensors"], "weights without their adapter_config.json", "Copy that"),
    "no weights": (["adapter_config.json", "README.md", "training_args.bin"], "an adapter without weights", "Copy"),
    "no model config": (["model.safetensors"], "weights without a config.json", "Copy that"),
    "no model weights": (["config.json", "tokenizer.json"], "a model's folder without weights", "Copy its safetensors"),
    "whole": (["config.json", "model.safetensors", "optimizer.pt", "f16.gguf"], "a whole model", "as it is"),
    "difference": (["diff.json", "model.safetensors"], "a weight difference", "diff apply"),
    "run": (["checkpoints", "history.jsonl"], "a run that has not ended", "--resume auto"),
    "tokenizer": (["tokenizer.json", "tokenizer_config.json"], "a tokenizer without a model", "it belongs to"),
    "empty": ([], "an empty folder", "finetune wrote"),
    "other": (["a.txt", "b.txt", "c.txt", "d.txt"], "(it holds a.txt, b.txt, c.txt, ...)", "finetune wrote"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_folder_is(tmp_path, case):
    names, what, advice = CASES[case]
    for name in names:
        (tmp_path / name).touch()
    found = what_is(tmp_path)
    assert what in found[0] and advice in found[1]


def test_a_folder_of_adapters_names_the_last_ones(tmp_path):
    for name in ("checkpoint-50", "checkpoint-400", "checkpoint-1000", "runs"):
        (tmp_path / name).mkdir()
        if name != "runs":
            (tmp_path / name / "adapter_config.json").touch()
    what, advice = what_is(tmp_path)
    assert what == "a folder of such folders"
    assert advice == f"Give one of them: {', '.join(str(tmp_path / f'checkpoint-{n}') for n in (50, 400, 1000))}."


def test_a_file_is_not_its_folder(tmp_path):
    for name, what in (
        ("adapter_model.safetensors", "a file (adapter_model"),
        ("q4.gguf", "GGUF"),
        ("x.bin", "a file"),
    ):
        (tmp_path / name).touch()
        assert what in what_is(tmp_path / name)[0]
    assert what_is(tmp_path / "nowhere")[0] == what_is("~nobody-of-this-name")[0] == "no such folder"


def test_an_adapter_whose_weights_are_gone_is_not_named_after_its_checkpoints(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    for folder in (tmp_path, checkpoint):
        (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert what_is(tmp_path) == (
        "an adapter without weights",
        "Copy adapter_model.safetensors there from where it was made.",
    )


def test_a_process_that_is_told_of_others_which_are_not_there():
    program = "from alpaca_lora.models.distributed import processes; processes()"
    several = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **several}, capture_output=True, text=True, timeout=600
    )
    assert "ConfigError: several processes cannot be joined: " in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].endswith("for one process, unset WORLD_SIZE, RANK and LOCAL_RANK.")
