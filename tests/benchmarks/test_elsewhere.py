"""The benchmark of other people's programs, with a tiny model: it ends with a row for each, or why there is none."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from alpaca_lora import finetune

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_rows_of_a_tiny_adapter(short_base_bpe, short_seeds, tmp_path):
    pytest.importorskip("xllamacpp")
    run, out = tmp_path / "run", tmp_path / "elsewhere.json"
    shape = {"lora_target_modules": "all-linear", "lora_r": 4, "batch_size": 8, "max_steps": 2, "cutoff_len": 256}
    finetune(base_model=short_base_bpe, data=short_seeds, output_dir=str(run), learning_rate=0.01, **shape)
    command = [sys.executable, str(ROOT / "benchmarks" / "elsewhere.py"), str(run), "--here", "--tokens", "6"]
    rows = ["alpaca_lora", "adapter", "f16", "q8_0"]
    more = ["--work", str(tmp_path / "work"), "--out", str(out), "--only", *rows]
    ended = subprocess.run([*command, *more], capture_output=True, text=True)
    found = {row["name"]: row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}
    if importlib.util.find_spec("vllm") is None:
        assert ended.returncode == 1, ended.stderr
        vllm = [found.pop(name) for name in ("vLLM, adapter", "vLLM, two adapters at once")]
        assert all("No module named 'vllm'" in row["error"] for row in vllm)
    names = ["alpaca_lora, merged", "transformers + peft, adapter", "llama.cpp, f16", "llama.cpp, q8_0"]
    assert [*found] == names
    limits = dict(zip(names, (1e-5, 1e-5, 0.02, 0.2), strict=True))
    for name, row in found.items():
        assert "error" not in row, row
        assert row["prompts"] == row["of"] == 20
        assert row["logprob_difference"] < limits[name] and abs(row["kl"]) < limits[name]
        assert all(part["nats_ahead"] < 2 * limits[name] for part in row["first_differences"])
        assert f"| {name} | 20 of 20 |" in ended.stdout
