"""Preference runs, killed, starved and poisoned: the same command run again ends where it would have ended."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from harness import arguments, curve, kill_until_done, same_run, zygote


@pytest.fixture(scope="module")
def runs():
    with zygote() as (run, scratch):
        yield run, scratch


@pytest.fixture(scope="module")
def pairs(runs):
    """What is said of a run, beside the usual."""
    _, scratch = runs
    rows = [
        {"instruction": f"Say {number}", "chosen": f"So {number}", "rejected": f"No: {'so ' * (number % 7)}{number}"}
        for number in range(60)
    ]
    (scratch / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"data": scratch / "pairs.json", "objective": "dpo", "val_set_size": 8}


@pytest.fixture(scope="module")
def whole(runs, short_base, pairs):
    """The uninterrupted run, and the seconds it takes."""
    run, scratch = runs
    ended = run.run(arguments(short_base, scratch / "whole", **pairs))
    assert ended.code == 0, ended.printed
    return scratch / "whole", ended.seconds


def same(out, expected):
    names = ("reference.safetensors", "eval_records.jsonl")
    return same_run(out, expected) and all((out / n).read_bytes() == (expected / n).read_bytes() for n in names)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again(runs, whole, short_base, pairs, tmp_path, kills):
    run, _ = runs
    expected, seconds = whole
    dice, hits = random.Random(3), 0
    while hits < kills:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        argv = arguments(short_base, tmp_path / "out", **pairs)
        more, _ = kill_until_done(run, argv, seconds, dice, kills=kills - hits)
        assert same(tmp_path / "out", expected)
        hits += more


@pytest.mark.slow
def test_a_gradient_that_is_no_number(runs, whole, short_base, pairs, tmp_path):
    run, _ = runs
    expected, _ = whole
    ended = run.run(["--nan_at", "6", *arguments(short_base, tmp_path / "out", **pairs)])
    assert ended.code == 1
    assert "step 6: the gradient is nan, at learning rate" in ended.printed
    named = ended.printed.split("on records ")[1].split(". Nothing")[0].split(", ")
    assert len(named) == 8 and all(0 < int(number) <= 60 for number in named)
    assert run.run(arguments(short_base, tmp_path / "out", **pairs)).code == 0
    assert same(tmp_path / "out", expected)


@pytest.mark.slow
def test_out_of_memory(runs, short_base, pairs, tmp_path):
    """Pairs stay together in the smaller packs; what was counted of a step that is done again counts once."""
    run, _ = runs
    plain = {**pairs, "lora_dropout": 0, "max_tokens": 400}
    assert run.run(arguments(short_base, tmp_path / "whole", **plain)).code == 0
    ended = run.run(["--oom_above", "250", *arguments(short_base, tmp_path / "out", **plain)])
    assert ended.code == 0, ended.printed
    assert "did not fit into memory. The step is done again in micro-batches of at most" in ended.printed
    for found, wanted in zip(curve(tmp_path / "out"), curve(tmp_path / "whole"), strict=True):
        assert found[0] == wanted[0]
        assert (found[1] or found[2]) == pytest.approx(wanted[1] or wanted[2], rel=1e-5)


@pytest.mark.slow
def test_out_of_memory_for_a_single_pair(runs, short_base, pairs, tmp_path):
    run, _ = runs
    ended = run.run(["--oom_above", "20", *arguments(short_base, tmp_path / "out", **pairs)])
    assert ended.code == 1
    assert "alone, " in ended.printed and "does not fit into memory. Lower cutoff_len" in ended.printed


@pytest.mark.slow
def test_a_disk_that_is_full(runs, whole, short_base, pairs, tmp_path):
    run, _ = runs
    expected, _ = whole
    size = (expected / "adapter_model.safetensors").stat().st_size
    ended = run.run(["--most_bytes", str(size // 2), *arguments(short_base, tmp_path / "out", **pairs)])
    assert ended.code == 1 and "Traceback" not in ended.printed and "out is full (" in ended.printed
    assert run.run(arguments(short_base, tmp_path / "out", **pairs)).code == 0
    assert same(tmp_path / "out", expected)
