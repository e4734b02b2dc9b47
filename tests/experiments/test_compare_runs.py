"""Comparing runs: real folders of a run, whose validation losses are then what a test needs them to be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from alpaca_lora import cli, compare_runs, finetune
from alpaca_lora.errors import ConfigError
from alpaca_lora.runs.eval_records import NAME, read_eval_records
from alpaca_lora.runs.run_file import RUN_FILE

COUNT = 40


@pytest.fixture(scope="module")
def run(short_base, short_seeds, tmp_path_factory):
    """A real run, with 40 validation records."""
    settings = {"batch_size": 8, "val_set_size": COUNT, "max_steps": 2, "eval_steps": 1, "cutoff_len": 128}
    out = tmp_path_factory.mktemp("runs") / "real"
    return finetune(base_model=short_base, data=short_seeds, output_dir=out, learning_rate=1e-2, **settings)


@pytest.fixture
def made(run, tmp_path):
    """Makes a folder as that run's, of another seed, with other settings, and with its losses changed."""

    def make(name, *, seed=42, shift=0.0, noise=0.0, records=slice(None), tokens=None, remove=(), **config):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        content = json.loads((run.output_dir / RUN_FILE).read_text())
        content["config"] |= {"seed": seed, **config}
        content |= {"seed": seed}
        (folder / RUN_FILE).write_text(json.dumps({key: content[key] for key in content if key not in remove}))
        shutil.copy(run.output_dir / "history.jsonl", folder)
        kept = read_eval_records(run.output_dir)
        counts = kept.tokens[records] if tokens is None else np.asarray(tokens)
        dice = np.random.default_rng([seed, int(1e6 * abs(shift))])
        moved = counts * (shift + noise * dice.normal(size=len(counts)))
        lines = [{"records": kept.records[records], "hashes": kept.hashes[records], "tokens": counts.tolist()}]
        for step, losses in kept.losses.items():
            lines.append({"step": step, "losses": (losses[records] + (moved if step == 2 else 0)).tolist()})
        (folder / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make


# Two models


def test_a_difference_of_two_models(made):
    a, b = made("a"), made("b", shift=-0.05, noise=0.02, learning_rate=2e-2)
    found = compare_runs(a, b)
    (difference,) = found.differences
    assert -0.07 < difference.low < -0.05 * 0.9 and difference.high < 0 and difference.records == COUNT
    expected = (
        r"b's validation loss is lower than a's by 0\.0\d+ nats per token \(95% interval 0\.0\d+ to 0\.0\d+, 40 re"
    )
    assert re.match(expected, found.verdict)
    assert found.settings == {"learning_rate": [1e-2, 2e-2]}
    turned = compare_runs(b, a)
    assert turned.differences[0].mean == pytest.approx(-difference.mean)
    assert turned.verdict.startswith("b's validation loss is lower than a's")
    assert "about these 2 models" in found.scope


def test_the_difference_is_that_of_the_run_s_losses(made):
    """No weights: sum over sum, as eval_loss is."""
    a, b = made("a"), made("b", noise=0.3)
    losses = [read_eval_records(folder).mean(2) for folder in (a, b)]
    found = compare_runs(a, b)
    assert found.differences[0].mean == pytest.approx(losses[1] - losses[0], rel=1e-6)
    assert [group.loss for group in found.groups] == pytest.approx(losses, rel=1e-6)


def test_no_difference_says_what_it_would_take(made):
    found = compare_runs(made("a"), made("b", shift=0.001, noise=0.5))
    difference = found.differences[0]
    assert not difference.detected and difference.low < 0 < difference.high and difference.needed > COUNT
    assert found.verdict.startswith("no difference detected between a and b (b less a: ")
    assert re.search(r"; about [\d,]+ records would be needed to see a difference of this size\.$", found.verdict)


def test_equal_losses(made):
    found = compare_runs(made("a"), made("b"))
    assert found.differences[0].mean == 0 and found.verdict.endswith("40 records); they are the same.")


def test_too_few_records_claim_nothing(made):
    found = compare_runs(made("a", records=slice(9)), made("b", records=slice(9), shift=-1.0))
    assert "nothing can be told" in found.verdict and "9 records are too few for an interval" in found.verdict


def test_only_common_records_are_compared(made):
    """What only one of them has is another set's difficulty, and no difference of theirs."""
    a, b = made("a", records=slice(0, 30)), made("b", records=slice(10, 40), shift=-0.05, noise=0.01)
    (difference,) = compare_runs(a, b).differences
    assert (difference.records, difference.left_out) == (20, 20)
    assert -0.06 < difference.mean < -0.04
    assert "20 records are in only some of the runs' validation sets" in str(compare_runs(a, b))


def test_the_best_evaluation_where_the_run_kept_that(made, run):
    folder = made("a", shift=5.0)
    content = json.loads((folder / RUN_FILE).read_text())
    content["metrics"] |= {"kept": "best", "kept_step": 1}
    (folder / RUN_FILE).write_text(json.dumps(content))
    found = compare_runs(folder, run)
    assert [group.runs[0].step for group in found.groups] == [1, 2]
    assert found.groups[0].loss == pytest.approx(read_eval_records(folder).mean(1))


# Settings, over seeds


def groups(made, shift, noise=0.02, seeds=(1, 2, 3)):
    """The same seeds with two learning rates; a seed has an effect of its own on all records."""
    found = []
    for name, own, rate in (("a", 0.0, 1e-2), ("b", shift, 2e-2)):
        for seed in seeds:
            effect = 0.01 * ((seed * 7) % 3 - 1)
            found.append(made(f"{name}{seed}", seed=seed, shift=own + effect, noise=noise, learning_rate=rate))
    return found


def test_runs_that_differ_in_the_seed_only_are_a_group(made):
    found = compare_runs(*groups(made, -0.1))
    assert [(group.name, group.seeds) for group in found.groups] == [
        ("learning_rate=0.01", [1, 2, 3]),
        ("learning_rate=0.02", [1, 2, 3]),
    ]
    (difference,) = found.differences
    assert difference.detected and difference.seeds == (3, 3) and difference.paired_seeds
    assert "learning_rate=0.02's validation loss is lower" in found.verdict and "3 seeds a side" in found.verdict
    assert "about the settings, over seeds and records" in found.scope
    assert found.settings == {"learning_rate": [0.01, 0.02]}


def test_other_seeds_on_each_side(made):
    a = [made(f"a{seed}", seed=seed, noise=0.02) for seed in (1, 2, 3)]
    b = [made(f"b{seed}", seed=seed, noise=0.02, shift=-0.2, lora_r=4) for seed in (4, 5)]
    (difference,) = compare_runs(*a, *b).differences
    assert difference.detected and difference.seeds == (3, 2) and not difference.paired_seeds
    assert "3 and 2 seeds" in difference.verdict


def test_seeds_that_differ_more_than_settings_hide_the_difference(made):
    """Each pair of single runs differs clearly; over seeds there is nothing."""
    a = [made(f"a{seed}", seed=seed, shift=shift, noise=0.01) for seed, shift in enumerate((-0.3, 0.0, 0.3))]
    b = [made(f"b{seed}", seed=seed, shift=shift, noise=0.01, lora_r=4) for seed, shift in enumerate((0.1, 0.2, -0.2))]
    assert compare_runs(a[0], b[0]).differences[0].detected
    found = compare_runs(*a, *b)
    assert not found.differences[0].detected and found.differences[0].from_seeds > 0.9
    assert "times as many seeds and records would be needed" in found.verdict


def test_two_runs_of_other_seeds_are_two_models(made):
    found = compare_runs(made("a", seed=1), made("b", seed=2, shift=0.2, noise=0.01))
    assert found.differences[0].detected and "differ in the seed only" in found.scope


def test_groups_may_be_given(made):
    first, second = groups(made, -0.1)[:3], groups(made, -0.1, seeds=(4, 5, 6))[3:]
    assert compare_runs(first, second).differences[0].seeds == (3, 3)
    named = compare_runs({"slow": first, "fast": second})
    assert [group.name for group in named.groups] == ["slow", "fast"]
    assert "fast's validation loss is lower than slow's" in named.verdict


# Several


def test_several_are_compared_with_the_first_at_five_percent_together(made):
    dice = {"noise": 0.1}
    runs = [made("a", **dice, seed=9), made("b", **dice, lora_r=4), made("c", **dice, shift=-0.5, lora_r=2)]
    runs.append(made("d", **dice, lora_r=1, seed=3))
    found = compare_runs(*runs)
    levels = {difference.b: round(difference.level, 4) for difference in found.differences}
    assert found.differences[1].detected and levels["c"] == 0.9833  # 1 - 0.05 / 3
    assert all(levels[name] == 0.975 for name in "bd" if not found.differences["bcd".index(name)].detected)
    assert "Holm" in found.scope and "98.3% interval" in found.verdict
    assert str(found).count("\n") > 6


# Errors


def test_what_cannot_be_compared_is_a_sentence(made, run, tmp_path):
    def refused(*runs):
        with pytest.raises(ConfigError) as error:
            compare_runs(*runs)
        return str(error.value)

    whole = made("whole")
    assert "give two runs or more" in refused(whole)
    assert f"{tmp_path} holds no run" in refused(whole, tmp_path)
    assert "3 is no run and no folder" in refused(whole, 3)
    assert "is not finished (2 steps so far)" in refused(whole, made("half", remove=("finished", "metrics")))
    assert "no validation record in common" in refused(
        made("one", records=slice(0, 20)), made("two", records=slice(20, 40))
    )
    other = (read_eval_records(run.output_dir).tokens + 1).tolist()
    assert "another tokenizer, cutoff_len" in refused(whole, made("longer", tokens=other))
    assert "some of the same seed" in refused([whole, made("again")], [run])
    old = made("old")
    (old / NAME).unlink()
    assert "has no losses by record (eval_records.jsonl). Its own command with --resume auto" in refused(whole, old)
    bare = made("bare", val_set_size=0)
    (bare / NAME).unlink()
    assert "had no validation records" in refused(whole, bare)
    assert "other seeds too" in refused(whole, made("x1", seed=1, lora_r=4), made("x2", seed=2, lora_r=4))
    with pytest.raises(ConfigError, match="picture: cannot write"):
        compare_runs(whole, run, picture=tmp_path / "none" / "x.png")


def test_losses_of_another_kind_are_not_compared(made, run):
    """DPO's is relative to its own reference, and scaled by beta."""
    dpo = {"objective": "dpo", "beta": 0.1, "label_smoothing": 0.0}
    one = made("one", **dpo)
    for name, config in {"sft": {}, "orpo": {**dpo, "objective": "orpo"}, "beta": {**dpo, "beta": 0.3}}.items():
        with pytest.raises(ConfigError, match=r"minimise different losses \(objective=dpo, beta=0.1, .*compare\)"):
            compare_runs(one, made(name, **config))
    other = made("other", **dpo)
    content = json.loads((other / RUN_FILE).read_text())
    content["parent"] = {"path": "runs/first", "sha256": "0" * 64, "data": None, "parent": None}
    (other / RUN_FILE).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="reference=00000000"):
        compare_runs(one, other)
    found = compare_runs(one, made("two", shift=-0.05, learning_rate=2e-2, **dpo))
    assert re.match(r"two's validation loss is lower than one's by 0\.05\d* nats per pair \(95%", found.verdict)
    orpo = {**dpo, "objective": "orpo"}
    found = compare_runs(made("a", **orpo), made("b", noise=0.02, learning_rate=2e-2, **orpo))
    assert "nats per token, 95% interval" in found.verdict or "nats per token (95% interval" in found.verdict


# The command


def test_the_command_prints_table_verdict_and_picture(made, tmp_path, capsys):
    a, b = made("a"), made("b", shift=-0.05, noise=0.02, lora_r=4)
    cli.main(["compare-runs", str(a), str(b), "--picture", str(tmp_path / "both.png")])
    out = capsys.readouterr().out
    assert "b's validation loss is lower than a's by" in out and "lora_r: 8 | 4" in out
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit, match="give two runs or more"):
        cli.main(["compare-runs", str(a)])
    with pytest.raises(SystemExit) as end:
        cli.main(["compare-runs"])
    assert end.value.code == 2 and "RUNS is missing" in capsys.readouterr().err


def test_folders_of_one_name_are_told_apart(made):
    found = compare_runs(made("one/run"), made("two/run"), made("two/other"))
    assert [group.name for group in found.groups] == ["one/run", "two/run", "two/other"]


def test_a_picture_in_a_notebook(made):
    figure = compare_runs(*groups(made, -0.1)).plot()
    lines = figure.axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 2 and figure._repr_png_()[:4] == b"\x89PNG"


def test_the_public_names_are_where_they_are_said_to_be():
    assert Path(compare_runs.__code__.co_filename).parent.name == "experiments"
