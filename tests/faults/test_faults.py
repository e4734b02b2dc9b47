"""Real runs, killed, stopped, starved and poisoned; the same command run again ends where it would have ended."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess

import pytest
from harness import STOPPED_EARLY, arguments, curve, kill_until_done, same_run, steps_done, zygote
from safetensors.torch import load_file

from alpaca_lora import Run
from alpaca_lora.runs.history import read_history


@pytest.fixture(scope="module")
def runs():
    with zygote() as (run, scratch):
        yield run, scratch


@pytest.fixture(scope="module")
def whole(runs, short_base):
    """The uninterrupted run, and the seconds it takes."""
    run, scratch = runs
    ended = run.run(arguments(short_base, scratch / "whole"))
    assert ended.code == 0, ended.printed
    return scratch / "whole", ended.seconds


@pytest.mark.slow
def test_killed_again_and_again(runs, whole, short_base, tmp_path):
    run, _ = runs
    expected, seconds = whole
    dice = random.Random(1)
    for k in range(2):
        hits, starts = kill_until_done(run, arguments(short_base, tmp_path / f"{k}"), seconds, dice, kills=4)
        assert starts == hits + 1
        assert same_run(tmp_path / f"{k}", expected)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_stop_early_and_keep_the_best_as_one_that_was_not(runs, short_base, tmp_path, kills):
    """The evaluation after step 3 is the best on any machine; after 6 or 9 of 12 steps the run ends."""
    run, _ = runs
    argv = {name: arguments(short_base, tmp_path / name, **STOPPED_EARLY) for name in ("whole", "out")}
    ended = run.run(["--worse_after", "5", *argv["whole"]])
    assert ended.code == 0, ended.printed
    metrics = Run(tmp_path / "whole").metrics
    losses = {step: loss for step, _, loss in curve(tmp_path / "whole") if loss is not None}
    assert (metrics["kept"], metrics["kept_step"], metrics["best_step"]) == ("best", 3, 3)
    assert metrics["eval_loss_after"] == losses[3] == min(loss for step, loss in losses.items() if step)
    assert metrics["steps"] in (6, 9) and metrics["stopped_early"].startswith(f"stopped early after step {max(losses)}")
    assert "Kept: the weights after step 3 of" in ended.printed and "\nStopped early after step" in ended.printed
    kept = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    saved = load_file(tmp_path / "whole" / "checkpoints" / "checkpoint-3" / "adapter_model.safetensors")
    assert kept.keys() == saved.keys() and all(kept[name].equal(saved[name]) for name in kept)
    dice, hits = random.Random(2), 0
    while hits < kills:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        more, _ = kill_until_done(run, ["--worse_after", "5", *argv["out"]], ended.seconds, dice, kills=kills - hits)
        assert same_run(tmp_path / "out", tmp_path / "whole")
        hits += more


def test_a_finished_run_is_left_alone(runs, whole, short_base):
    run, _ = runs
    expected, _ = whole
    before = {path: path.stat().st_mtime_ns for path in expected.rglob("*")}
    again = run.run(arguments(short_base, expected))
    assert again.code == 0 and "finished; nothing is left to do" in again.printed
    assert {path: path.stat().st_mtime_ns for path in expected.rglob("*")} == before


def test_a_run_that_was_ended_before_its_last_files(runs, whole, short_base, tmp_path):
    """All steps are done and saved, the adapter is not."""
    run, _ = runs
    expected, _ = whole
    shutil.copytree(expected, tmp_path / "out", ignore=shutil.ignore_patterns("adapter*", "loss.png", "README.md"))
    file = tmp_path / "out" / "alpaca_lora.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "finished": False}), encoding="utf-8")
    assert run.run(arguments(short_base, tmp_path / "out")).code == 0
    assert same_run(tmp_path / "out", expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(runs, whole, short_base, tmp_path, number):
    run, _ = runs
    expected, _ = whole
    held = ["--held_at", "6", *arguments(short_base, tmp_path / "out")]
    ended = run.run(held, lambda: steps_done(tmp_path / "out") >= 5, number)
    assert ended.code == 128 + number, ended.printed
    assert f"stopped by {number.name} after step" in ended.printed and "--resume auto" in ended.printed
    assert steps_done(tmp_path / "out") == 6
    assert (tmp_path / "out" / "checkpoints" / "checkpoint-6" / "manifest.json").exists()
    assert json.loads((tmp_path / "out" / "alpaca_lora.json").read_text(encoding="utf-8"))["finished"] is False
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert run.run(arguments(short_base, tmp_path / "out")).code == 0
    assert same_run(tmp_path / "out", expected)


def test_a_gradient_that_is_no_number(runs, whole, short_base, tmp_path):
    run, _ = runs
    expected, _ = whole
    ended = run.run(["--nan_at", "6", *arguments(short_base, tmp_path / "out")])
    assert ended.code == 1
    assert "step 6: the gradient is nan, at learning rate" in ended.printed
    assert "the newest good checkpoint is checkpoint-4" in ended.printed
    assert [step for step, loss, _ in curve(tmp_path / "out") if loss is not None] == [1, 2, 3, 4, 5]
    named = ended.printed.split("on records ")[1].split(". Nothing")[0].split(", ")
    assert len(named) == 8 and all(0 < int(number) <= 175 for number in named)
    kept = load_file(tmp_path / "out" / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert run.run(arguments(short_base, tmp_path / "out")).code == 0
    assert same_run(tmp_path / "out", expected)


def test_out_of_memory(runs, short_base, tmp_path):
    """Dropout off: smaller packs draw other masks."""
    run, _ = runs
    plain = {"lora_dropout": 0, "max_tokens": 400}
    assert run.run(arguments(short_base, tmp_path / "whole", **plain)).code == 0
    ended = run.run(["--oom_above", "170", *arguments(short_base, tmp_path / "out", **plain)])
    assert ended.code == 0, ended.printed
    assert "did not fit into memory. The step is done again in micro-batches of at most" in ended.printed
    for found, wanted in zip(curve(tmp_path / "out"), curve(tmp_path / "whole"), strict=True):
        assert found[0] == wanted[0]
        assert (found[1] or found[2]) == pytest.approx(wanted[1] or wanted[2], rel=1e-6)


def test_out_of_memory_on_one_of_two_ranks(runs, short_base, tmp_path):
    """Both end with the losses of a run without, the other rank in smaller packs from the next step on."""
    run, _ = runs
    plain = {"lora_dropout": 0.0, "max_tokens": 400, "batch_size": 16, "max_steps": 5}
    whole = run.run(arguments(short_base, tmp_path / "whole", **plain), ranks=2)
    assert whole.code == 0, whole.printed
    ended = run.run(["--oom_on_last_above", "170", *arguments(short_base, tmp_path / "out", **plain)], ranks=2)
    assert ended.code == 0, ended.printed
    assert "did not fit into memory. The step is done again in micro-batches of at most" in ended.printed
    for found, wanted in zip(curve(tmp_path / "out"), curve(tmp_path / "whole"), strict=True):
        assert found[0] == wanted[0]
        assert (found[1] or found[2]) == pytest.approx(wanted[1] or wanted[2], rel=1e-6)


def test_out_of_memory_for_a_single_example(runs, short_base, tmp_path):
    run, _ = runs
    ended = run.run(["--oom_above", "20", *arguments(short_base, tmp_path / "out", val_set_size=0)])
    assert ended.code == 1
    assert "alone, " in ended.printed and "does not fit into memory. Lower cutoff_len" in ended.printed


def said_once(ended, words):
    """Whether a command ended in one message, with these words, and no traceback."""
    assert ended.code == 1 and "Traceback" not in ended.printed, ended.printed
    return len([line for line in ended.printed.splitlines() if words in line]) == 1


def test_a_checkpoint_that_the_disk_does_not_take(runs, whole, short_base, tmp_path):
    run, _ = runs
    expected, _ = whole
    size = (expected / "adapter_model.safetensors").stat().st_size
    ended = run.run(["--most_bytes", str(size // 2), *arguments(short_base, tmp_path / "out")])
    assert said_once(ended, "out is full (")
    assert "Make room and start again." in ended.printed
    assert not list((tmp_path / "out").glob("checkpoints/*/manifest.json"))
    assert run.run(arguments(short_base, tmp_path / "out")).code == 0
    assert same_run(tmp_path / "out", expected)


def test_a_history_that_the_disk_does_not_take(runs, short_base, tmp_path):
    run, _ = runs
    settings = {"max_steps": 80, "save_steps": 1000, "eval_steps": 1000, "val_set_size": 0}
    assert run.run(arguments(short_base, tmp_path / "whole", **settings)).code == 0
    sizes = [(tmp_path / "whole" / name).stat().st_size for name in ("alpaca_lora.json", "history.jsonl")]
    assert sizes[0] + 500 < sizes[1]
    argv = arguments(short_base, tmp_path / "out", **settings)
    ended = run.run(["--most_bytes", str(sizes[0] + 500), *argv])
    assert said_once(ended, "out is full (")
    assert 0 < len(read_history(tmp_path / "out")) < 80
    assert run.run(argv).code == 0
    assert same_run(tmp_path / "out", tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
def test_a_disk_that_fills_up(runs, whole, short_base, tmp_path):
    run, _ = runs
    expected, _ = whole
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        out = disk / "out"
        held = ["--held_at", "6", *arguments(short_base, out)]
        stop = run.run(held, lambda: steps_done(out) >= 5, signal.SIGTERM)
        assert stop.code == 143, stop.printed
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            free = shutil.disk_usage(disk).free
            file.write(b"0" * (free - 150_000))
        ended = run.run(arguments(short_base, out))
        assert ended.code == 1, ended.printed
        assert "GB free" in ended.printed or "is full" in ended.printed
        ballast.unlink()
        assert run.run(arguments(short_base, out)).code == 0
        assert same_run(out, expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
