"""What only a GPU shows: compiled FlexAttention, autocast, scaling, quantised weights, real shortage of memory.

Whole runs of a small model through `finetune`, compared with each other: `make test-cuda`.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from alpaca_lora import finetune
from alpaca_lora.models.attention import takes_blocks
from alpaca_lora.training import callbacks
from alpaca_lora.training.out_of_memory import PackLimit

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(tiny_llama, short_seeds, tmp_path_factory):
    """4 heads of 64: FlexAttention's kernels want 16 at least. A tokenizer made here: little can be carried there."""
    bytes_and_more = ByteLevelBPETokenizer()
    texts = Path(short_seeds).read_text(encoding="utf-8").splitlines()
    bytes_and_more.train_from_iterator(texts, vocab_size=1000, special_tokens=["<s>", "</s>", "<pad>"])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_and_more._tokenizer, **special)
    base = tmp_path_factory.mktemp("base")
    model = tiny_llama(len(tokenizer), hidden=256, kv_heads=2)
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    return {
        "base_model": str(base),
        "data": short_seeds,
        "dtype": "float32",
        "cutoff_len": 256,
        "val_set_size": 8,
        "batch_size": 16,
        "max_tokens": 1024,
        "max_steps": 5,
        "learning_rate": 1e-3,
        "lora_dropout": 0.0,
        "lora_target_modules": "all-linear",
        "eval_steps": 2,
        "save_steps": 2,
    }


def losses(run):
    return [line.get("loss", line.get("eval_loss")) for line in run.history]


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("bfloat16", 2e-3)])
def test_layouts_agree(settings, tmp_path, dtype, within):
    if dtype == "bfloat16" and torch.cuda.is_available() and not takes_blocks(torch.device("cuda")):
        pytest.skip("this card has no bfloat16")
    runs = {
        layout: finetune(output_dir=tmp_path / layout, **{**settings, "dtype": dtype, "layout": layout})
        for layout in ("padded", "packed", "tree")
    }
    assert losses(runs["packed"]) == pytest.approx(losses(runs["padded"]), rel=within)
    assert losses(runs["tree"]) == pytest.approx(losses(runs["padded"]), rel=within)


def test_checkpointing_changes_nothing(settings, tmp_path):
    plain = finetune(output_dir=tmp_path / "plain", **settings)
    saving = finetune(output_dir=tmp_path / "saving", **settings, gradient_checkpointing=True)
    assert losses(saving) == pytest.approx(losses(plain), rel=1e-5)


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_compiled_is_eager(settings, tmp_path, targets):
    settings = {**settings, "lora_target_modules": targets}
    eager = finetune(output_dir=tmp_path / "eager", **settings, compile=False)
    compiled = finetune(output_dir=tmp_path / "compiled", **settings, compile=True)
    assert losses(compiled)[:2] == pytest.approx(losses(eager)[:2], rel=1e-6)
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-5)


def test_float16_trains_as_float32_does(settings, tmp_path):
    whole = finetune(output_dir=tmp_path / "whole", **settings)
    half = finetune(output_dir=tmp_path / "half", **{**settings, "dtype": "float16"})
    assert losses(half)[:2] == pytest.approx(losses(whole)[:2], rel=5e-3)
    assert {tensor.dtype for tensor in load_file(half.output_dir / WEIGHTS).values()} == {torch.float32}
    assert (half.output_dir / "checkpoints" / "checkpoint-4" / "scaler.pt").exists()


def test_a_quantised_base_learns(settings, tmp_path):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    run = finetune(output_dir=tmp_path / "out", **{**settings, "method": "qlora", "dtype": "auto", "max_steps": 20})
    steps = [line for line in run.history if "loss" in line]
    assert len(steps) == 20 and all(line["grad_norm"] > 0 for line in steps)
    assert run.history[-1]["eval_loss"] < run.history[0]["eval_loss"]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_a_resumed_run_is_the_uninterrupted_run(settings, tmp_path, monkeypatch, dtype, compile):
    settings = {**settings, "dtype": dtype, "compile": compile, "lora_dropout": 0.1}
    whole = finetune(output_dir=tmp_path / "whole", **settings)

    def before_step(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EvaluateLast, "on_step_begin", before_step)
        with pytest.raises(KeyboardInterrupt):
            finetune(output_dir=tmp_path / "out", **settings)
    torch._dynamo.reset()
    run = finetune(output_dir=tmp_path / "out", **settings, resume=True)
    assert losses(run) == losses(whole)
    assert (run.output_dir / WEIGHTS).read_bytes() == (whole.output_dir / WEIGHTS).read_bytes()


def test_a_step_that_does_not_fit_is_done_again_in_smaller_packs(settings, tmp_path, monkeypatch):
    """The allocator may take what lies half way between the peaks of small packs and of large ones."""
    settings = {**settings, "batch_size": 64, "val_set_size": 0, "layout": "packed"}
    peaks, found = {}, {}
    for name, tokens in (("small", 512), ("large", 8192)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found[name] = losses(finetune(output_dir=tmp_path / name, **{**settings, "max_tokens": tokens}))
        peaks[name] = torch.cuda.max_memory_reserved()
    assert peaks["large"] > peaks["small"]
    sizes: list[int] = []
    halve = PackLimit.halve

    def halved(self, batch, *rest):
        sizes.append(batch.tokens)
        halve(self, batch, *rest)

    monkeypatch.setattr(PackLimit, "halve", halved)
    torch.cuda.empty_cache()
    limit = (peaks["small"] + peaks["large"]) / 2
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        run = finetune(output_dir=tmp_path / "again", **{**settings, "max_tokens": 8192})
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sizes and max(sizes) > 512
    assert losses(run) == pytest.approx(found["small"], rel=1e-5)
    shutil.rmtree(tmp_path)
