"""Early stopping and `keep: best`. Runs are real; where a test needs them, their validation losses are prescribed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alpaca_lora import Run, finetune
from alpaca_lora.errors import ConfigError, TrainingError
from alpaca_lora.generation.model import LocalModel
from alpaca_lora.runs.checkpoints import MANIFEST
from alpaca_lora.runs.run_card import run_card, run_line
from alpaca_lora.training import best_model, callbacks
from alpaca_lora.training.trainer import AlpacaTrainer

WEIGHTS = {"full": "model.safetensors"}
LOSSES = [9, 5, 4, 1, 2, 3, 2, 2, 2]


@pytest.fixture(scope="module")
def settings(short_base, records):
    return {
        "base_model": short_base,
        "data": [record._asdict() for record in records],
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_steps": 8,
        "warmup_steps": 0,
        "learning_rate": 1e-2,
        "eval_steps": 1,
        "save_steps": 3,
        "save_total_limit": 1,
        "keep": "best",
    }


@pytest.fixture
def prescribe(monkeypatch):
    """Sets a run's validation losses: before training, after the first step, and so on."""

    def prescribe(losses):
        def loss_sum(self, model, batch, planner, by_example):
            return losses[self.state.global_step] * int(planner.examples.supervised[batch.members].sum())

        monkeypatch.setattr(AlpacaTrainer, "_loss_sum", loss_sum)

    return prescribe


def weights(folder, method="lora"):
    return load_file(Path(folder) / WEIGHTS.get(method, "adapter_model.safetensors"))


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def numbers(run):
    return [{**line, "seconds": 0} for line in run.history], {**run.metrics, "train_seconds": 0}


def checkpoints(run):
    return {path.name for path in (run.output_dir / "checkpoints").iterdir()}


# The best evaluation's weights


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_best_evaluations_weights_are_the_result(settings, prescribe, tmp_path, method):
    prescribe(LOSSES)
    chosen = {**settings, "method": method}
    run = finetune(output_dir=tmp_path / "best", **chosen)
    last = finetune(output_dir=tmp_path / "last", **{**chosen, "keep": "last"})
    assert [line["loss"] for line in run.history if "loss" in line] == [
        line["loss"] for line in last.history if "loss" in line
    ]
    third = weights(run.output_dir / "checkpoints" / "checkpoint-3", method)
    assert same(weights(run.output_dir, method), third) and not same(weights(last.output_dir, method), third)
    assert checkpoints(run) == {"checkpoint-3", "checkpoint-8"}  # the best is never pruned
    metrics = run.metrics
    assert (metrics["kept"], metrics["kept_step"], metrics["best_step"], metrics["steps"]) == ("best", 3, 3, 8)
    assert metrics["eval_loss_after"] == metrics["eval_loss_best"] == 1
    assert (last.metrics["kept"], last.metrics["kept_step"], last.metrics["best_step"]) == ("last", 8, 3)
    assert last.metrics["eval_loss_after"] == 2 and last.metrics["eval_loss_best"] == 1
    card = (run.output_dir / "README.md").read_text(encoding="utf-8")
    assert "| kept | the weights after step 3 of 8, the best evaluation |" in card
    assert "| lowest validation loss, after step 3 | 1.0000 |" in (last.output_dir / "README.md").read_text()
    assert "kept: the weights after step 3 of 8, the best evaluation" in run_line(run.output_dir)
    assert "lowest validation loss: 1.0000, after step 3" in run_line(last.output_dir)


def test_samples_are_answered_by_what_is_kept(settings, prescribe, tmp_path, monkeypatch):
    """Each answer is the size of the matrices that would have given it."""

    def size(tensors):
        return str(math.fsum(tensor.double().abs().sum().item() for name, tensor in tensors if "lora_" in name))

    prescribe(LOSSES)
    monkeypatch.setattr(LocalModel, "generate", lambda self, instruction: size(self.model.named_parameters()))
    run = finetune(output_dir=tmp_path / "out", **settings, sample_instructions=["Name a cat."])
    (sample,) = run.samples
    assert sample["after"] == size(weights(run.output_dir / "checkpoints" / "checkpoint-3").items()) != sample["before"]


