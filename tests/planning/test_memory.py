"""Memory by formula: published totals, and the peak that a real step has."""

from __future__ import annotations

import gc
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from alpaca_lora.config import FinetuneConfig
from alpaca_lora.data.pack_counts import count_pack
from alpaca_lora.data.packs import build_pack
from alpaca_lora.data.tokens import Examples
from alpaca_lora.models.attention import IMPLEMENTATION
from alpaca_lora.models.geometry import SHAPES, Geometry, logit_rows
from alpaca_lora.models.load import checkpoint_activations
from alpaca_lora.models.lora import add_lora
from alpaca_lora.models.predictions import PlainHead, chunks
from alpaca_lora.planning.memory import GIB, MemoryModel, MicroBatchSize
from alpaca_lora.training.loss import pack_loss

LLAMA = SHAPES["llama-7b"]
BATCH = MicroBatchSize(4096, 2048, 64 * 4096, 512)


def config(**settings):
    return FinetuneConfig(**{"base_model": "x", "data": "x", "output_dir": "x", **settings})


def test_published_totals():
    """LLaMA 7B in bfloat16 is 12.55 GiB; Alpaca's README: fine-tuning 7B naively takes about 7 x 4 x 4 = 112 GB."""
    assert 2 * LLAMA.parameters / GIB == pytest.approx(12.55, abs=0.005)
    lora = MemoryModel(config(), LLAMA).training(BATCH)
    assert (lora.weights - 4 * LLAMA.lora_parameters(8)) / GIB == pytest.approx(12.55, abs=0.005)
    full = MemoryModel(config(method="full", gradient_checkpointing=True), LLAMA).training(BATCH)
    before_activations = full.weights + full.gradients + full.optimizer
    assert before_activations == 16 * LLAMA.parameters
    assert before_activations / 1e9 == pytest.approx(112 * LLAMA.parameters / 7e9)
    assert before_activations / 1e9 == pytest.approx(112, rel=0.04)


def test_sharding_splits_the_state_and_nothing_else():
    one, eight = (MemoryModel(config(method="full", fsdp=True), LLAMA, ranks=n).training(BATCH) for n in (1, 8))
    assert [eight.weights, eight.gradients, eight.optimizer] == [one.weights / 8, one.gradients / 8, one.optimizer / 8]
    assert eight.copies == LLAMA.gathered_bytes("full")
    offloaded = MemoryModel(config(method="full", fsdp=True, cpu_offload=True), LLAMA, ranks=8).training(BATCH)
    assert offloaded.weights == offloaded.gradients == offloaded.optimizer == 0
    assert MemoryModel(config(fsdp=False), LLAMA, ranks=8).training(BATCH).weights > 12 * GIB


def test_each_setting_moves_its_own_part():
    plain = MemoryModel(config(), LLAMA).training(BATCH)
    again = MemoryModel(config(gradient_checkpointing=True), LLAMA).training(BATCH)
    assert plain.weights == again.weights and plain.activations > 8 * again.activations
    assert MemoryModel(config(method="qlora"), LLAMA).training(BATCH).weights < 0.31 * plain.weights
    eight = MemoryModel(config(method="full", optimizer="adamw_8bit"), LLAMA).training(BATCH)
    whole = MemoryModel(config(method="full"), LLAMA).training(BATCH)
    assert eight.optimizer < 0.27 * whole.optimizer and eight.gradients == whole.gradients
    padded = MemoryModel(config(layout="padded"), LLAMA).training(BATCH)
    assert padded.activations - plain.activations == 2 * 32 * 512 * 4096  # a mask of numbers for each layer
    assert MemoryModel(config(), LLAMA).training(BATCH._replace(tokens=2048)).activations < 0.51 * plain.activations


def test_other_moments():
    model = MemoryModel(config(method="full", gradient_checkpointing=True), LLAMA)
    assert MemoryModel(config(), LLAMA).training(BATCH, first=True).gradients == 0
    tiny = MicroBatchSize(1, 1, 1, 1)
    assert model.training(tiny, first=True).gradients == 4 * LLAMA.parameters  # the backward pass's end is highest
    assert model.evaluation(BATCH).gradients == model.saving().gradients == 0
    assert model.saving().total == 12 * LLAMA.parameters  # a checkpoint's bytes
    assert model.evaluation(BATCH).total < model.training(BATCH).total
    assert model.merging_host() == 4.4 * LLAMA.parameters > 10 * model.merging_host(certify=False)
    assert model.saving_host < 2.1 * 1e9 + 4 * LLAMA.head_parameters
    needed = model.training(BATCH)
    assert needed.needed - needed.total == pytest.approx(
        GIB + 0.1 * (needed.activations + needed.logits + needed.copies)
    )


