"""A run from data to adapter: what it writes, that it is exact, that it resumes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpaca_lora import FinetuneConfig, finetune
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.records import split_records
from alpaca_lora.errors import AlpacaLoraError, ConfigError, ModelError, TrainingError
from alpaca_lora.planning.preparation import prepare
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile
from alpaca_lora.training import callbacks

WEIGHTS = "adapter_model.safetensors"
STEP_KEYS = {
    *("step", "epoch", "loss", "learning_rate", "grad_norm"),
    *("supervised_tokens", "computed_tokens", "seconds"),
}


@pytest.fixture(scope="module")
def rows(records):
    return [record._asdict() for record in records]


@pytest.fixture(scope="module")
def settings(short_base, rows):
    """A run of 5 steps of 4 records: 2 steps an epoch, so it ends in the middle of the third."""
    return {
        "base_model": short_base,
        "data": rows,
        "dtype": "float32",
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_steps": 5,
        "learning_rate": 1e-2,
        "lora_dropout": 0.1,
        "eval_steps": 2,
        "save_steps": 2,
    }


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """The uninterrupted run."""
    return finetune(output_dir=tmp_path_factory.mktemp("runs") / "whole", **settings)


def losses(run):
    return [(line["step"], line.get("loss"), line.get("eval_loss")) for line in run.history]


def weights(run):
    return (run.output_dir / WEIGHTS).read_bytes()


def refused(out, **settings):
    with pytest.raises(AlpacaLoraError) as caught:
        finetune(output_dir=out, **settings)
    assert not (Path(out) / WEIGHTS).exists()
    return caught.value


# What a run writes


def test_every_file_of_a_run(whole):
    names = {entry.name for entry in whole.output_dir.iterdir()}
    files = {WEIGHTS, "adapter_config.json", "alpaca_lora.json", "history.jsonl", "loss.png", "README.md"}
    assert files <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert (whole.output_dir / "loss.png").read_bytes().startswith(b"\x89PNG")
    kept = sorted(entry.name for entry in (whole.output_dir / "checkpoints").iterdir())
    assert kept == ["checkpoint-4", "checkpoint-5"]  # the last two


def test_the_history(whole):
    lines = [json.loads(line) for line in (whole.output_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == whole.history
    steps = [line for line in lines if "loss" in line]
    assert [set(line) for line in steps] == [STEP_KEYS] * 5
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5]
    assert [line["epoch"] for line in steps] == [0.5, 1, 1.5, 2, 2.5]
    evaluations = [line for line in lines if "eval_loss" in line]
    assert [set(line) for line in evaluations] == [{"step", "epoch", "eval_loss"}] * 4
    assert [line["step"] for line in evaluations] == [0, 2, 4, 5]
    assert lines[0] is evaluations[0]
    assert steps[0]["loss"] == pytest.approx(8.3, abs=0.3)  # ln 4,000


def test_the_run_file(whole, settings, short_base):
    content = json.loads((whole.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["finished"] is True
    assert content["seed"] == 42
    assert content["config"]["batch_size"] == 4
    assert content["config"]["data"] == "<list>"
    assert content["versions"].keys() >= {"alpaca-lora", "torch", "transformers", "peft"}
    assert content["data"]["train_records"] == 10
    assert content["data"]["validation_records"] == 2
    assert len(content["data"]["fingerprint"]) == 64
    assert content["contract"]["base_model"] == short_base
    assert content["contract"]["eos_id"] == 2
    assert content["contract"]["stop_ids"] == [2]
    assert content["contract"]["prefix_ids"] == [1]
    assert content["contract"]["template"]["prompt_no_input"].endswith("### Response:\n")
    steps = [line for line in whole.history if "loss" in line]
    assert whole.metrics["steps"] == 5
    assert whole.metrics["loss"] == steps[-1]["loss"]
    assert whole.metrics["eval_loss_before"] == whole.history[0]["eval_loss"]
    assert whole.metrics["eval_loss_after"] == whole.history[-1]["eval_loss"]
    assert whole.metrics["supervised_tokens"] == sum(line["supervised_tokens"] for line in steps)


def test_the_model_card(whole, short_base):
    card = (whole.output_dir / "README.md").read_text(encoding="utf-8")
    assert short_base in card
    assert "10 records to train on, 2 to validate" in card
    assert f"{whole.metrics['eval_loss_after']:.4f}" in card
    assert "## Limits" in card and "## Licence" in card


def test_a_step_is_exactly_the_planned_examples(whole, settings):
    config = FinetuneConfig(output_dir="unused", **settings)
    examples = prepare(config, config.base_model).train
    planner = Planner(examples, "padded", config.max_tokens)
    members = [step for epoch in range(3) for step in planner.step_members(4, config.seed, epoch)][:5]
    assert all(len(step) == 4 for step in members)
    planned = [int(examples.supervised[step].sum()) for step in members]
    assert [line["supervised_tokens"] for line in whole.history if "loss" in line] == planned


def test_without_validation(settings, tmp_path):
    run = finetune(output_dir=tmp_path / "out", **{**settings, "val_set_size": 0, "max_steps": 1})
    assert [set(line) for line in run.history] == [STEP_KEYS]
    assert run.metrics["eval_loss_before"] is None
    assert (run.output_dir / "loss.png").exists()
    assert "validation loss" not in (run.output_dir / "README.md").read_text(encoding="utf-8")


def test_whole_epochs_without_max_steps(settings, tmp_path):
    """10 records in steps of 3: 3 steps an epoch, the tenth record waits for the next."""
    plan = {"batch_size": 3, "max_steps": None, "num_epochs": 2, "save_steps": 100, "eval_steps": 100}
    run = finetune(output_dir=tmp_path / "out", **{**settings, **plan})
    assert [line["step"] for line in run.history if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert run.history[-1] == {"step": 6, "epoch": 2.0, "eval_loss": run.metrics["eval_loss_after"]}


# Exactness


def test_the_same_seed_gives_the_same_run(whole, settings, tmp_path):
    again = finetune(output_dir=tmp_path / "again", **settings)
    assert losses(again) == losses(whole)
    assert weights(again) == weights(whole)
    other = finetune(output_dir=tmp_path / "other", **{**settings, "seed": 43, "max_steps": 1})
    assert losses(other)[1] != losses(whole)[1]


def test_loss_falls(settings, tmp_path, tiny_llama, short_tokenizers):
    base = tiny_llama(len(short_tokenizers["sentencepiece"]), hidden=32)
    with torch.no_grad():  # the head is frozen: a random one of the usual size could tell no token from another
        base.lm_head.weight *= 50
    base.save_pretrained(tmp_path / "base")
    short_tokenizers["sentencepiece"].save_pretrained(tmp_path / "base")
    overfit = {"max_steps": 40, "lora_r": 16, "lora_target_modules": "all-linear", "lora_dropout": 0.0}
    quick = {"val_set_size": 0, "learning_rate": 3e-2, "save_steps": 100, "batch_size": 12}
    run = finetune(output_dir=tmp_path / "out", **{**settings, **overfit, **quick, "base_model": tmp_path / "base"})
    first, *_, last = [loss for _, loss, _ in losses(run)]
    assert last < 0.5 * first


@pytest.mark.parametrize(
    "change",
    [{"max_tokens": 150}, {"gradient_checkpointing": True}],
    ids=["more micro-batches", "gradient checkpointing"],
)
def test_what_saves_memory_changes_no_number(settings, tmp_path, change):
    settings = {**settings, "lora_dropout": 0.0, "max_steps": 3}
    plain = finetune(output_dir=tmp_path / "plain", **settings)
    saving = finetune(output_dir=tmp_path / "saving", **settings, **change)
    for old, new in zip(plain.history, saving.history, strict=True):
        name = "loss" if "loss" in old else "eval_loss"
        assert new[name] == pytest.approx(old[name], rel=1e-5)
    old, new = load_file(plain.output_dir / WEIGHTS), load_file(saving.output_dir / WEIGHTS)
    for name in old:
        torch.testing.assert_close(new[name], old[name], rtol=1e-2, atol=1e-4)
    assert [name for name in new if not new[name].any()] == []


def test_a_bfloat16_base_trains_a_float32_adapter(settings, tmp_path):
    run = finetune(output_dir=tmp_path / "out", **{**settings, "dtype": "bfloat16", "max_steps": 2})
    assert {tensor.dtype for tensor in load_file(run.output_dir / WEIGHTS).values()} == {torch.float32}
    assert losses(run)[1][1] == pytest.approx(8.3, abs=0.3)


def test_without_clipping_the_history_still_has_the_gradient_norm(settings, tmp_path):
    run = finetune(output_dir=tmp_path / "out", **{**settings, "max_grad_norm": 0, "max_steps": 1})
    assert STEP_KEYS in [set(line) for line in run.history]


def test_samples_are_answered_before_and_after(settings, tmp_path):
    more = {"sample_instructions": ["Name a cat."], "max_steps": 1, "val_set_size": 0}
    run = finetune(output_dir=tmp_path / "out", **{**settings, **more})
    (sample,) = run.samples
    assert sample.keys() == {"instruction", "before", "after"}
    assert sample["instruction"] == "Name a cat."


# Resuming


@pytest.fixture
def interrupt(tmp_path, monkeypatch):
    """Starts a run that ends in its fourth step: checkpoint-2 is there, and a third step in the history."""

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    def interrupt(settings):
        with monkeypatch.context() as patch:
            patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
            with pytest.raises(KeyboardInterrupt):
                finetune(output_dir=tmp_path / "out", **settings)
        return tmp_path / "out"

    return interrupt


@pytest.fixture
def interrupted(interrupt, settings):
    return interrupt(settings)


def test_a_resumed_run_is_the_uninterrupted_run(whole, settings, interrupted):
    assert json.loads((interrupted / "alpaca_lora.json").read_text(encoding="utf-8"))["finished"] is False
    assert not (interrupted / WEIGHTS).exists()
    assert [entry.name for entry in (interrupted / "checkpoints").iterdir()] == ["checkpoint-2"]
    run = finetune(output_dir=interrupted, **settings, resume=True)
    assert losses(run) == losses(whole)
    assert weights(run) == weights(whole)
    assert json.loads((interrupted / "alpaca_lora.json").read_text(encoding="utf-8"))["finished"] is True


def test_full_fine_tuning_resumes_too(settings, interrupt, tmp_path):
    settings = {**settings, "method": "full", "learning_rate": 1e-3, "max_steps": 4}
    whole = finetune(output_dir=tmp_path / "whole", **settings)
    run = finetune(output_dir=interrupt(settings), **settings, resume="auto")
    assert losses(run) == losses(whole)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert run.generate("Name a cat.", max_new_tokens=3) == whole.generate("Name a cat.", max_new_tokens=3)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(whole, settings, tmp_path):
    out = Path(shutil.copytree(whole.output_dir, tmp_path / "out"))
    run = finetune(output_dir=out, **settings, resume=True)
    assert losses(run) == losses(whole)
    assert weights(run) == weights(whole)


def test_other_settings_are_not_resumed(settings, interrupted, rows):
    other = {**settings, "learning_rate": 1e-3, "batch_size": 2, "resume": True}
    problems = refused(interrupted, **other).problems
    assert problems == [
        "resume: batch_size was 4 and is 2 now; a run is continued with its own settings only. Give "
        "it as it was, or begin a new run in another output_dir.",
        "resume: learning_rate was 0.01 and is 0.001 now; a run is continued with its own settings only. Give "
        "it as it was, or begin a new run in another output_dir.",
    ]


def test_other_data_or_another_base_are_not_resumed(settings, interrupted, rows, tiny_llama, tmp_path):
    error = refused(interrupted, **{**settings, "data": rows[::-1], "resume": True})
    assert str(error).startswith("resume: the records changed since the run began. Restore what it began with")
    base = Path(shutil.copytree(settings["base_model"], tmp_path / "base"))
    again = {**settings, "base_model": str(base), "max_steps": 2}
    finetune(output_dir=tmp_path / "second", **again)
    tiny_llama(4_000, hidden=32, seed=1).save_pretrained(base)
    with pytest.raises(ConfigError, match="resume: the base model's weights changed since the run began"):
        finetune(output_dir=tmp_path / "second", **again, resume=True)


def test_nothing_to_resume(settings, tmp_path):
    error = refused(tmp_path / "out", **settings, resume=True)
    assert "out holds no run. Start it without resume, or with resume=auto." in str(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_run_file(settings, tmp_path, text):
    (tmp_path / "alpaca_lora.json").write_text(text, encoding="utf-8")
    error = refused(tmp_path, **settings, resume=True)
    assert "resume:" in str(error) and "alpaca_lora.json: damaged: " in str(error)
    assert str(error).endswith("Or start the run anew, in a new output_dir.")


def test_a_run_file_that_is_not_a_runs(settings, tmp_path):
    contract = Contract("base", "-", {}, "-", prefix_ids=[1], eos_id=2, stop_ids=[2], pad_id=None)
    RunFile(contract, merge={"dtype": "float32"}).write(tmp_path)
    error = refused(tmp_path, **settings, resume=True)
    assert "alpaca_lora.json is not a run's. Start the run in a new output_dir." in str(error)


def test_no_checkpoint_to_resume_from(whole, settings, interrupted):
    shutil.rmtree(interrupted / "checkpoints")
    error = refused(interrupted, **settings, resume=True)
    assert "holds no valid checkpoint of this run. resume=auto starts it from its first step." in str(error)
    run = finetune(output_dir=interrupted, **settings, resume="auto")
    assert losses(run) == losses(whole)
    assert weights(run) == weights(whole)


def test_a_torn_checkpoint_is_passed_over(whole, settings, interrupted):
    good = interrupted / "checkpoints" / "checkpoint-2"
    shutil.copytree(good, good.with_name("checkpoint-3"), ignore=shutil.ignore_patterns("optimizer.pt"))
    with pytest.warns(UserWarning, match="resume: checkpoint-3 was set aside .*: its manifest.json is that of step 2"):
        run = finetune(output_dir=interrupted, **settings, resume=True)
    assert losses(run) == losses(whole)
    assert weights(run) == weights(whole)


def test_settings_that_change_no_number_may_differ(settings, interrupted):
    finetune(output_dir=interrupted, **{**settings, "save_steps": 1, "max_tokens": 300}, resume=True)


# What is refused


def test_output_dirs_that_cannot_be_used(whole, settings, tmp_path):
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    assert f"output_dir: {file} is a file; name a folder." in str(refused(file, **settings))
    below = file / "out"
    assert f"output_dir: cannot write to {below}: Not a directory." in str(refused(below, **settings))
    full = tmp_path / "full"
    full.mkdir()
    (full / "diary.txt").write_text("x", encoding="utf-8")
    message = str(refused(full, **settings))
    assert f"output_dir: {full} is not empty (diary.txt). Name a new folder." in message
    with pytest.raises(ConfigError, match="holds another run. Name a new folder, or continue that run with --resume"):
        finetune(output_dir=whole.output_dir, **settings)


def test_an_empty_output_dir_may_exist(settings, tmp_path):
    run = finetune(output_dir=tmp_path, **{**settings, "max_steps": 1, "val_set_size": 0})
    assert run.output_dir == tmp_path


def test_counts_that_do_not_divide(settings, tmp_path):
    error = refused(tmp_path / "a", **{**settings, "batch_size": 11})
    assert "batch_size: 11 is more than the 10 training examples. Lower batch_size to 10 or less" in str(error)
    error = refused(tmp_path / "b", **{**settings, "val_set_size": 12})
    assert "val_set_size: 12: 12 for validation of 12 records" in str(error)
    assert "leaves 12 - 12 = 0 to train on. Give at most 11." in str(error)


def test_cutoff_len_above_the_models_positions(settings, tmp_path):
    error = refused(tmp_path / "out", **{**settings, "cutoff_len": 4096})
    assert str(error) == "cutoff_len: 4096 is more than the model's 2048 positions. Lower it."


def test_a_prompt_that_reaches_cutoff_len(settings, tmp_path):
    error = refused(tmp_path / "out", **{**settings, "cutoff_len": 16})
    assert "no record is left: the prompt alone reaches cutoff_len=16 in all 10 records. Raise cutoff_len." in str(
        error
    )


def test_a_vocabulary_too_small_for_the_tokenizer(settings, tmp_path, tiny_llama, sentencepiece_tokenizer):
    tiny_llama(1000).save_pretrained(tmp_path / "base")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "base")
    error = refused(tmp_path / "out", **{**settings, "base_model": tmp_path / "base"})
    assert "but the model knows 1000 ids only. Use the tokenizer that belongs to the model." in str(error)


def test_a_vocabulary_too_small_for_the_validation_records(
    settings, tmp_path, tiny_llama, tiny_base, sentencepiece_tokenizer
):
    settings = {**settings, "base_model": tiny_base}
    config = FinetuneConfig(output_dir="unused", **{**settings, "val_set_size": 0})
    data = prepare(config, config.base_model)
    highest = {number: int(data.train[index].ids.max()) for index, number in enumerate(data.train.record_numbers)}

    def highest_ids(seed):
        return [max(highest[number] for number in part.numbers) for part in split_records(data.records, 2, seed)]

    seed = next(seed for seed in range(1000) if highest_ids(seed)[0] < highest_ids(seed)[1])
    size = highest_ids(seed)[0] + 1
    tiny_llama(size, hidden=32).save_pretrained(tmp_path / "base")
    sentencepiece_tokenizer.save_pretrained(tmp_path / "base")
    error = refused(tmp_path / "out", **{**settings, "base_model": tmp_path / "base", "seed": seed})
    assert f"but the model knows {size} ids only" in str(error)


def test_targets_are_checked_before_training(settings, tmp_path):
    error = refused(tmp_path / "out", **{**settings, "lora_target_modules": ["q_projj", "lm_head"]})
    assert len(error.problems) == 2
    assert "Did you mean 'q_proj'?" in str(error)


def test_settings_that_would_never_end_are_refused_before_training(settings, tmp_path):
    error = refused(tmp_path / "out", **{**settings, "max_steps": 10_000_000})
    said = "max_steps: they are 5,000,000 passes over the 10 training examples, and a run has at most 10,000."
    assert str(error) == f"{said} Lower max_steps to 20,000 or less."
    error = refused(tmp_path / "out", **{**settings, "lora_r": 65_536})
    assert "lora_r: 65,536 is more than" in str(error)


def test_an_adapter_as_base(whole, settings, tmp_path):
    error = refused(tmp_path / "out", **{**settings, "base_model": whole.output_dir})
    assert isinstance(error, ModelError)
    assert "is an adapter, not a base model. Merge it first" in str(error)


# Losses that are no numbers


def test_a_learning_rate_that_blows_up(settings, tmp_path):
    """In which step numbers end, and whether in NaN or Inf, is the processor's; what is said of that step is not."""
    settings = {**settings, "learning_rate": 1e30, "lr_scheduler": "constant", "val_set_size": 0, "max_steps": 12}
    error = refused(tmp_path / "out", **settings)
    assert isinstance(error, TrainingError)
    said = re.match(
        r"step (\d+): the gradient is (?:nan|-?inf), at learning rate 1e\+30, on records ([\d, ]+)\. Nothing of it was "
        r"applied and no adapter written; the newest good checkpoint is (\S+)\. Lower learning_rate",
        str(error),
    )
    assert said, error
    step = int(said[1])
    history = (tmp_path / "out" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in history] == list(range(1, step))
    assert said[3] == (f"checkpoint-{(step - 1) // 2 * 2}" if step > 2 else "none")
    config = FinetuneConfig(output_dir="unused", **settings)
    examples = prepare(config, config.base_model).train
    epoch, index = divmod(step - 1, len(examples) // 4)
    members = Planner(examples, "padded", 1024).step_members(4, config.seed, epoch)[index]
    assert said[2] == ", ".join(map(str, sorted(examples.record_numbers[members].tolist())))
    assert json.loads((tmp_path / "out" / "alpaca_lora.json").read_text(encoding="utf-8"))["finished"] is False


@pytest.mark.parametrize("val_set_size", [0, 2])
def test_a_base_with_nan_weights(settings, tmp_path, val_set_size):
    base = Path(shutil.copytree(settings["base_model"], tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    error = refused(tmp_path / "out", **{**settings, "base_model": base, "val_set_size": val_set_size})
    assert isinstance(error, TrainingError)
    assert f"step {0 if val_set_size else 1}: the {'eval_loss' if val_set_size else 'gradient'} is nan" in str(error)
    assert (tmp_path / "out" / "history.jsonl").read_text(encoding="utf-8") == ""  # NaN is not JSON
