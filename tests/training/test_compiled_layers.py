"""Compiled decoder layers: the eager numbers, few graphs, bit-identical again, and undone at the end.

Most tests trace the layers without making kernels (torch's backend `eager`), which takes seconds; the slow ones make
them.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from alpaca_lora import FinetuneConfig, finetune
from alpaca_lora.data.packs import build_pack
from alpaca_lora.data.step_dataset import collate
from alpaca_lora.data.tokens import Examples
from alpaca_lora.errors import ConfigError, TrainingError
from alpaca_lora.models import predictions
from alpaca_lora.models.attention import IMPLEMENTATION, PackMask
from alpaca_lora.models.load import checkpoint_activations
from alpaca_lora.models.lora import add_lora
from alpaca_lora.models.predictions import plain_head
from alpaca_lora.training import callbacks, compiled_layers
from alpaca_lora.training.compiled_layers import compiler_is_here, compiles
from alpaca_lora.training.loss import pack_loss

needs_compiler = pytest.mark.skipif(not compiler_is_here(), reason="torch.compile needs a C++ compiler here")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def traced(monkeypatch):
    """Layers go through torch.compile, and what comes out runs as it is."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiled_layers, "BACKEND", "eager")
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def settings(short_base, records):
    """6 steps of 4 records in packs of many lengths."""
    return {
        "base_model": short_base,
        "data": [record._asdict() for record in records],
        "dtype": "float32",
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_tokens": 150,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "lora_dropout": 0.0,
        "neftune_noise_alpha": 5.0,
        "eval_steps": 2,
        "save_steps": 2,
    }


def losses(run):
    return [line.get("loss", line.get("eval_loss")) for line in run.history]


def graphs_of(run):
    before = counters["stats"]["unique_graphs"]
    run()
    return counters["stats"]["unique_graphs"] - before


@pytest.mark.parametrize(
    "layout", [pytest.param("padded", marks=pytest.mark.slow), pytest.param("packed", marks=pytest.mark.slow), "tree"]
)
@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_is_eager(traced, settings, tmp_path, layout, checkpointing):
    settings = {**settings, "layout": layout, "gradient_checkpointing": checkpointing, "max_steps": 3}
    eager = finetune(output_dir=tmp_path / "eager", compile=False, **settings)
    found = []
    graphs = graphs_of(lambda: found.append(finetune(output_dir=tmp_path / "out", compile=True, **settings)))
    assert 0 < graphs <= 16
    assert losses(found[0]) == pytest.approx(losses(eager), rel=1e-6)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_kernels_have_the_losses_of_eager_layers(settings, tmp_path, targets):
    settings = {**settings, "lora_target_modules": targets}
    eager = finetune(output_dir=tmp_path / "eager", compile=False, **settings)
    compiled = finetune(output_dir=tmp_path / "compiled", compile=True, **settings)
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-6)


@needs_compiler
@pytest.mark.slow
def test_kernels_are_the_same_again_and_after_an_interruption(settings, tmp_path, monkeypatch):
    settings = {**settings, "compile": True, "lora_dropout": 0.1}
    whole = finetune(output_dir=tmp_path / "whole", **settings)
    torch._dynamo.reset()
    again = finetune(output_dir=tmp_path / "again", **settings)
    assert losses(again) == losses(whole)
    assert (again.output_dir / WEIGHTS).read_bytes() == (whole.output_dir / WEIGHTS).read_bytes()

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
        with pytest.raises(KeyboardInterrupt):
            finetune(output_dir=tmp_path / "out", **settings)
    torch._dynamo.reset()  # as in another process: what is compiled first is another pack
    resumed = finetune(output_dir=tmp_path / "out", **settings, resume=True)
    assert losses(resumed) == losses(whole)
    assert (resumed.output_dir / WEIGHTS).read_bytes() == (whole.output_dir / WEIGHTS).read_bytes()


def pack_of(seed, multiple=1):
    """A tree of a few examples of random lengths."""
    dice = np.random.default_rng(seed)
    prompt = dice.integers(3, 60, 12).tolist()
    rows = [[*prompt, *dice.integers(3, 60, dice.integers(2, 90)).tolist(), 2] for _ in range(dice.integers(1, 6))]
    examples = Examples.from_lists(rows, [len(prompt)] * len(rows))
    pack = build_pack(examples, np.arange(len(rows)), "tree", multiple)
    return collate([pack]), pack.input_ids.size


