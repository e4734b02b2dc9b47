"""float16 with the Trainer's gradient scaler, on a CPU as far as autocast goes there."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from alpaca_lora import FinetuneConfig, finetune
from alpaca_lora.errors import ConfigError, TrainingError
from alpaca_lora.models.load import Placement
from alpaca_lora.training import callbacks
from alpaca_lora.training.trainer import AlpacaTrainer

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(short_base, records):
    return {
        "base_model": short_base,
        "data": [record._asdict() for record in records],
        "dtype": "float16",
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_tokens": 150,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "lora_dropout": 0.1,
        "eval_steps": 2,
        "save_steps": 2,
    }


def losses(run):
    return [line.get("loss", line.get("eval_loss")) for line in run.history]


def steps(run):
    return [line for line in run.history if "loss" in line]


@pytest.fixture
def high_scale(monkeypatch):
    """The scaler begins so high that the first gradients overflow."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_are_those_of_float32_within_rounding(settings, tmp_path, method):
    settings = {**settings, "method": method, "lora_dropout": 0.0, "learning_rate": 1e-3}
    half = finetune(output_dir=tmp_path / "half", **settings)
    whole = finetune(output_dir=tmp_path / "whole", **{**settings, "dtype": "float32"})
    assert losses(half) == pytest.approx(losses(whole), rel=5e-3)
    assert losses(half) != losses(whole)
    if method == "lora":
        assert {tensor.dtype for tensor in load_file(half.output_dir / WEIGHTS).values()} == {torch.float32}


def test_the_scaler_steps_down_and_left_out_steps_are_counted(settings, tmp_path, high_scale):
    run = finetune(output_dir=tmp_path / "out", **{**settings, "max_steps": 30, "eval_steps": 100, "save_steps": 30})
    lines = steps(run)
    left_out = [line["step"] for line in lines if line.get("skipped")]
    assert left_out[:3] == [1, 2, 3] and len(left_out) < 30  # from the first on, until the scale fits
    for line in lines:
        assert ("grad_norm" in line) != ("skipped" in line)
    scaler = torch.load(run.output_dir / "checkpoints" / "checkpoint-30" / "scaler.pt", weights_only=True)
    assert scaler["scale"] == 2.0 ** (40 - len(left_out))
    json.loads((run.output_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()[0])


def test_a_resumed_run_is_the_uninterrupted_run(settings, tmp_path, monkeypatch, high_scale):
    """It is interrupted while steps are still left out: scale and learning rate go on from there."""
    settings = {**settings, "max_steps": 28, "eval_steps": 100}
    whole = finetune(output_dir=tmp_path / "whole", **settings)
    assert steps(whole)[12].get("skipped")

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 13:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
        with pytest.raises(KeyboardInterrupt):
            finetune(output_dir=tmp_path / "out", **settings)
    run = finetune(output_dir=tmp_path / "out", **settings, resume=True)
    assert losses(run) == losses(whole)
    assert [line.get("skipped") for line in steps(run)] == [line.get("skipped") for line in steps(whole)]
    assert (run.output_dir / WEIGHTS).read_bytes() == (whole.output_dir / WEIGHTS).read_bytes()


def test_gradients_that_overflow_at_any_scale_end_the_run(settings, tmp_path, monkeypatch):
    plain = AlpacaTrainer.compute_loss

    def compute_loss(self, *args, **kwargs):
        loss = plain(self, *args, **kwargs)
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(AlpacaTrainer, "compute_loss", compute_loss)
    said = r"step 17: the gradient is (nan|inf) even at a loss scale of 1, at learning rate .* on records .*Lower"
    with pytest.raises(TrainingError, match=said):  # 2 ** 16 is the scaler's first
        finetune(output_dir=tmp_path / "out", **{**settings, "max_steps": 30, "save_steps": 100, "eval_steps": 100})
    assert not (tmp_path / "out" / WEIGHTS).exists()
    lines = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text("utf-8").splitlines()]
    assert [line["skipped"] for line in lines if "loss" in line] == [1] * 16


def test_auto_takes_float16_on_cards_without_bfloat16(monkeypatch):
    from accelerate import PartialState

    monkeypatch.setattr(PartialState(cpu=True), "device", torch.device("cuda"), raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert Placement.choose("auto", float16=True).dtype == torch.float16  # answering, and training that scales
    assert Placement.choose("auto").dtype == torch.float32  # sharded training
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert Placement.choose("auto", float16=True).dtype == torch.bfloat16


def test_shards_are_not_scaled():
    with pytest.raises(ConfigError, match="dtype: 'float16' is not scaled over shards here"):
        FinetuneConfig(base_model="x", data="x", output_dir="x", fsdp=True, dtype="float16")
