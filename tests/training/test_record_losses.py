"""Validation losses by record: each is that of the record alone, whatever the layout and the micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from alpaca_lora import finetune
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.step_dataset import PackDataset, StepDataset
from alpaca_lora.data.tokens import Examples
from alpaca_lora.models.attention import IMPLEMENTATION
from alpaca_lora.runs.eval_records import read_eval_records
from alpaca_lora.training.trainer import AlpacaTrainer

EOS = 2


def instructions(train_on_inputs: bool) -> Examples:
    """Records that share prefixes; two are equal, and one begins another."""
    dice = np.random.default_rng(0)
    preamble = dice.integers(3, 60, 10).tolist()
    rows, prompt_lens = [], []
    for _ in range(9):
        prompt = [*preamble, *dice.integers(3, 6, dice.integers(1, 4)).tolist()]
        rows.append([*prompt, *dice.integers(3, 60, dice.integers(1, 12)).tolist(), EOS])
        prompt_lens.append(len(prompt))
    rows += [rows[2], [*rows[4], 5, 6, EOS]]
    prompt_lens += [prompt_lens[2], len(rows[4])]
    return Examples.from_lists(rows, prompt_lens, train_on_inputs=train_on_inputs)


def conversations(train_on_inputs: bool) -> Examples:
    """Records of one to four turns; two begin with the same turns, which both learn."""
    dice = np.random.default_rng(1)
    rows, prompt_lens, numbers = [], [], []
    first: list[list[int]] = []
    for number in range(1, 7):
        before = [1, 4, 4]
        for turn in range(int(dice.integers(1, 5))):
            prompt = [*before, *dice.integers(3, 60, 3).tolist()]
            before = [*prompt, *dice.integers(3, 60, dice.integers(1, 8)).tolist(), EOS]
            if number == 2 and turn == 0:
                prompt, before = first[0][:6], first[0]
            first.append(before)
            rows.append(before)
            prompt_lens.append(len(prompt))
            numbers.append(number)
    return Examples.from_lists(rows, prompt_lens, record_numbers=np.asarray(numbers), train_on_inputs=train_on_inputs)


def alone(model: Any, examples: Examples) -> np.ndarray:
    """The definition: each sequence by itself, and the sequences of a record added up."""
    model.set_attn_implementation("sdpa")
    sums = []
    for index in range(len(examples)):
        ids = torch.from_numpy(examples[index].ids.astype(np.int64))
        first = int(examples.supervised_from[index])
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, first - 1 : -1]
        sums.append(cross_entropy(logits.double(), ids[first:], reduction="sum").item())
    return np.add.reduceat(np.asarray(sums), examples.record_starts[:-1])


@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
@pytest.mark.parametrize("make", [instructions, conversations])
@pytest.mark.parametrize("train_on_inputs", [False, True])
def test_each_is_that_of_the_record_alone(tiny_llama, tmp_path, layout, make, train_on_inputs):
    model, examples = tiny_llama(kv_heads=2), make(train_on_inputs)
    expected, tokens = alone(model, examples), int(examples.supervised.sum())
    if layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    planner, kept = Planner(examples, layout, 70), []
    trainer = AlpacaTrainer(
        model=model,
        args=TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, per_device_eval_batch_size=1),
        train_dataset=StepDataset(Planner(examples, layout, 10_000), 1, 0, 1),
        eval_dataset=PackDataset(planner),
        keep_losses=lambda step, losses: kept.append((step, losses)),
    )
    packs = [trainer.eval_dataset[k] for k in range(len(trainer.eval_dataset))]
    assert len(packs) > 1
    assert any(pack.rows is not None for pack in packs) == (layout == "tree")  # a target of two records
    assert trainer.head is not None
    for change in ("the fused head", "the model's logits", "micro-batches split, as where memory runs out"):
        if change == "the model's logits":
            trainer.head = None
        elif change.startswith("micro-batches"):
            trainer.limit.tokens = 40
        metrics = trainer.evaluate()
        step, losses = kept[-1]
        assert step == 0 and losses.shape == (examples.records,)
        assert losses == pytest.approx(expected, rel=1e-5), change
        assert losses.sum() / tokens == pytest.approx(metrics["eval_loss"], rel=1e-6), change


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_runs_records_have_its_losses(short_base, records, tmp_path, method):
    run = finetune(
        base_model=short_base,
        data=[record._asdict() for record in records],
        output_dir=tmp_path / "out",
        method=method,
        val_set_size=4,
        batch_size=4,
        max_steps=3,
        eval_steps=2,
        learning_rate=1e-3,
        cutoff_len=128,
    )
    found = read_eval_records(run.output_dir)
    assert len(found.records) == 4 and len(set(found.hashes)) == 4
    evaluations = {line["step"]: line["eval_loss"] for line in run.history if "eval_loss" in line}
    assert list(found.losses) == list(evaluations) == [0, 2, 3]
    for step, loss in evaluations.items():
        assert found.mean(step) == pytest.approx(loss, rel=1e-6)


def test_without_validation_there_is_no_file(short_base, records, tmp_path):
    rows = [record._asdict() for record in records]
    finetune(base_model=short_base, data=rows, output_dir=tmp_path / "out", val_set_size=0, batch_size=4, max_steps=1)
    assert read_eval_records(tmp_path / "out") is None