def compiled_model(tiny_llama, targets, **how):
    model = add_lora(tiny_llama(kv_heads=2), r=4, alpha=8, dropout=0.0, targets=targets)
    model.set_attn_implementation(IMPLEMENTATION)
    for layer in model.get_decoder().layers:
        layer.compile(dynamic=True, backend="eager", **how)
    return model, plain_head(model)


@pytest.mark.parametrize("targets", [None, pytest.param("all-linear", marks=pytest.mark.slow)])
def test_fifty_lengths_take_no_more_graphs_than_a_few(traced, tiny_llama, targets):
    """Training and evaluation, and a second model in the same process."""
    lengths = set()

    def use():
        model, head = compiled_model(tiny_llama, targets)
        for seed in range(75):
            batch, length = pack_of(seed)
            lengths.add(length)
            model.train()
            pack_loss(model, batch, head)[0].backward()
            with torch.no_grad():
                model.eval()
                pack_loss(model, batch, head)

    assert graphs_of(use) <= 24
    assert len(lengths) >= 50
    assert graphs_of(use) <= 24


@pytest.mark.parametrize("checkpointing", [False, True])
def test_with_flex_attention_a_layer_is_one_graph(traced, tiny_llama, monkeypatch, checkpointing):
    from torch.nn.attention import flex_attention

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)  # it refuses to learn on a CPU
    monkeypatch.setattr(predictions, "PackMask", lambda ends: PackMask(ends, "blocks"))
    model, head = compiled_model(tiny_llama, "all-linear", fullgraph=True)  # a break would be an error
    if checkpointing:
        checkpoint_activations(model)

    def use():
        for seed in range(8):
            batch, _ = pack_of(seed, 128)
            model.train()
            pack_loss(model, batch, head)[0].backward()
            with torch.no_grad():
                model.eval()
                pack_loss(model, batch, head)

    assert 0 < graphs_of(use) <= 8


def test_layers_are_themselves_again_after_a_run(traced, settings, tmp_path):
    """Answering with them would compile every length of an answer."""
    found = []

    def run():
        more = {"sample_instructions": ["Name a cat."], "compile": True, "max_steps": 1, "val_set_size": 0}
        found.append(finetune(output_dir=tmp_path / "out", **{**settings, **more}))

    assert graphs_of(run) <= 12
    assert len(found[0].samples[0]["after"]) >= 0


def test_what_cannot_be_compiled(settings, tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(compiled_layers, "BACKEND", broken)
    torch._dynamo.reset()
    with pytest.raises(TrainingError, match=r"compile: torch.compile failed \(.*no kernel.*\). Set compile=false."):
        finetune(output_dir=tmp_path / "needed", **settings, compile=True)
    monkeypatch.setattr(compiled_layers, "PAYS_FROM", 0)
    monkeypatch.setattr(compiled_layers, "compiler_is_here", lambda: True)
    with pytest.warns(UserWarning, match="compile: torch.compile failed .*; the layers run uncompiled"):
        auto = finetune(output_dir=tmp_path / "auto", **settings)
    assert losses(auto) == losses(finetune(output_dir=tmp_path / "eager", **settings, compile=False))
    torch._dynamo.reset()


def test_auto_compiles_long_runs_on_a_cpu_with_a_compiler(monkeypatch):
    steps = SimpleNamespace(plans=[SimpleNamespace(computed_tokens=10_000)], steps_per_epoch=100)

    def chosen(device="cpu", parameters=135_000_000, **settings):
        config = FinetuneConfig(base_model="x", data="x", output_dir="x", **settings)
        return compiles(config, torch.device(device), parameters, steps)

    monkeypatch.setattr(compiled_layers, "compiler_is_here", lambda: True)
    assert chosen()
    assert not chosen(max_steps=3) and not chosen(parameters=100_000)
    assert not chosen("cuda") and not chosen(method="qlora") and not chosen(use_dora=True) and not chosen(fsdp=True)
    assert chosen("cuda", compile=True) and chosen(max_steps=3, compile=True) and not chosen(compile=False)
    monkeypatch.setattr(compiled_layers, "compiler_is_here", lambda: False)
    assert not chosen()


def test_settings_that_contradict():
    with pytest.raises(ConfigError, match="compile: sharded layers are not compiled here"):
        FinetuneConfig(base_model="x", data="x", output_dir="x", fsdp=True, compile=True)
    with pytest.raises(ConfigError, match="compile: 'yes' must be true, false or auto"):
        FinetuneConfig(base_model="x", data="x", output_dir="x", compile="yes")
