"""A run's folder in the hands of others: locked while a run is at work, and mended where what it held is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from alpaca_lora import finetune
from alpaca_lora.errors import AdapterError, ConfigError, DataError, ModelError, TrainingError
from alpaca_lora.files import sha256_of_json
from alpaca_lora.models.load import resolve_base
from alpaca_lora.runs.checkpoints import MANIFEST
from alpaca_lora.runs.eval_records import read_eval_records
from alpaca_lora.training import callbacks
from alpaca_lora.training.checkpoint import seal

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(short_base, records):
    return {
        "base_model": short_base,
        "data": [record._asdict() for record in records],
        "dtype": "float32",
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "eval_steps": 2,
        "save_steps": 2,
    }


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """The uninterrupted run."""
    return finetune(output_dir=tmp_path_factory.mktemp("runs") / "whole", **settings)


@pytest.fixture(scope="module")
def stopped(settings, tmp_path_factory):
    """A run that ended in its fourth step: checkpoint-2 is there, and a third step in the history."""

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    out = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
        with pytest.raises(KeyboardInterrupt):
            finetune(output_dir=out, **settings)
    return out


@pytest.fixture
def out(stopped, tmp_path):
    """A copy of the stopped run, to go on with."""
    return Path(shutil.copytree(stopped, tmp_path / "out"))


def numbers(run):
    """Every line of a history but how long it took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run.history]


# One run a folder


def test_a_folder_in_which_a_run_is_at_work(settings, out):
    holder = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(out / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        for resume in (False, "auto", True):
            with pytest.raises(ConfigError, match="output_dir: another run is at work in .*out. Wait until it ends"):
                finetune(output_dir=out, resume=resume, **settings)
        process.send_signal(signal.SIGKILL)  # a lock does not outlive its process
        process.wait()
        finetune(output_dir=out, resume=True, **settings)


def _start(settings, out, barrier, results):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    barrier.wait()
    try:
        finetune(output_dir=out, **settings)
        results.put("ran")
    except ConfigError as error:
        results.put(str(error))


@pytest.mark.slow
def test_of_two_that_start_at_once_one_runs(settings, whole, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=_start, args=(settings, tmp_path / "out", barrier, results)) for _ in range(2)]
    for process in both:
        process.start()
    said = sorted((results.get(timeout=1500) for _ in both), key=len)
    for process in both:
        process.join()
    assert said[0] == "ran"
    assert "another run is at work in" in said[1] or "holds another run" in said[1]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (whole.output_dir / WEIGHTS).read_bytes()


def test_the_lock_is_let_go_of(settings, tmp_path):
    with pytest.raises(ConfigError, match="batch_size"):
        finetune(output_dir=tmp_path / "new" / "out", **{**settings, "batch_size": 99})
    assert not (tmp_path / "new" / "out").exists()  # nothing was begun
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        finetune(output_dir=tmp_path / "full", **settings)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["diary.txt"]
    assert FileLock(tmp_path / "full" / ".lock", blocking=False).acquire()


# The history comes back


def test_every_checkpoint_holds_the_history_up_to_it(whole):
    for step in (2, 4):
        copy = (whole.output_dir / "checkpoints" / f"checkpoint-{step}" / "history.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in copy.splitlines()]
        assert lines == [line for line in whole.history if line["step"] <= step]
        records = read_eval_records(whole.output_dir / "checkpoints" / f"checkpoint-{step}")
        assert list(records.losses) == [line["step"] for line in lines if "eval_loss" in line]


def test_losses_by_record_are_those_of_the_checkpoint_again(settings, whole, out):
    (out / "eval_records.jsonl").write_text("lost\n", encoding="utf-8")
    finetune(output_dir=out, resume=True, **settings)
    assert (out / "eval_records.jsonl").read_bytes() == (whole.output_dir / "eval_records.jsonl").read_bytes()


def test_a_checkpoint_of_a_version_without_losses_by_record(settings, whole, out):
    """The run goes on; what was not kept is left out."""
    checkpoint = out / "checkpoints" / "checkpoint-2"
    run = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["content"]["run"]
    for path in (checkpoint / "eval_records.jsonl", checkpoint / MANIFEST, out / "eval_records.jsonl"):
        path.unlink()
    seal(checkpoint, 2, run)
    assert numbers(finetune(output_dir=out, resume=True, **settings)) == numbers(whole)
    found, expected = read_eval_records(out), read_eval_records(whole.output_dir)
    assert found.hashes == expected.hashes and list(found.losses) == [4]
    assert found.losses[4].tolist() == expected.losses[4].tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: None,
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text + text,
        lambda text: "x" + text,
        lambda text: '{"step": 9, "loss": 0.0}\n',
        lambda text: "[" * 100_000 + "\n",
    ],
    ids=["deleted", "emptied", "cut", "doubled", "not JSON", "another's", "deep"],
)
def test_a_damaged_history_is_that_of_the_checkpoint_again(settings, whole, out, damage):
    path = out / "history.jsonl"
    text = damage(path.read_text(encoding="utf-8"))
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    run = finetune(output_dir=out, resume=True, **settings)
    assert numbers(run) == numbers(whole)
    timeless = [{**r.metrics, "train_seconds": 0} for r in (run, whole)]
    assert timeless[0] == timeless[1]


def test_a_history_that_cannot_be_read(whole, tmp_path):
    out = Path(shutil.copytree(whole.output_dir, tmp_path / "out"))
    (out / "history.jsonl").write_text('{"step": 0, "eval_loss": 8}\n{"loss": 3}\n', encoding="utf-8")
    from alpaca_lora import Run

    with pytest.raises(
        DataError, match="history.jsonl: line 2 is not a line of a run's history. The run's checkpoints"
    ):
        _ = Run(out).history


