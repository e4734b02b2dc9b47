"""Runs on several sources: mixed by weight, validated on records of their own, and continued as they began."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from alpaca_lora import finetune
from alpaca_lora.data.records import load_records
from alpaca_lora.errors import ConfigError, RunInterrupted
from alpaca_lora.evaluation.contamination import check_contamination
from alpaca_lora.evaluation.pairs import Pair
from alpaca_lora.planning import inspect
from alpaca_lora.runs.run_file import RunFile, read_contract
from alpaca_lora.training import callbacks
from alpaca_lora.training.trainer import AlpacaTrainer

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def settings(short_base, records, tmp_path, monkeypatch):
    """Two sources and another one to validate on; 5 steps of 4 records, 2 an epoch."""
    monkeypatch.chdir(tmp_path)
    rows = [record._asdict() for record in records]
    own = [{"question": row["instruction"], "answer": row["output"]} for row in rows[6:10]]
    Path("a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows[:6])).encode()))
    Path("b.json").write_text(json.dumps(own))
    Path("val.json").write_text(json.dumps(rows[10:]))
    columns = {"instruction": "question", "output": "answer"}
    return {
        "base_model": short_base,
        "data": [{"path": "a.jsonl.gz", "weight": 1}, {"path": "b.json", "weight": 3, "columns": columns}],
        "val_data": "val.json",
        "dtype": "float32",
        "cutoff_len": 128,
        "batch_size": 4,
        "max_steps": 5,
        "learning_rate": 1e-2,
        "eval_steps": 2,
        "save_steps": 2,
    }


@pytest.fixture
def steps(monkeypatch):
    """The records of each step that is taken, by number."""
    taken = []
    original = AlpacaTrainer.get_batch_samples

    def watched(self, *args):
        batches = original(self, *args)
        members = [index for pack in self.plan.packs for index in pack.tolist()]
        taken.append(sorted(self.train_dataset.planner.examples.record_numbers[members].tolist()))
        return batches

    monkeypatch.setattr(AlpacaTrainer, "get_batch_samples", watched)
    return taken


def losses(run):
    return [(line["step"], line.get("loss"), line.get("eval_loss")) for line in run.history]


def test_a_mixed_run_goes_on_in_the_same_order_after_it_was_stopped(settings, steps, monkeypatch):
    whole = finetune(output_dir="whole", **settings)
    expected = [*steps]
    assert len(expected) == 5
    for epoch in (expected[:2], expected[2:4]):
        counts = Counter("a" if number <= 6 else "b" for step in epoch for number in step)
        assert counts == {"a": 2, "b": 6}

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    steps.clear()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
        finetune(output_dir="out", **settings)
    steps.clear()
    run = finetune(output_dir="out", **settings, resume=True)
    assert steps == expected[2:]
    assert losses(run) == losses(whole)
    assert Path("out", WEIGHTS).read_bytes() == Path("whole", WEIGHTS).read_bytes()
    again = {**settings, "data": [settings["data"][0], {**settings["data"][1], "weight": 2}]}
    with pytest.raises(ConfigError, match="resume: the weights or counts of the sources changed since the run began"):
        finetune(output_dir="out", **again, resume=True)
    Path("val.json").write_text(json.dumps(json.loads(Path("val.json").read_text())[:-1]))
    with pytest.raises(ConfigError, match="resume: the records of val_data changed since the run began"):
        finetune(output_dir="out", **settings, resume=True)


def test_whole_numbers_are_the_same_settings_as_floats(settings, steps, tmp_path):
    """YAML, JSON and Python write 3 or 3.0; the checkpoint is this run's, and knows its prompt."""
    settings |= {"output_dir": "run", "prompt_template": "alpaca_short", "resume": "auto"}
    with pytest.raises(RunInterrupted):
        finetune(**settings, lora_alpha=16, num_epochs=3, stop_after=2)
    assert read_contract("run/checkpoints/checkpoint-2") == read_contract("run") is not None
    first, second = settings["data"]
    data = [{**first, "weight": 1.0}, {**second, "weight": "3e0"}]
    finetune(**{**settings, "data": data}, lora_alpha=16.0, num_epochs=3.0)
    assert len(steps) == 5


def test_the_run_file_says_what_was_read_and_opens_it_again(settings):
    run = finetune(output_dir="out", **{**settings, "max_steps": 1})
    file = RunFile.read(run.output_dir)
    assert [(one.source, one.rows, one.weight) for one in file.data.sources] == [("a.jsonl.gz", 6, 1), ("b.json", 4, 3)]
    validation = load_records("val.json")
    assert (file.data.train_records, file.data.validation_records) == (10, len(validation))
    assert file.data.validation == validation.fingerprint
    assert file.config["data"] == settings["data"] and file.config["val_data"] == "val.json"
    asked = load_records("b.json", columns=settings["data"][1]["columns"]).records[0].instruction
    pair = Pair("1", f"{asked} Answer me, please, in a few words.", "", "", "")
    found = check_contamination("m", file.data_files, [pair])
    assert (found.unchecked, found.records) == ("", 10)


def test_validation_records_that_are_trained_on_are_told(settings, records):
    rows = [record._asdict() for record in records]
    Path("val.json").write_text(json.dumps([*rows[10:], rows[3]]))
    with pytest.warns(UserWarning, match=r"^val_data: 1 of \d+ records .* are in data, too"):
        finetune(output_dir="out", **{**settings, "max_steps": 1})
    with pytest.raises(ConfigError, match="val_set_size: sets records of data aside, and val_data gives others"):
        finetune(output_dir="no", **settings, val_set_size=2)


def test_inspect_shows_the_mixture(settings):
    report = inspect(settings["data"], settings["base_model"], cutoff_len=128)
    assert report.rows["from a.jsonl.gz"] == "3 records an epoch, of 6"
    assert report.rows["from b.json"] == "7 records an epoch, of 4"


def test_validation_takes_all_records_and_shares_are_told(settings, capsys):
    run = finetune(output_dir="out", **{**settings, "max_steps": 1})
    assert "2 steps an epoch, of a.jsonl.gz: 2 records an epoch, of 6; b.json: 6 records" in capsys.readouterr().out
    assert "- `b.json`: 4 rows, weight 3" in (run.output_dir / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="val_data: val.json: weight and count are of training"):
        finetune(output_dir="no", **{**settings, "val_data": {"path": "val.json", "count": 1}})
