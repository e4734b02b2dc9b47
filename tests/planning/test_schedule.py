"""What a run is too short for is said with the arithmetic, by a plan and before training; the usual is silent."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import get_scheduler

import alpaca_lora
from alpaca_lora import finetune
from alpaca_lora.config import FinetuneConfig
from alpaca_lora.errors import ConfigError
from alpaca_lora.planning.schedule import check_schedule


def said(steps_per_epoch=4, validated=True, **settings):
    values = {"base_model": "x", "data": "x", "output_dir": "x", "num_epochs": 1, **settings}
    return check_schedule(FinetuneConfig(**values), steps_per_epoch, validated)


def test_a_warm_up_longer_than_the_run():
    assert said(warmup_steps=100) == [
        "warmup_steps: 100 of 4 steps (4 an epoch x 1 epoch): the learning rate ends at 3/100 of 0.0003, which is "
        "3.0%, 9e-06. A fraction fits any run: warmup_steps=0.03 would be 1 here."
    ]
    (as_long_as_the_run,) = said(warmup_steps=4)
    assert "warmup_steps: 4 of 4 steps (4 an epoch x 1 epoch): the learning rate ends at 3/4 of" in as_long_as_the_run
    (most,) = said(41, num_epochs=3, warmup_steps=100)
    assert "100 of 123 steps (41 an epoch x 3 epochs): 81% of the run is below its learning rate of 0.0003" in most


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant_with_warmup"])
@pytest.mark.parametrize(("warmup", "total"), [(100, 4), (4, 4), (7, 5)])
def test_the_rate_said_is_the_last_one_transformers_gives(scheduler, warmup, total):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.01)
    schedule = get_scheduler(scheduler, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for _ in range(total):
        last = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    (sentence,) = said(max_steps=total, warmup_steps=warmup, lr_scheduler=scheduler, learning_rate=0.01)
    assert f"%, {last:.3g}. A fraction" in sentence and f"of {total} steps (max_steps)" in sentence


def test_a_run_whose_every_step_has_rate_0_is_refused():
    with pytest.raises(
        ConfigError, match=r"warmup_steps: 5 of 1 step \(max_steps\): a warm-up begins at learning rate"
    ):
        said(max_steps=1, warmup_steps=5)
    with pytest.raises(ConfigError, match=r"warmup_steps: 1 of 1 step \(4 an epoch x 0.1 epochs\)"):
        said(num_epochs=0.1, warmup_steps=1)


def test_what_else_a_run_is_too_short_for():
    few, save = said(eval_steps=50, save_steps=30)
    assert few.startswith("eval_steps: 50 of 4 steps (4 an epoch x 1 epoch): evaluated before the first and after")
    assert save.startswith("save_steps: 30 of 4 steps (4 an epoch x 1 epoch): the only checkpoint is that of the last")
    assert said(eval_steps=50, validated=False) == []
    assert said(num_epochs=0.01) == ["num_epochs: 0.01 of 4 steps per epoch is 0.04 of a step; 1 is done."]


def test_a_warm_up_that_the_schedule_ignores():
    (sentence,) = said(lr_scheduler="constant", warmup_steps=100)
    assert sentence.startswith("warmup_steps: 100 is ignored, for lr_scheduler=constant has no warm-up.")
    assert said(lr_scheduler="constant") == said(lr_scheduler="constant", warmup_steps=0) == []


def test_an_early_end_that_cannot_come():
    (sentence,) = said(25, num_epochs=4, eval_steps=50, early_stopping_patience=3)
    assert sentence == (
        "early_stopping_patience: 3 evaluations without a gain, and of 100 steps (25 an epoch x 4 epochs) with "
        "eval_steps=50 there are 2 once training has begun, the last of them at the end: it never ends the run early. "
        "Lower it, or eval_steps to 25 or less."
    )
    assert said(25, num_epochs=4, eval_steps=25, early_stopping_patience=3) == []
    (sentence,) = said(eval_steps=1, early_stopping_patience=4)
    assert sentence.endswith("it never ends the run early. Lower it.")


def test_preferences_at_the_rate_of_fine_tuning():
    (told,) = said(objective="dpo")
    assert told.startswith("learning_rate: 0.0003 is the default, which is for fine-tuning.")
    assert said(objective="dpo", learning_rate=1e-5) == said(objective="sft") == []


def test_a_best_of_one_evaluation():
    (sentence,) = said(25, keep="best")
    assert sentence == (
        "keep: best of the evaluations, and of 25 steps (25 an epoch x 1 epoch) with eval_steps=200 there are 1 once "
        "training has begun: it is the last. Lower eval_steps, e.g. to 5."
    )
    assert said(25, keep="best", eval_steps=20) == []


@pytest.mark.parametrize("settings", [{"keep": "best"}, {"early_stopping_patience": 2}])
def test_evaluations_that_decide_need_validation_records(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"^{name}: needs validation records, and there are none. Set val_set_size"):
        said(validated=False, **settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_steps": 1}, {"warmup_steps": 0}, {"warmup_steps": 2}, {"warmup_steps": 0.9}, {"save_steps": 4}],
)
def test_the_usual_is_silent(settings):
    assert said(**settings) == []


def test_a_plan_says_it_too():
    plan = alpaca_lora.plan("a100-80g", recipe="alpaca-lora-7b", max_steps=4, warmup_steps=100)
    assert "warmup_steps: 100 of 4 steps (max_steps): the learning rate ends at 3/100" in " ".join(str(plan).split())
    assert "warmup_steps" not in str(alpaca_lora.plan("a100-80g", recipe="alpaca-lora-7b"))


def test_a_run_says_it_before_training(short_base, records, tmp_path):
    rows = [record._asdict() for record in records]
    settings = {"base_model": short_base, "data": rows, "val_set_size": 0, "batch_size": 6}
    with pytest.warns(UserWarning, match="warmup_steps: 100 of 2 steps .max_steps.: the learning rate ends at 1/100"):
        run = finetune(output_dir=tmp_path / "out", max_steps=2, warmup_steps=100, **settings)
    assert run.history[-1]["learning_rate"] == pytest.approx(3e-6)
    with pytest.raises(ConfigError, match="nothing would be trained"):
        finetune(output_dir=tmp_path / "none", max_steps=1, warmup_steps=100, **settings)
    with warnings.catch_warnings(record=True) as caught:
        finetune(output_dir=tmp_path / "usual", max_steps=1, **settings)
    assert [str(warning.message) for warning in caught if "steps" in str(warning.message)] == []