def test_of_equal_evaluations_the_earliest(settings, prescribe, tmp_path):
    prescribe([9, 5, 2, 2, 3, 2, 4, 4, 2])
    run = finetune(output_dir=tmp_path / "out", **settings)
    assert run.metrics["kept_step"] == 2
    assert same(weights(run.output_dir), weights(run.output_dir / "checkpoints" / "checkpoint-2"))


def test_nothing_better_than_before_training(settings, prescribe, tmp_path):
    prescribe([1, 5, 4, 3, 4, 5, 6, 7, 8])
    with pytest.warns(
        UserWarning,
        match=r"no evaluation was better than the one before training \(1.0000\): the best after it, step 3 with "
        r"3.0000, is kept .* Lower learning_rate \(it was 0.01\)",
    ):
        run = finetune(output_dir=tmp_path / "out", **settings)
    assert run.metrics["kept_step"] == 3 and run.metrics["eval_loss_before"] == 1


def test_a_finished_run_whose_result_is_gone_gets_the_best_again(settings, prescribe, tmp_path):
    prescribe(LOSSES)
    run = finetune(output_dir=tmp_path / "out", **settings)
    expected, before = weights(run.output_dir), numbers(run)
    (tmp_path / "out" / "adapter_model.safetensors").unlink()
    run = finetune(output_dir=tmp_path / "out", **settings, resume="auto")
    assert same(weights(run.output_dir), expected) and numbers(run) == before


def damaged(out):
    path = out / "checkpoints" / "checkpoint-3" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\1\0")


def test_a_damaged_best_checkpoint_is_made_again(settings, prescribe, tmp_path, monkeypatch):
    """It is gone, but the newest one is whole: steps are taken again, as nothing else gives its weights."""
    prescribe(LOSSES)
    expected = finetune(output_dir=tmp_path / "whole", **settings)
    plain = best_model.load_best

    def load_best(trainer, config, run):
        damaged(tmp_path / "out")
        plain(trainer, config, run)

    with monkeypatch.context() as patch:
        patch.setattr("alpaca_lora.training.pipeline.load_best", load_best)
        with pytest.raises(TrainingError, match="keep: the best evaluation's checkpoint-3 cannot be used: the content"):
            finetune(output_dir=tmp_path / "out", **settings)
    with pytest.warns(UserWarning, match="checkpoint-8 was set aside .*: its best evaluation's, checkpoint-3, cannot"):
        run = finetune(output_dir=tmp_path / "out", **settings, resume="auto")
    assert same(weights(run.output_dir), weights(expected.output_dir)) and numbers(run) == numbers(expected)


# Early stopping


