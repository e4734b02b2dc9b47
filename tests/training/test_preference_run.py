"""A whole run on preferences: its files, its reference, kills and resumes."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from alpaca_lora import finetune
from alpaca_lora.errors import RunInterrupted, TrainingError
from alpaca_lora.training.preference_trainer import PreferenceTrainer

PAIRS = [
    {"instruction": f"Say {word}.", "chosen": f"{word}!", "rejected": f"I would rather not say {word} today."}
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
]


def settings(base: str, **other: Any) -> dict[str, Any]:
    return {
        "base_model": base,
        "data": PAIRS,
        "objective": "dpo",
        "val_set_size": 4,
        "batch_size": 4,
        "num_epochs": 3,
        "learning_rate": 3e-3,
        "lora_dropout": 0.0,
        "eval_steps": 2,
        "save_steps": 2,
        "max_tokens": 64,
        "cutoff_len": 64,
        **other,
    }


@pytest.fixture(scope="module")
def run(tiny_base: str, tmp_path_factory: Any) -> Any:
    return finetune(output_dir=str(tmp_path_factory.mktemp("dpo") / "run"), **settings(tiny_base))


def test_history_and_card(run):
    """At the start policy and reference are one: a loss of log 2, rewards of 0."""
    first = next(line for line in run.history if "eval_loss" in line)
    assert first["step"] == 0
    assert first["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert [first[f"eval_rewards/{name}"] for name in ("chosen", "rejected", "margins")] == pytest.approx(
        [0] * 3, abs=1e-5
    )
    steps = [line for line in run.history if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    for line in steps:
        assert line["rewards/margins"] == pytest.approx(line["rewards/chosen"] - line["rewards/rejected"])
        assert line["rewards/accuracies"] in (0, 0.25, 0.5, 0.75, 1)
    last = run.history[-1]
    assert run.metrics["rewards"] == {
        "margin": last["eval_rewards/margins"],
        "accuracy": last["eval_rewards/accuracies"],
    }
    assert last["eval_rewards/margins"] > 0.01  # answers of six tokens against ones of twenty are easily told apart
    card = (run.output_dir / "README.md").read_text(encoding="utf-8")
    assert "| objective | DPO, beta 0.1 |" in card
    assert "| pairs with the chosen answer rewarded higher | 1.0000 |" in card
    assert "chosen higher in 100%" in str(run)


def test_losses_by_record(run):
    header, *lines = map(json.loads, (run.output_dir / "eval_records.jsonl").read_text(encoding="utf-8").splitlines())
    assert header["tokens"] == [1, 1, 1, 1]
    evaluations = [line for line in run.history if "eval_loss" in line]
    assert [sum(line["losses"]) / 4 for line in lines] == pytest.approx([line["eval_loss"] for line in evaluations])


def test_the_picture_has_margin_and_accuracy(run):
    figure = run.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss (nats per pair)",
        "margin of rewards (nats)",
        "accuracy",
    ]


def test_orpo_has_no_reference(tiny_base, tmp_path):
    run = finetune(output_dir=str(tmp_path / "run"), **settings(tiny_base, objective="orpo", learning_rate=1e-3))
    assert not (tmp_path / "run" / "reference.safetensors").exists()
    header, *lines = map(json.loads, (run.output_dir / "eval_records.jsonl").read_text(encoding="utf-8").splitlines())
    evaluations = [line for line in run.history if "eval_loss" in line]
    means = [sum(line["losses"]) / sum(header["tokens"]) for line in lines]
    assert means == pytest.approx([line["eval_loss"] for line in evaluations])
    assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"]


def contents(folder: Path) -> dict[str, bytes]:
    """What must be the same: adapter, reference, history without times."""
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = json.dumps([{key: value for key, value in line.items() if key != "seconds"} for line in history])
    names = ("adapter_model.safetensors", "reference.safetensors", "eval_records.jsonl")
    return {**{name: (folder / name).read_bytes() for name in names}, "history": lines.encode()}


@pytest.mark.parametrize(
    "stop_after", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
def test_resumed_is_uninterrupted(run, tiny_base, tmp_path, stop_after):
    """By bytes; the run's own reference may be lost, for each checkpoint has a copy."""
    folder = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        finetune(output_dir=str(folder), stop_after=stop_after, **settings(tiny_base))
    (folder / "reference.safetensors").unlink()
    finetune(output_dir=str(folder), resume=True, **settings(tiny_base))
    assert contents(folder) == contents(run.output_dir)


