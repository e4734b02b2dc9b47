"""A run in pieces: each ends inside the full schedule, and together they are the run without stops."""

from __future__ import annotations

import pytest

from alpaca_lora import cli, finetune
from alpaca_lora.errors import ConfigError, RunInterrupted
from alpaca_lora.runs.eval_records import NAME


@pytest.fixture(scope="module")
def settings(short_base, records):
    rows = [record._asdict() for record in records]
    sizes = {"val_set_size": 3, "batch_size": 3, "max_steps": 6, "eval_steps": 2, "save_steps": 100, "cutoff_len": 128}
    return {
        "base_model": short_base,
        "data": rows,
        "learning_rate": 1e-2,
        "lora_dropout": 0.1,
        "dtype": "float32",
    } | sizes


def lines(run_folder):
    from alpaca_lora.runs.history import read_history

    return [{key: line[key] for key in line if key != "seconds"} for line in read_history(run_folder)]


def test_pieces_are_the_whole(settings, tmp_path):
    whole = finetune(**settings, output_dir=tmp_path / "whole").output_dir
    out = tmp_path / "pieces"
    for stop in (2, 2, 4):  # asked again, it does nothing more
        with pytest.raises(RunInterrupted, match=f"stopped by stop_after after step {stop} of 6") as told:
            finetune(**settings, output_dir=out, stop_after=stop, resume="auto")
        assert told.value.signal == 0
        assert lines(out)[-1] == lines(whole)[len(lines(out)) - 1] and lines(out)[-1]["step"] == stop
    finetune(**settings, output_dir=out, resume="auto")
    for name in ("adapter_model.safetensors", NAME):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert lines(out) == lines(whole)


def test_a_stop_beyond_the_end_is_none(settings, tmp_path):
    assert finetune(**settings | {"max_steps": 2}, output_dir=tmp_path / "run", stop_after=2).metrics["steps"] == 2


def test_the_command_ends_well(short_base, short_seeds, tmp_path, capsys):
    words = f"finetune --base_model {short_base} --data {short_seeds} --output_dir {tmp_path / 'run'} --max_steps 3 "
    words += "--batch_size 4 --val_set_size 4 --cutoff_len 128 --stop_after 1"
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    assert end.value.code == 0 and "stopped by stop_after after step 1 of 3" in capsys.readouterr().err


def test_a_stop_is_a_count(settings, tmp_path):
    with pytest.raises(ConfigError, match="stop_after: 0 must be a whole number of at least 1"):
        finetune(**settings, output_dir=tmp_path / "run", stop_after=0)