def test_a_run_stops_early(settings, prescribe, tmp_path):
    prescribe([9, 5, 1, 0.995, 2, 3, 4, 5, 6])
    more = {"early_stopping_patience": 3, "early_stopping_threshold": 0.01, "keep": "last"}
    run = finetune(output_dir=tmp_path / "out", **{**settings, **more})
    assert [line["step"] for line in run.history if "loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in run.history if "stopped_early" in line] == [5]
    said = "stopped early after step 5 of 8: no evaluation of the last 3 was better than step 2's by 0.01"
    assert run.metrics["stopped_early"] == said
    assert (run.metrics["steps"], run.metrics["kept_step"], run.metrics["best_step"]) == (5, 5, 3)
    assert f"| ended | {said} |" in (run.output_dir / "README.md").read_text(encoding="utf-8")
    assert f"ended: {said}" in run_line(run.output_dir) and "stopped early after step 5" in run_card(run.output_dir)
    assert same(weights(run.output_dir), weights(run.output_dir / "checkpoints" / "checkpoint-5"))


def test_a_run_that_ends_by_itself_is_not_stopped_early(settings, prescribe, tmp_path):
    prescribe([9, 8, 7, 6, 5, 4, 5, 6, 7])
    run = finetune(output_dir=tmp_path / "out", **settings, early_stopping_patience=3)
    assert run.metrics["stopped_early"] is None and run.metrics["steps"] == 8
    assert not [line for line in run.history if "stopped_early" in line]


@pytest.fixture
def ended_in(tmp_path, monkeypatch):
    """Starts a run that breaks off before step `step + 1`, or with None once its steps are done."""

    def ended_in(settings, step):
        def before_step(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

        def save_run(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
            patch.setattr("alpaca_lora.training.pipeline.save_run", save_run)
            with pytest.raises(KeyboardInterrupt):
                finetune(output_dir=tmp_path / "out", **settings)
        return tmp_path / "out"

    return ended_in


@pytest.mark.parametrize("step", [2, 4, None])
def test_a_resumed_run_decides_as_one_that_went_through(settings, prescribe, ended_in, tmp_path, step):
    prescribe([9, 5, 1, 2, 3, 4, 5, 6, 7])
    settings = {**settings, "early_stopping_patience": 3}
    whole = finetune(output_dir=tmp_path / "whole", **settings)
    assert whole.metrics["steps"] == 5 and whole.metrics["kept_step"] == 2
    out = ended_in(settings, step)
    assert json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))["finished"] is False
    run = finetune(output_dir=out, **settings, resume=True)
    assert numbers(run) == numbers(whole) and same(weights(out), weights(whole.output_dir))
    assert (out / "eval_records.jsonl").read_bytes() == (whole.output_dir / "eval_records.jsonl").read_bytes()


def test_once_stopped_no_further_step_is_taken(settings, prescribe, ended_in, monkeypatch):
    """Its last checkpoint says so, whatever an evaluation would say now."""
    prescribe([9, 1, 2, 3, 4, 5, 6, 7, 8])
    settings = {**settings, "early_stopping_patience": 2}
    out = ended_in(settings, None)
    prescribe([0] * 9)
    monkeypatch.setattr(AlpacaTrainer, "training_step", None)
    run = finetune(output_dir=out, **settings, resume="auto")
    assert run.metrics["steps"] == 3 and run.metrics["kept_step"] == 1


# What is refused


def test_without_validation_nothing_can_decide(settings, tmp_path):
    with pytest.raises(ConfigError) as caught:
        finetune(output_dir=tmp_path / "out", **{**settings, "val_set_size": 0, "early_stopping_patience": 2})
    assert caught.value.problems == [
        "early_stopping_patience: needs validation records, and there are none. Set val_set_size or val_data.",
        "keep: needs validation records, and there are none. Set val_set_size or val_data.",
    ]


def test_how_often_is_evaluated_counts_where_it_decides(settings, prescribe, ended_in, tmp_path):
    prescribe(LOSSES)
    out = ended_in(settings, 4)
    with pytest.raises(ConfigError) as caught:
        finetune(output_dir=out, **{**settings, "eval_steps": 2}, resume=True)
    assert "resume: eval_steps was 1 and is 2 now" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        finetune(output_dir=out, **{**settings, "keep": "last"}, resume=True)
    assert caught.value.problems == [
        "resume: keep was 'best' and is 'last' now; a run is continued with its own settings only. Give it as it "
        "was, or begin a new run in another output_dir."
    ]
    shutil.rmtree(out)
    plain = {**settings, "keep": "last"}
    ended_in(plain, 4)
    finetune(output_dir=out, **{**plain, "eval_steps": 2}, resume=True)


def test_a_run_begun_before_there_was_a_choice_goes_on(settings, prescribe, ended_in):
    """Its run file names no such settings, and its checkpoints carry the identity of then."""
    prescribe(LOSSES)
    plain = {**settings, "keep": "last"}
    out = ended_in(plain, 4)
    content = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))
    for name in ("keep", "early_stopping_patience", "early_stopping_threshold"):
        del content["config"][name]
    (out / "alpaca_lora.json").write_text(json.dumps(content), encoding="utf-8")
    assert (out / "checkpoints" / "checkpoint-3" / MANIFEST).exists()
    run = finetune(output_dir=out, **plain, resume=True)
    assert run.metrics["kept"] == "last" and "set_aside" not in checkpoints(Run(out))