# The result comes back


def zeroed(out):
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(out / WEIGHTS).items()}
    save_file(tensors, out / WEIGHTS)


def rescaled(out):
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    (out / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 99}), encoding="utf-8")


def halved(out):
    first, *evaluations = (out / "eval_records.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in evaluations]
    edited = [json.dumps({**row, "losses": [loss / 2 for loss in row["losses"]]}) for row in rows]
    (out / "eval_records.jsonl").write_text("\n".join([first, *edited]) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "flaw"),
    [
        (lambda out: (out / WEIGHTS).unlink(), "it holds no adapter_model*.safetensors"),
        (zeroed, "adapter_model.safetensors is not what the run wrote"),
        (rescaled, "adapter_config.json is not what the run wrote"),
        (lambda out: (out / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda out: (out / "history.jsonl").unlink(), "history.jsonl is missing"),
        (lambda out: os.truncate(out / "history.jsonl", 50), "history.jsonl is not what the run wrote"),
        (halved, "eval_records.jsonl is not what the run wrote"),
    ],
)
def test_a_finished_run_whose_result_is_gone_is_written_again(settings, whole, tmp_path, capfd, damage, flaw):
    out = Path(shutil.copytree(whole.output_dir, tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".json", ".safetensors")}
    damage(out)
    run = finetune(output_dir=out, resume="auto", **settings)
    assert f"finished, but {flaw}. It is written again." in capfd.readouterr().out
    assert run.history == whole.history
    for name in ("history.jsonl", "eval_records.jsonl"):
        assert (out / name).read_bytes() == (whole.output_dir / name).read_bytes()
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".json", ".safetensors")}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"alpaca_lora.json"}


def test_a_finished_model_that_was_damaged_is_written_again(settings, tmp_path, capfd):
    settings = {**settings, "method": "full", "learning_rate": 1e-3, "max_steps": 2}
    finetune(output_dir=tmp_path, **settings)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-4] + b"\0\0\1\0")
    finetune(output_dir=tmp_path, resume="auto", **settings)
    assert "finished, but model.safetensors is not what the run wrote" in capfd.readouterr().out
    assert (tmp_path / "model.safetensors").read_bytes() == content


# What is no longer silent


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_fine_tuning_that_changes_nothing(settings, tmp_path, dtype):
    steps = {"method": "full", "learning_rate": 1e-30, "max_steps": 2, "dtype": dtype}
    with pytest.raises(
        TrainingError, match=f"every weight is still the base's, as saved in {dtype}: .* Raise learning"
    ):
        finetune(output_dir=tmp_path / "out", **{**settings, **steps})
    assert json.loads((tmp_path / "out" / "alpaca_lora.json").read_text(encoding="utf-8"))["finished"] is False


def test_continuing_an_adapter_without_changing_it(settings, whole, tmp_path):
    steps = {"adapter": whole.output_dir, "learning_rate": 1e-30, "max_steps": 2}
    with pytest.raises(AdapterError, match="is still the adapter it started from.* Raise learning_rate"):
        finetune(output_dir=tmp_path / "out", **{**settings, **steps})


def test_another_number_of_processes_goes_on_with_a_warning(settings, whole, out):
    path = out / "checkpoints" / "checkpoint-2" / MANIFEST
    content = {**json.loads(path.read_text(encoding="utf-8"))["content"], "processes": 2}
    path.write_text(json.dumps({"content": content, "sha256": sha256_of_json(content)}), encoding="utf-8")
    with pytest.warns(UserWarning, match="checkpoint-2 was saved by 2 processes, and 1 go on"):
        finetune(output_dir=out, resume=True, **settings)


def test_what_cutoff_len_drops_and_cuts(settings, tmp_path):
    rows = [{"instruction": f"Say {k}.", "output": "Yes."} for k in range(40)]
    long = {"instruction": "word " * 200, "output": "Yes."}
    wordy = {"instruction": "Go on.", "output": "word " * 200}
    some = {**settings, "data": [*rows[:20], long, *rows[20:], wordy], "max_steps": 1, "val_set_size": 0}
    with pytest.warns(UserWarning) as caught:
        finetune(output_dir=tmp_path / "some", **some)
    said = [str(warning.message) for warning in caught]
    assert (
        "<list>: the prompt alone reaches cutoff_len=128 in 1 of 42 records (2.4%; numbers 21); they are dropped."
        in said
    )
    assert any(
        "the response is cut to fit cutoff_len=128 in 1 of 42 records (2.4%; numbers 42); EOS" in s for s in said
    )
    many = {**some, "data": [long, *rows, long, long], "val_set_size": 5}  # wherever the split puts them
    with pytest.raises(
        DataError, match=r"in 3 of 43 records \(7.0%; numbers 1, 42, 43\); .* at most 5% may be dropped"
    ):
        finetune(output_dir=tmp_path / "many", **many)


def test_micro_batches_are_as_large_as_the_longest_example(settings, tmp_path, capfd):
    finetune(output_dir=tmp_path / "out", **{**settings, "max_tokens": 16, "max_steps": 1})
    said = capfd.readouterr().out
    assert "(max_tokens is 16, but the longest example has" in said and "of at most 16 tokens" not in said


def test_two_models_in_one_folder(short_base, tmp_path):
    base = Path(shutil.copytree(short_base, tmp_path / "base"))
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    shutil.copy(base / "model.safetensors", base / "model-00001-of-00001.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match="holds model.safetensors and model.safetensors.index.json.* Remove the one"):
        resolve_base(str(base))
    (base / "model.safetensors").unlink()
    assert resolve_base(str(base)) == str(base)