def test_told_to_stop_before_the_first_step(run, tiny_base, tmp_path, monkeypatch):
    """A real signal, which comes while the reference is computed: what there is of it is not kept."""
    plain = PreferenceTrainer.find_reference

    def find_reference(self: PreferenceTrainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        plain(self)

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(PreferenceTrainer, "find_reference", find_reference)
        with pytest.raises(RunInterrupted, match="stopped by SIGTERM before its first step; the same with --resume"):
            finetune(output_dir=str(folder), **settings(tiny_base))
    assert not (folder / "reference.safetensors").exists()
    finetune(output_dir=str(folder), resume="auto", **settings(tiny_base))
    assert contents(folder) == contents(run.output_dir)


def test_a_checkpoint_without_its_reference_is_none(run, tiny_base, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        finetune(output_dir=str(folder), stop_after=3, **settings(tiny_base))
    (folder / "checkpoints" / "checkpoint-3" / "reference.safetensors").unlink()
    with pytest.warns(UserWarning, match="checkpoint-3 was set aside .* it lacks reference.safetensors"):
        finetune(output_dir=str(folder), resume=True, **settings(tiny_base))
    assert contents(folder) == contents(run.output_dir)


def test_the_reference_is_the_adapter_that_goes_on(run, tiny_base, tmp_path):
    again = finetune(
        output_dir=str(tmp_path / "again"), **settings(tiny_base, adapter=str(run.output_dir), num_epochs=1)
    )
    first = next(line for line in again.history if "eval_loss" in line)
    assert first["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    before, after = (load_file(one.output_dir / "reference.safetensors") for one in (run, again))
    assert abs(before["validation"] - after["validation"]).max() > 0.01


def test_what_the_run_never_sees_is_not_computed(tiny_base, tmp_path):
    finetune(output_dir=str(tmp_path / "run"), **settings(tiny_base, max_steps=1))
    reference = load_file(tmp_path / "run" / "reference.safetensors")
    assert reference["train"].shape == (16,) and (reference["train"] == reference["train"]).sum() == 8
    assert (reference["validation"] < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
@pytest.mark.parametrize("objective", ["dpo", "orpo"])
def test_layouts_follow_one_curve(tiny_base, tmp_path, layout, objective):
    given = settings(tiny_base, objective=objective, num_epochs=1, learning_rate=1e-3)
    runs = [
        finetune(output_dir=str(tmp_path / f"{name}-{tokens}"), **{**given, "layout": name, "max_tokens": tokens})
        for name, tokens in ((layout, 64), ("padded", 4096))
    ]
    found, expected = ([line["eval_loss"] for line in run.history if "eval_loss" in line] for run in runs)
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.slow
def test_full_fine_tuning(tiny_base, tmp_path):
    run = finetune(output_dir=str(tmp_path / "run"), **settings(tiny_base, method="full", learning_rate=1e-4))
    evaluations = [line for line in run.history if "eval_loss" in line]
    assert evaluations[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert evaluations[-1]["eval_rewards/margins"] > 0


@pytest.mark.slow
def test_qlora(tiny_base, tmp_path):
    pytest.importorskip("bitsandbytes")
    run = finetune(output_dir=str(tmp_path / "run"), **settings(tiny_base, method="qlora", num_epochs=1))
    assert run.history[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_base_that_is_no_number(tiny_base, tmp_path):
    """Told before the first step, by the record."""
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file

    base = tmp_path / "base"
    base.mkdir()
    for path in Path(tiny_base).iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    weights = load_torch(base / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"no likelihood for the answers of record \d+: its logits are NaN or Inf"):
        finetune(output_dir=str(tmp_path / "run"), **settings(str(base)))
