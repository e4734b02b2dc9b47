"""A sweep of real trials in processes of their own: killed at any moment, the same command ends the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alpaca_lora import cli, finetune, sweep
from alpaca_lora.errors import ConfigError
from alpaca_lora.experiments.grid import points_of
from alpaca_lora.experiments.sweep import chooses
from alpaca_lora.runs.eval_records import read_eval_records
from alpaca_lora.runs.history import read_history

RATES = [1e-3, 1e-2, 3e-2]


@pytest.fixture(scope="module")
def settings(short_base, short_seeds):
    sizes = {"batch_size": 8, "val_set_size": 40, "max_steps": 4, "cutoff_len": 128}
    return {"base_model": short_base, "data": short_seeds, "dtype": "float32", "lora_dropout": 0.1, **sizes}


@pytest.fixture(scope="module")
def words(settings, tmp_path_factory):
    """The command of a sweep over three learning rates, without its folder."""
    given = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "alpaca_lora", "sweep", *given, f"--learning_rate={','.join(map(str, RATES))}"]


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """An uninterrupted sweep."""
    said = []
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    found = sweep({"learning_rate": RATES}, str(out), write=lambda text, **more: said.append(text), **settings)
    return found, said


def results(out: Path) -> dict[str, bytes]:
    """The losses by record of every trial, and the adapters of those that were trained to the end."""
    paths = [*out.glob("trials/*/adapter_model.safetensors"), *out.glob("trials/*/eval_records.jsonl")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_three_are_begun_and_two_are_trained_to_the_end(whole, settings, tmp_path):
    found, said = whole
    assert [trial.state for trial in found.trials] == ["finished", "finished", "given up"]
    assert [trial.step for trial in found.trials] == [4, 4, 2]
    assert found.trials[0].loss <= found.trials[1].loss
    assert sum("to step 2 of 4" in line for line in said) == 3 and sum("to step 4 of 4" in line for line in said) == 2
    assert (found.output_dir / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    # The winner is the run that finetune makes of its settings, though it was stopped on the way.
    best = json.loads((found.best / "alpaca_lora.json").read_text())["config"]
    plain = finetune(**settings, learning_rate=best["learning_rate"], eval_steps=2, output_dir=tmp_path / "plain")
    for name in ("adapter_model.safetensors", "eval_records.jsonl"):
        assert (plain.output_dir / name).read_bytes() == (found.best / name).read_bytes()


@pytest.mark.slow
def test_the_two_best_are_compared_on_records_that_they_were_not_chosen_by(whole):
    found, _ = whole
    kept = read_eval_records(found.best)
    chosen = [place for place, name in enumerate(kept.hashes) if chooses(name)]
    assert 8 < len(chosen) < 32
    assert found.trials[0].loss == pytest.approx(kept.losses[4][chosen].sum() / kept.tokens[chosen].sum())
    (difference,) = found.comparison.differences
    assert difference.records == len(kept.hashes) - len(chosen)
    assert difference.b == found.trials[0].name and found.comparison.verdict in found.verdict
    assert ("no difference detected" in found.verdict) == (difference.low <= 0 <= difference.high)
    assert "given up" in str(found) and "the other half" in str(found)


@pytest.mark.slow
def test_a_finished_sweep_is_left_alone(whole, settings):
    found, _ = whole
    before = {path: path.stat().st_mtime_ns for path in found.output_dir.glob("trials/*/*")}
    said = []
    write = lambda text, **more: said.append(text)  # noqa: E731
    again = sweep({"learning_rate": RATES}, str(found.output_dir), write=write, **settings)
    assert again.verdict == found.verdict and not any("to step" in line for line in said)
    assert before == {path: path.stat().st_mtime_ns for path in found.output_dir.glob("trials/*/*")}


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_to_the_same_end(whole, words, tmp_path):
    """It is killed when a trial has gone a step: first alone, so that the trial goes on; then together with it."""
    out, environment = tmp_path / "sweep", {**os.environ, "PYTHONUNBUFFERED": "1"}
    for kill in (os.kill, os.killpg):
        before = steps_in(out)
        process = subprocess.Popen(
            [*words, f"--output_dir={out}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 600
        while steps_in(out) == before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([*words, f"--output_dir={out}"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert results(out) == results(whole[0].output_dir)
    assert whole[0].verdict in done.stdout


def steps_in(out: Path) -> int:
    return sum(len(read_history(folder)) for folder in out.glob("trials/*") if folder.is_dir())


@pytest.mark.slow
def test_a_trial_whose_losses_are_no_numbers_is_given_up(settings, tmp_path):
    said = []
    grid = {"learning_rate": [1e30, 1e-2]}
    found = sweep(grid, str(tmp_path / "s"), write=lambda text, **more: said.append(text), **settings)
    assert [trial.state for trial in found.trials] == ["finished", "broke off"] and found.trials[1].loss is None
    assert any("learning_rate=1e+30: broke off: alpaca-lora: step 3: the gradient is nan" in line for line in said)
    assert found.comparison is None and "Only learning_rate=0.01 was trained to its end" in found.verdict


# What needs no training


def test_what_a_sweep_cannot_do_is_a_sentence(settings, tmp_path, records):
    def refused(grid, out=tmp_path / "new", **more):
        with pytest.raises(ConfigError) as error:
            sweep(grid, str(out), **{**settings, **more})
        assert out != tmp_path / "new" or not out.exists()
        return str(error.value)

    rates = {"learning_rate": [1e-3, 1e-2]}
    assert "two values or more" in refused({"learning_rate": [1e-3]})
    assert "learning_rate needs a list of values, each once" in refused({"learning_rate": [1e-3, 1e-3]})
    assert "learning_rate needs a list of values" in refused({"learning_rate": "1e-3"})
    assert "output_dir is set by the sweep" in refused({"output_dir": ["a", "b"]})
    assert "eval_steps is set by the sweep" in refused(rates, eval_steps=3)
    assert "learning_rate: -1 must be a number above 0" in refused({"learning_rate": [1e-3, -1]})
    assert "'learning_rat' is not a setting. Did you mean 'learning_rate'?" in refused({"learning_rat": [1, 2]})
    assert "Write the records to a file" in refused(rates, data=[record._asdict() for record in records])
    assert "val_set_size: a sweep needs validation records" in refused(rates, val_set_size=0)
    assert "2 steps cannot be trained in 4 parts" in refused({"learning_rate": [1, 2, 3, 4, 5]}, max_steps=2)
    assert "trials: 1 must be" in refused(rates, trials=1)
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    assert "is not empty and holds no sweep" in refused(rates, full)
    shutil.rmtree(full)


@pytest.mark.slow
def test_too_few_records_are_told_at_the_first_evaluation(settings, tmp_path):
    said = []
    given = {**settings, "val_set_size": 8, "max_steps": 2}
    found = sweep({"learning_rate": [1e-3, 1e-2]}, str(tmp_path), write=lambda text, **_: said.append(text), **given)
    told = [place for place, line in enumerate(said) if line.startswith("Too few validation records: 8, of which")]
    assert told == [1]  # once, after the first trial
    assert "too few for an interval" in found.verdict


@pytest.mark.slow
def test_records_of_one_half_are_refused_after_the_first_trial(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("alpaca_lora.experiments.sweep.chooses", lambda name: False)
    said = []
    with pytest.raises(ConfigError, match="val_set_size: 8 validation records cannot be split into one half"):
        given = {**settings, "val_set_size": 8, "max_steps": 2}
        sweep({"learning_rate": [1e-3, 1e-2]}, str(tmp_path), write=lambda text, **_: said.append(text), **given)
    assert len(said) == 1


def test_losses_that_say_nothing_of_each_other_are_no_grid(tmp_path):
    """The lowest loss of DPO is that of the highest beta, whatever the answers."""
    given = {"base_model": "demo", "data": "pairs.jsonl", "max_steps": 8, "write": print}
    for grid in ({"beta": [0.1, 0.3]}, {"objective": ["dpo", "orpo"]}, {"label_smoothing": [0.0, 0.1]}):
        with pytest.raises(ConfigError, match="grid: .* and .* minimise different losses"):
            sweep(grid, str(tmp_path / "out"), **{"objective": "dpo", **given})
    assert not (tmp_path / "out").exists()


def test_a_value_that_cannot_be_is_told_as_the_sweep_s(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["sweep", "--base_model", "demo", "--data", "seeds", "--output_dir", "x", "--learning_rate", "1e-3,abc"]
        )
    assert end.value.code == "alpaca-lora: learning_rate: 'abc' must be a number."
    assert "finetune" not in capsys.readouterr().err


def test_another_sweep_s_folder_is_refused(settings, tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": [], "halving": True}))
    with pytest.raises(ConfigError, match=r"holds another sweep: trials differ"):
        sweep({"learning_rate": [1e-3, 1e-2]}, str(tmp_path), **settings)


def test_random_search_draws_points_of_the_grid():
    grid = {"learning_rate": [1e-4, 1e-3, 1e-2], "lora_r": [4, 8, 16]}
    every, some = points_of(grid, None, 42), points_of(grid, 4, 42)
    assert len(every) == 9 and len(some) == 4 and all(point in every for point in some)
    assert some == points_of(grid, 4, 42) != points_of(grid, 4, 43)


@pytest.mark.parametrize(
    ("typed", "grid"),
    [
        (["--learning_rate=1e-5,3e-5"], {"learning_rate": [1e-5, 3e-5]}),
        (["--lora_r", "4,8", "--use_rslora", "true,false"], {"lora_r": [4, 8], "use_rslora": [True, False]}),
        (
            ["--lora_target_modules=[q_proj,v_proj],[q_proj]"],
            {"lora_target_modules": [["q_proj", "v_proj"], ["q_proj"]]},
        ),
        (["--lr_scheduler=cosine,linear"], {"lr_scheduler": ["cosine", "linear"]}),
    ],
)
def test_values_are_typed_as_finetune_reads_them(typed, grid, monkeypatch):
    got = {}

    def instead(grid, output_dir, **more):
        got.update(grid=grid, output_dir=output_dir, **more)
        raise ConfigError("enough")

    monkeypatch.setattr("alpaca_lora.experiments.sweep.sweep", instead)
    with pytest.raises(SystemExit, match="enough"):
        cli.main(["sweep", "--base_model=a,b", "--data=x,y.json", "--output_dir=out", "--max_steps=8", *typed])
    assert got["grid"] == grid and got["output_dir"] == "out"
    assert (got["base_model"], got["data"], got["max_steps"]) == ("a,b", "x,y.json", 8)
