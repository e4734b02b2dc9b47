"""Tokens that a base lacks: found in texts, trained as their rows only, saved, loaded, merged, exported, resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca_lora import FinetuneConfig, export, finetune, load, merge, regressions
from alpaca_lora.errors import ConfigError
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.models.geometry import Geometry
from alpaca_lora.models.load import Placement, load_config, load_model, load_tokenizer
from alpaca_lora.models.lora import add_lora
from alpaca_lora.models.new_tokens import add_new_tokens
from alpaca_lora.planning.memory import MemoryModel
from alpaca_lora.training import callbacks

TOKENS = ["<tool>", "</tool>"]
QUICK = {"dtype": "float32", "cutoff_len": 128, "val_set_size": 2, "batch_size": 4, "max_steps": 4, "save_steps": 2}
QUICK |= {"learning_rate": 1e-2, "warmup_steps": 0, "lora_dropout": 0.0, "new_tokens": TOKENS}


@pytest.fixture(scope="module")
def rows(records):
    tools = [("Add 2 and 3.", "<tool>add(2, 3)</tool> 5"), ("Name a tool.", "a <tool>hammer</tool>")]
    own = [{"instruction": asked, "input": "", "output": answer} for asked, answer in tools * 4]
    return [*own, *(record._asdict() for record in records)]


@pytest.fixture(scope="module", params=["untied", "tied"])
def base(request, short_base, short_base_bpe):
    """A base whose embedding and head are two tensors, or one."""
    return short_base if request.param == "untied" else short_base_bpe


@pytest.fixture(scope="module")
def run(base, rows, tmp_path_factory):
    return finetune(base_model=base, data=rows, output_dir=tmp_path_factory.mktemp("tokens") / "first", **QUICK)


@pytest.mark.parametrize("kind", ["sentencepiece", "bpe"])
def test_they_are_one_id_each_and_come_back(kind, short_tokenizers, tmp_path):
    from alpaca_lora.data.tokens import encoder_for

    short_tokenizers[kind].save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    known = len(tokenizer)
    add_new_tokens(tokenizer, TOKENS)
    encoder = encoder_for(tokenizer, "alpaca")
    for text in ("<tool>add(2, 3)</tool> 5", "x <tool> y", "a<tool>b", "<tool><tool>", "\n<tool>\nhi"):
        ids = encoder.response_ids(text)
        assert ids.count(known) == text.count("<tool>")
        assert encoder.decode(ids) == text
    assert known in encoder.prompt_ids("What is <tool>?")


def test_rows_begin_at_their_texts_and_nothing_else_of_the_ends_trains(base, run):
    known = AutoTokenizer.from_pretrained(base)
    model = load_model(base, Placement(torch.device("cpu"), torch.float32))
    before = model.get_input_embeddings().weight.detach().clone()
    pieces = {len(known): [5, 9], len(known) + 1: [7]}
    wrapped = add_lora(model, r=2, alpha=2, dropout=0.0, new_tokens=pieces)
    rows = next(tensor for name, tensor in wrapped.named_parameters() if "trainable_tokens_delta" in name)
    torch.testing.assert_close(rows, torch.stack([before[[5, 9]].mean(0), before[7]]))
    own = wrapped.get_base_model().get_input_embeddings().original_module.weight
    torch.testing.assert_close(own[len(known) :], before.mean(0).expand(2, -1))
    tensors = load_file(run.output_dir / "adapter_model.safetensors")
    ends = {name: tensor.shape for name, tensor in tensors.items() if "lora" not in name}
    assert ends.keys() == {name for name in tensors if "trainable_tokens_delta" in name}
    assert all(shape == (2, 32) for shape in ends.values())
    config = FinetuneConfig(**{**QUICK, "base_model": base, "data": "-", "output_dir": "-"})
    assert MemoryModel(config, Geometry.of(load_config(base)))._lora == sum(one.numel() for one in tensors.values())
    for name, tensor in load_file(
        run.output_dir / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors"
    ).items():
        assert "lora" in name or "trainable_tokens_delta" in name
        assert torch.equal(tensor, tensors[name])


def test_loaded_merged_and_exported(run, base, tmp_path):
    loaded = load(run.output_dir)
    known = len(AutoTokenizer.from_pretrained(base))
    assert loaded.model.get_input_embeddings().weight.shape[0] == known + 2
    own = load(base)  # with the adapter off, the base's own logits; new tokens are unlikely there
    asked = torch.tensor([own.encoder.prompt_ids("Name three fruits.")])
    with torch.no_grad(), loaded.model.disable_adapter():
        off = loaded.model(asked).logits[0, -1].softmax(-1)
    torch.testing.assert_close(off[:known] / off[:known].sum(), own.model(asked).logits[0, -1].softmax(-1))
    assert (off[known:] <= 1 / known).all()
    merged = merge(run.output_dir, tmp_path / "merged")
    assert merged.certificate["logits"]["max_difference"] < 1e-4
    config = json.loads((merged.folder / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == known + 2
    plain = AutoModelForCausalLM.from_pretrained(merged.folder)
    ids = torch.tensor([loaded.encoder.prompt_ids("Say <tool>x</tool>.")])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, loaded.model(ids).logits, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(merged.folder).convert_tokens_to_ids(TOKENS) == [known, known + 1]
    measured = [regressions(each).general for each in (run.output_dir, merged.folder)]
    assert measured[0].kl.mean == pytest.approx(measured[1].kl.mean, rel=1e-3)
    sampling = Sampling(max_new_tokens=4)
    assert load(merged.folder).generate("Add.", "2, 3", sampling) == loaded.generate("Add.", "2, 3", sampling)
    exported = export(merged.folder, tmp_path / "gguf", format="gguf-f16")
    from gguf import GGUFReader

    fields = GGUFReader(exported.folder / "model-f16.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert tokens[known:] == TOKENS and kinds[known:] == [4, 4]  # 4: user-defined, found in every text


def test_an_interrupted_run_ends_the_same(run, base, rows, tmp_path, monkeypatch):
    def killed(self, args, state, control, **more):
        if state.global_step == 3:
            raise KeyboardInterrupt

    settings = {"base_model": base, "data": rows, "output_dir": tmp_path / "again", "resume": "auto", **QUICK}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks.EvaluateLast, "on_step_end", killed)
        finetune(**settings)
    finetune(**settings)
    for name in ("adapter_model.safetensors", "checkpoints/checkpoint-4/optimizer.pt"):
        assert (tmp_path / "again" / name).read_bytes() == (run.output_dir / name).read_bytes()
    with pytest.raises(ConfigError, match="resume: new_tokens was"):
        finetune(**{**settings, "new_tokens": ["<tool>"]})


def test_the_best_evaluations_rows_are_kept(base, rows, tmp_path):
    settings = {**QUICK, "max_steps": 6, "save_steps": 1, "eval_steps": 1, "save_total_limit": 6, "keep": "best"}
    run = finetune(base_model=base, data=rows, output_dir=tmp_path / "best", **settings)
    losses = {line["step"]: line["eval_loss"] for line in run.history if "eval_loss" in line and line["step"]}
    best = min(losses, key=losses.__getitem__)
    kept = load_file(run.output_dir / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors")
    found = load_file(run.output_dir / "adapter_model.safetensors")
    assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in found)


def test_gone_on_from(run, rows, tmp_path):
    settings = {name: value for name, value in QUICK.items() if name != "new_tokens"}
    second = finetune(adapter=run.output_dir, data=rows, output_dir=tmp_path / "second", **settings)
    assert second.history[0]["eval_loss"] == pytest.approx(run.history[-1]["eval_loss"], rel=1e-5)
    content = json.loads((second.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["config"]["new_tokens"] == TOKENS
    with pytest.raises(ConfigError, match=r"new_tokens: \['<x>'\] is not that of the adapter"):
        finetune(adapter=run.output_dir, data=rows, output_dir=tmp_path / "x", **{**settings, "new_tokens": ["<x>"]})


def test_what_trains_is_float32(base):
    model = load_model(base, Placement(torch.device("cpu"), torch.bfloat16))
    wrapped = add_lora(model, r=2, alpha=2, dropout=0.0, new_tokens={model.config.vocab_size: [5]})
    assert {tensor.dtype for tensor in wrapped.parameters() if tensor.requires_grad} == {torch.float32}


def test_rows_that_the_base_has_left_over_are_taken(short_base, rows, tmp_path):
    wide = Path(shutil.copytree(short_base, tmp_path / "wide"))
    model = AutoModelForCausalLM.from_pretrained(wide)
    model.resize_token_embeddings(model.config.vocab_size + 8, mean_resizing=False)
    model.save_pretrained(wide)
    run = finetune(base_model=str(wide), data=rows, output_dir=tmp_path / "out", **QUICK)
    merged = merge(run.output_dir, tmp_path / "merged")
    assert json.loads((merged.folder / "config.json").read_text())["vocab_size"] == model.config.vocab_size
    assert merged.certificate["logits"]["max_difference"] < 1e-4


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["<a>", "<a>"], "new_tokens: '<a>' is named twice. Name it once."),
        ([" "], "new_tokens: ' ' is blank, or holds white space"),
        (["two words"], "new_tokens: 'two words' is blank, or holds white space"),
        (["</s>"], "new_tokens: '</s>' is a special token in other models. New tokens are ordinary text"),
        (["<|im_end|>"], "new_tokens: '<|im_end|>' is a special token in other models."),
        ([], "new_tokens: [] must be a list of texts, or left out."),
        ("<a>", "new_tokens: '<a>' must be a list of texts, or left out."),
    ],
)
def test_texts_that_cannot_be_tokens(tokens, said):
    with pytest.raises(ConfigError) as caught:
        FinetuneConfig(base_model="-", data="-", output_dir="-", new_tokens=tokens)
    assert said in str(caught.value)


@pytest.mark.parametrize("setting", [{"method": "full"}, {"fsdp": True}])
def test_not_with(setting):
    with pytest.raises(ConfigError, match="new_tokens: their rows are trained beside frozen weights"):
        FinetuneConfig(base_model="-", data="-", output_dir="-", new_tokens=["<a>"], **setting)


def test_tokens_that_the_base_has(short_base, rows, tmp_path):
    known = load_tokenizer(short_base).convert_ids_to_tokens([500, 600])
    with pytest.raises(ConfigError) as caught:
        finetune(base_model=short_base, data=rows, output_dir=tmp_path / "out", **{**QUICK, "new_tokens": known})
    assert f"new_tokens: {known[0]!r} is a token of this base already, with id 500. Leave it out." in str(caught.value)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out").exists()
