"""Checkpoints: whole and this run's, or not used."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from alpaca_lora import finetune
from alpaca_lora.errors import TrainingError
from alpaca_lora.runs.checkpoints import MANIFEST
from alpaca_lora.runs.identity import fingerprint_of
from alpaca_lora.training.checkpoint import check_space, flaw, newest_valid, seal
from alpaca_lora.training.trainer import AlpacaTrainer

RUN = "a" * 64


def make(folder, run=RUN, seed=0, steps=(2, 4, 6)):
    """Checkpoints of a run, of random bytes."""
    dice = random.Random(seed)
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
            (checkpoint / name).write_bytes(dice.randbytes(dice.randrange(20, 3_000)))
        (checkpoint / "shards").mkdir()
        (checkpoint / "shards" / "__0_0.distcp").write_bytes(dice.randbytes(1_000))
        seal(checkpoint, step, run)
    return folder


def damage(checkpoint, foreign, dice):
    """Break a checkpoint in one of the ways disks, kills and people do; says how."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    file = dice.choice(files)
    content = file.read_bytes()
    kind = dice.choice(["truncated", "bit", "zeroed", "missing", "foreign", "extra", "emptied", "no manifest"])
    if kind == "truncated":
        file.write_bytes(content[: dice.randrange(len(content))])
    elif kind == "bit":
        at = dice.randrange(len(content))
        file.write_bytes(content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :])
    elif kind == "zeroed":
        half = len(content) // 2
        file.write_bytes(content[:half] + bytes(len(content) - half))
    elif kind == "missing":
        file.unlink()
    elif kind == "foreign":
        shutil.copy(foreign / file.relative_to(checkpoint), file)
    elif kind == "extra":
        (checkpoint / "optimizer.bin").write_bytes(b"x")
    elif kind == "emptied":
        file.write_bytes(b"")
    else:
        (checkpoint / MANIFEST).unlink()
    return f"{kind} {file.name}"


def test_none_of_a_thousand_corrupted_checkpoints_is_used(tmp_path):
    dice = random.Random(0)
    good = make(tmp_path / "good")
    other = make(tmp_path / "other", run="b" * 64, seed=1)
    for k in range(1_000):
        folder = Path(shutil.copytree(good, tmp_path / "case"))
        broken = dice.randrange(1, 4)  # of the newest
        steps = [6, 4, 2][:broken]
        how = [damage(folder / f"checkpoint-{step}", other / f"checkpoint-{step}", dice) for step in steps]
        found, passed = newest_valid(folder, RUN)
        expected = None if broken == 3 else folder / f"checkpoint-{[4, 2][broken - 1]}"
        assert found == expected, (k, how)
        assert len(passed) == broken
        assert sorted(path.name for path in (folder / "set_aside").iterdir()) == sorted(
            f"checkpoint-{s}" for s in steps
        )
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "it has no manifest.json: saving it was cut short"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "its manifest.json is damaged"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "it lacks optimizer.pt"),
        (lambda folder: (folder / "new").write_text(""), "it holds new, which is not its own"),
        (lambda folder: (folder / "optimizer.pt").write_text("cut"), "optimizer.pt has 3 bytes, not"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, reason):
    folder = make(tmp_path, steps=[2]) / "checkpoint-2"
    assert flaw(folder, RUN) is None
    change(folder)
    found, (sentence,) = newest_valid(tmp_path, RUN)
    assert found is None
    assert re.search(reason, sentence)
    assert "was set aside" in sentence and (tmp_path / "set_aside" / "checkpoint-2").exists()


def test_another_runs_checkpoint_is_not_this_ones(tmp_path):
    folder = make(tmp_path, run="b" * 64, steps=[2]) / "checkpoint-2"
    assert flaw(folder, RUN) == "it belongs to another run"
    folder.rename(tmp_path / "checkpoint-8")
    assert flaw(tmp_path / "checkpoint-8", "b" * 64) == "its manifest.json is that of step 2"


def test_a_second_checkpoint_of_the_same_name_is_set_aside_beside_the_first(tmp_path):
    for _ in range(2):
        (make(tmp_path, steps=[2]) / "checkpoint-2" / MANIFEST).unlink()
        assert newest_valid(tmp_path, RUN)[0] is None
    assert {path.name for path in (tmp_path / "set_aside").iterdir()} == {"checkpoint-2", "checkpoint-2-2"}


def test_a_disk_with_too_little_room(tmp_path):
    with pytest.raises(TrainingError, match="output_dir: the checkpoint of step 4 needs .* GB free. Make room."):
        check_space(tmp_path, 10**18, "the checkpoint of step 4")
    with pytest.raises(TrainingError, match="checkpoint-2 is intact; make room and continue with resume=auto"):
        check_space(tmp_path, 10**18, "the checkpoint of step 4", "checkpoint-2")
    check_space(tmp_path, 1, "nothing much")


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([5, 4, 1, 2, 3, 4, 5, 6], 3),
        ([1, 2, 3, 4, 5, 6, 7, 8], 1),
        ([5, 2, 4, 2, 3, 4, 5, 6], 2),  # the first of two that are equal
        ([9, 8, 7, 6, 5, 4, 1, 3], None),  # the best is one of the newest
    ],
)
def test_the_newest_and_the_best_are_kept(short_base, short_seeds, tmp_path, monkeypatch, losses, best):
    """Whatever this machine's rounding makes of a run, its validation losses are these; the rest is real."""

    def loss_sum(self, model, batch, planner, by_example):
        step = self.state.global_step
        return (losses[step - 1] if step else 10) * len(batch.inputs["targets"])

    monkeypatch.setattr(AlpacaTrainer, "_loss_sum", loss_sum)
    run = finetune(
        base_model=short_base,
        data=short_seeds,
        output_dir=tmp_path / "out",
        val_set_size=10,
        batch_size=4,
        max_steps=8,
        cutoff_len=128,
        eval_steps=1,
        save_steps=1,
        save_total_limit=2,
        warmup_steps=0,  # its first step would change nothing, and be no best
    )
    validated = {line["step"]: line["eval_loss"] for line in run.history if "eval_loss" in line}
    assert validated == pytest.approx(dict(enumerate([10, *losses])))
    kept = {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()}
    assert kept == {f"checkpoint-{step}" for step in {best or 7, 7, 8}}


def test_an_identity_is_its_content():
    one = fingerprint_of({"a": 1, "b": [2]})
    assert one == fingerprint_of({"b": [2], "a": 1})
    assert one != fingerprint_of({"a": 1, "b": [3]})