SMALL = Geometry(4096, 128, 320, 3, 4, 2, head_dim=32)
LENGTHS, PROMPTS = [200, 150, 220, 180], [60, 70, 50, 40]  # 530 supervised tokens: three chunks of logits


def examples():
    """Four whose prompts begin alike."""
    ids = [
        np.append(np.arange(prompt), np.full(length - prompt, 7))
        for length, prompt in zip(LENGTHS, PROMPTS, strict=True)
    ]
    offsets, numbers = np.cumsum([0, *LENGTHS]), np.arange(1, 5, dtype=np.int32)
    return Examples(
        np.concatenate(ids).astype(np.int32), offsets[:-1], offsets[1:], np.array(PROMPTS, np.int32), numbers
    )


STEPS = [
    {"method": "lora", "layout": "padded"},
    {"method": "lora", "layout": "tree", "lora_target_modules": "all-linear", "lora_dropout": 0.0},
    {"method": "lora", "layout": "packed", "lora_target_modules": "all-linear", "gradient_checkpointing": True},
    {"method": "full", "layout": "tree"},
    {"method": "full", "layout": "padded", "gradient_checkpointing": True},
]


@pytest.mark.parametrize("settings", STEPS, ids=lambda each: " ".join(map(str, each.values())))
def test_the_peak_of_a_real_step(settings):
    """A second micro-batch through the library's own loss, and one to evaluate, on a CPU: blocks that torch's
    allocator gives, by its profiler. benchmarks/planner.py does the same for whole runs of larger models."""
    from transformers import LlamaConfig, LlamaForCausalLM

    run = config(**settings)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**asdict(SMALL)))
    if run.method == "lora":
        model = add_lora(model, r=1, alpha=1, dropout=run.lora_dropout, targets=run.lora_target_modules)
    if run.layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    if run.gradient_checkpointing:
        checkpoint_activations(model)
    model.train()
    pack = build_pack(examples(), [0, 1, 2, 3], run.layout)
    inputs = {name: torch.from_numpy(array) for name, array in pack._asdict().items() if array is not None}
    head = PlainHead.of(model)

    def step():
        pack_loss(model, inputs, head)[0].backward()

    formula, batch = MemoryModel(run, SMALL, "float32", on_cpu=True), MicroBatchSize(*count_pack(pack))
    step()  # gradients of an earlier micro-batch
    found = formula.training(batch)
    assert found.copies + found.activations + found.logits == pytest.approx(highest(step), rel=0.1)
    model.eval()
    found = formula.evaluation(batch)
    with torch.no_grad():
        most = highest(lambda: pack_loss(model, inputs, head))
    assert found.copies + found.activations + found.logits == pytest.approx(most, rel=0.1)


def highest(work):
    """Most bytes that torch's allocator has given beyond those before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("predicted", [0, 1, 511, 512, 513, 803, 1024, 1025, 5000, 20_000])
@pytest.mark.parametrize("shape", [LLAMA, SHAPES["llama3-8b"]], ids=["32,000 ids", "128,256 ids"])
def test_logits_are_counted_in_the_chunks_that_the_loss_makes(predicted, shape, on_cpu):
    made_chunks = chunks(predicted, logit_rows(shape.vocab_size, on_cpu))
    made = max((rows.stop - rows.start for rows in made_chunks), default=0)
    formula, batch = MemoryModel(config(), shape, on_cpu=on_cpu), MicroBatchSize(predicted, predicted, 0, predicted)
    assert formula._rows_of_logits(batch) == 8 * shape.vocab_size * made


def test_chunks_of_logits_by_device():
    assert logit_rows(32_000, on_cpu=True) == logit_rows(128_256, on_cpu=True) == 512
    assert logit_rows(32_000, on_cpu=False) == 4096
    assert logit_rows(128_256, on_cpu=False) == 1046  # as many logits
    assert logit_rows(1_000_000, on_cpu=False) == 512
