"""Trackers' files read back: losses, tokens and our settings, in one run over a kill and a resume.

wandb is heavy and no part of the development extra: its test is skipped where it is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing

import pytest

from alpaca_lora.config import FinetuneConfig
from alpaca_lora.training.tracker_runs import reported_as

STEPS = [1, 2, 3, 4, 5]
# Told to end in step 2, then killed in step 4: step 3 is reported then, and the last checkpoint is that of step 2. What
# wandb was told is in its offline file only once it is a block of 32 KiB, or the run ends in an orderly way.
PROGRAM = """
import os, signal, sys, time
from alpaca_lora import finetune
from alpaca_lora.training.callbacks import EvaluateLast

report_to, base, data, out, number, step = sys.argv[1:]
def on_step_end(self, args, state, control, **kwargs):
    if state.global_step == int(step):
        time.sleep(2)  # trackers write in the background
        os.kill(os.getpid(), int(number))
    control.should_evaluate |= state.global_step == state.max_steps
EvaluateLast.on_step_end = on_step_end
finetune(base_model=base, data=data, output_dir=out, report_to=report_to, max_steps=5, save_steps=2, resume="auto",
         batch_size=4, val_set_size=2, eval_steps=2, cutoff_len=128, warmup_steps=0, learning_rate=1e-2)
"""


@pytest.fixture(scope="module")
def tracked(short_base, records, tmp_path_factory):
    """A run reported to all trackers that are here, killed and resumed; its folder, and that of the trackers' files."""
    names = [name for name in ("tensorboard", "trackio", "wandb") if importlib.util.find_spec(name)]
    if not names:
        pytest.skip("no tracker is installed")
    home = tmp_path_factory.mktemp("trackers")
    data, out = home / "rows.json", home / "first"
    data.write_text(json.dumps([record._asdict() for record in records]), encoding="utf-8")
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(home), "TRACKIO_DIR": str(home / "trackio"), "HOME": str(home)}
    for number, step, code in ((signal.SIGTERM, 2, 1), (signal.SIGKILL, 4, -signal.SIGKILL), (0, 0, 0)):
        arguments = [",".join(names), short_base, data, out, int(number), step]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            env={**os.environ, **offline},
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode == code, done.stderr
    return out, home


def history(out):
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    return steps, {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}


@pytest.mark.slow
def test_tensorboard(tracked):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, _ = tracked
    found = EventAccumulator(str(out / "tensorboard")).Reload()
    steps, evaluations = history(out)
    for ours, theirs in (("loss", "loss"), ("supervised_tokens", "supervised_tokens"), ("learning_rate",) * 2):
        events = found.Scalars(f"train/{theirs}")
        assert [event.step for event in events] == STEPS  # step 3 once
        assert [event.value for event in events] == pytest.approx([line[ours] for line in steps])
    assert {one.step: one.value for one in found.Scalars("eval/loss")} == pytest.approx(evaluations)
    text = found.Tensors("alpaca_lora/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert '"batch_size": 4' in text and '"learning_rate": 0.01' in text
    assert not (out / "checkpoints" / "runs").exists()


@pytest.mark.slow
def test_trackio(tracked):
    pytest.importorskip("trackio")
    out, home = tracked
    content = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))
    with closing(sqlite3.connect(home / "trackio" / "alpaca_lora.db")) as database:
        runs = set(database.execute("SELECT DISTINCT run_id, run_name FROM metrics"))
        rows = [json.loads(line) for (line,) in database.execute("SELECT metrics FROM metrics")]
        configs = [json.loads(line) for (line,) in database.execute("SELECT config FROM configs")]
    assert [name for _, name in runs] == [f"first-{content['tracker_id']}"]
    _check_rows(rows, *history(out))
    assert configs[-1]["alpaca_lora"]["batch_size"] == 4


@pytest.mark.slow
def test_wandb(tracked):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    out, home = tracked
    content = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))
    runs, rows, config = set(), [], {}
    for path in sorted((home / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(Record.FromString, _wandb_records(path.read_bytes())):
            if record.HasField("run"):
                runs.add((record.run.run_id, record.run.display_name, record.run.project))
            config |= {one.key: json.loads(one.value_json) for one in record.config.update if one.key}
            named = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            rows += [{name: json.loads(value) for name, value in named.items()}] if named else []
    assert runs == {(content["tracker_id"], "first", "alpaca_lora")}
    _check_rows(rows, *history(out))
    assert config["alpaca_lora"]["batch_size"] == 4


def _check_rows(rows, steps, evaluations):
    """Each step's losses and tokens are there; those that were done again after the kill are the same ones."""
    found = [row for row in rows if "train/loss" in row]
    assert sorted({row["train/global_step"] for row in found}) == STEPS
    for line in steps:
        for row in (row for row in found if row["train/global_step"] == line["step"]):
            assert row["train/loss"] == pytest.approx(line["loss"])
            assert row["train/supervised_tokens"] == line["supervised_tokens"]
            assert row["train/computed_tokens"] == line["computed_tokens"]
    assert {row["train/global_step"]: row["eval/loss"] for row in rows if "eval/loss" in row} == pytest.approx(
        evaluations
    )
    assert not any("train/train_samples_per_second" in row for row in rows)  # the Trainer counts packs


def _wandb_records(content):
    """The records of a .wandb file: a log of blocks of 32 KiB, in LevelDB's format, behind 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if (left := -place % 32768) and left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


def test_names():
    settings = {"base_model": "-", "data": "-", "output_dir": "runs/first"}
    told = reported_as(FinetuneConfig(report_to="wandb,tensorboard", **settings), "0a1b")
    assert told == {"report_to": ["wandb"], "run_name": "first", "project": "alpaca_lora"}
    assert reported_as(FinetuneConfig(report_to="trackio", **settings), "0a1b")["run_name"] == "first-0a1b"
