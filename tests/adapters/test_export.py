"""Export: other programs get the template, the stops and the weights, or are told why not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWENS

from alpaca_lora import cli, export, load
from alpaca_lora.adapters import gguf_file, gguf_tokens
from alpaca_lora.adapters.chat_template import chat_template
from alpaca_lora.adapters.exporting import LIMITS
from alpaca_lora.adapters.ollama import modelfile
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AdapterError, ConfigError, MissingDependencyError, ModelError
from alpaca_lora.prompts import Template
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RUN_FILE, RunFile, read_contract

BASES = {"sentencepiece": "short_base", "bpe": "short_base_bpe"}
INSTRUCTIONS = (
    "Name a cat.",
    " leading, trailing ",
    "two\n\nlines\n",
    "12345 + 67, é, 日本, 🦙, \u2028",
    '{{ messages }} {% if %} {input} """ \\n \'',
    "",
)


@pytest.fixture(scope="module", params=BASES)
def model(request, short_tokenizers, tmp_path_factory):
    """A folder as merge writes it."""
    folder = tmp_path_factory.mktemp("merged") / request.param
    shutil.copytree(request.getfixturevalue(BASES[request.param]), folder)
    encoder = Encoder(short_tokenizers[request.param], Template.load("alpaca"))
    RunFile(Contract.of(encoder, "a hub id", "of old")).write(folder)
    return folder


def user(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("template", ["alpaca", "alpaca_short", "alpaca_legacy"])
@pytest.mark.parametrize("kind", BASES)
def test_a_chat_template_gives_the_ids_trained_with(request, kind, template):
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    encoder = Encoder(tokenizer, Template.load(template))
    chat = chat_template(encoder)
    for text in INSTRUCTIONS:
        for prompt in (True, False):
            ids = tokenizer.apply_chat_template(
                user(text), chat_template=chat, add_generation_prompt=prompt, return_dict=False
            )
            assert ids == encoder.prompt_ids(text)
        assert ids.count(tokenizer.bos_token_id) == (kind == "sentencepiece")


def test_a_template_with_the_languages_own_marks(bpe_tokenizer):
    wording = '{{% raw %}} """ {{{{x}}}} 🦙 {instruction} \\ \'\n'
    template = Template("t", "", wording + "{input}", wording, "")
    encoder = Encoder(bpe_tokenizer, template)
    ids = bpe_tokenizer.apply_chat_template(user("Hi"), chat_template=chat_template(encoder), return_dict=False)
    assert bpe_tokenizer.decode(ids) == template.prompt("Hi") == '{% raw %} """ {{x}} 🦙 Hi \\ \'\n'


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "system", "content": "Be brief."}, *user("Hi")], "answers one user message"),
        ([*user("Hi"), {"role": "assistant", "content": "Hello."}, *user("And?")], "answers one user message"),
        ([{"role": "system", "content": "Be brief."}], "answers one user message"),
        (user([{"type": "text", "text": "Hi"}]), "answers one user message"),
        (user("Say </s>"), "special token </s>"),
    ],
)
def test_what_the_template_cannot_express(sentencepiece_tokenizer, messages, reason):
    chat = chat_template(Encoder(sentencepiece_tokenizer, Template.load("alpaca")))
    with pytest.raises(Exception, match=reason):
        sentencepiece_tokenizer.apply_chat_template(messages, chat_template=chat)


def test_a_template_that_holds_a_special_token(sentencepiece_tokenizer):
    """It is an id, as in training."""
    encoder = Encoder(sentencepiece_tokenizer, Template("t", "", "</s>{instruction}{input}", "</s>{instruction}", ""))
    jinja = chat_template(encoder)
    ids = encoder.tokenizer.apply_chat_template(user("Name a cat."), chat_template=jinja, return_dict=False)
    assert ids == encoder.prompt_ids("Name a cat.")
    assert ids[:2] == [1, 2]


def test_the_folder_with_a_chat_template(model, tmp_path):
    report = export(model, tmp_path / "out", format="chat-template")
    assert {"chat_template.jinja", "model.safetensors", "config.json", RUN_FILE} <= set(report.files)
    tokenizer, encoder = AutoTokenizer.from_pretrained(tmp_path / "out"), load(model).encoder
    ids = tokenizer.apply_chat_template(user("Name a cat."), return_dict=False)
    assert ids == encoder.prompt_ids("Name a cat.")
    generation = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    assert generation.eos_token_id == read_contract(model).stop_ids == [2]
    assert load(tmp_path / "out").contract == read_contract(model)


def test_a_modelfile(model, tmp_path):
    report = export(model, tmp_path / "out", format="ollama")
    assert (report.format, report.files, report.logits) == ("ollama", ["Modelfile"], None)
    text = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    stop = "</s>" if model.name == "sentencepiece" else "<|im_end|>"
    wanted = Template.load("alpaca").prompt("{{ .Prompt }}")
    assert f'\nFROM {model.resolve()}\nTEMPLATE """{wanted}"""\nPARAMETER stop "{stop}"\n' in text
    assert all(line.startswith("#") for line in text.partition("FROM")[0].splitlines())


def test_a_modelfile_with_gos_own_marks(short_tokenizers):
    template = Template("t", "", '"{{{{x}}}} {instruction} {input}"', '"{{{{x}}}} {{{instruction}"', "")
    text = modelfile("./m.gguf", Encoder(short_tokenizers["sentencepiece"], template), ["</s>"])
    assert 'TEMPLATE """{{"\\"{"}}{{"{"}}x}} {{"{"}}{{ .Prompt }}{{"\\""}}"""\n' in text


@pytest.fixture(scope="module", params=LIMITS)
def written(model, request, tmp_path_factory):
    """A folder with a GGUF file, and what writing it reported."""
    out = tmp_path_factory.mktemp("gguf") / request.param
    return out, export(model, out, format=f"gguf-{request.param}")


def test_gguf(model, written):
    out, report = written
    file = f"model-{out.name}.gguf"
    assert report.files == ["Modelfile", "export.json", file]
    logits = report.logits
    assert json.loads((out / "export.json").read_text(encoding="utf-8"))["logits"] == logits
    assert f"\nFROM ./{file}\n" in (out / "Modelfile").read_text(encoding="utf-8")
    assert logits["limit"] == LIMITS[out.name] * logits["largest_logit"]
    assert 0 < logits["max_difference"] < logits["limit"] / 2

    loaded = AutoModelForCausalLM.from_pretrained(out, gguf_file=file, dtype=torch.float32)
    original = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for name, tensor in original.named_parameters():
        found = loaded.get_parameter(name)
        if tensor.ndim == 1:
            assert torch.equal(found, tensor)
        elif out.name == "f16":
            assert torch.equal(found, tensor.half().float()), name
        else:  # half a step of 1/127 of the largest of 32, and the scale's own rounding
            blocks = tensor.unflatten(-1, (-1, 32))
            bound = blocks.abs().amax(-1, keepdim=True) * (1 / 254 + 2**-11) + 1e-9
            assert ((found.unflatten(-1, (-1, 32)) - blocks).abs() <= bound).all(), name
    ours, theirs = original.config, loaded.config
    for key in ("hidden_size", "head_dim", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(theirs, key) == pytest.approx(getattr(ours, key))
    assert theirs.rope_parameters["rope_theta"] == ours.rope_parameters["rope_theta"]


def test_what_a_gguf_file_says(model, written):
    from gguf import GGUFReader

    out, _ = written
    fields = GGUFReader(out / f"model-{out.name}.gguf").fields
    kind, keys = model.name, ("bos_token_id", "eos_token_id", "add_bos_token", "add_space_prefix", "model", "pre")
    said = {key: fields[f"tokenizer.ggml.{key}"].contents() for key in keys}
    one = kind == "sentencepiece"
    names = ("llama", "default") if one else ("gpt2", "gpt-2")
    assert list(said.values()) == [1, 2, one, one, *names]
    types = fields["tokenizer.ggml.token_type"].contents()
    assert types[:3] == ([2, 3, 3] if one else [3, 3, 3])
    assert types.count(6) == (256 if one else 0)
    assert fields["llama.rope.freq_base"].contents() == 10_000
    chat = fields["tokenizer.chat_template"].contents()
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = tokenizer.apply_chat_template(user("Hi"), chat_template=chat, tokenize=False)
    assert text == ("<s>" if one else "") + Template.load("alpaca").prompt("Hi")


# What is refused


@pytest.fixture
def copy(short_base, short_tokenizers, tmp_path):
    """A folder to damage."""
    folder = Path(shutil.copytree(short_base, tmp_path / "model"))
    encoder = Encoder(short_tokenizers["sentencepiece"], Template.load("alpaca"))
    RunFile(Contract.of(encoder, "a hub id", "of old")).write(folder)
    return folder


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def change(folder, name, how):
    tensors = load_file(folder / "model.safetensors")
    how(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder, tmp_path, reason, error=ModelError, format="gguf-f16"):
    with pytest.raises(error, match=reason):
        export(folder, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_whole_model_with_a_contract(copy, tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder. Give the folder merge", AdapterError)
    (copy / RUN_FILE).unlink()
    refused(copy, tmp_path, "has no alpaca_lora.json, so it does not say which prompt", AdapterError, "ollama")
    (copy / "adapter_config.json").write_text("{}", encoding="utf-8")
    refused(copy, tmp_path, "is an adapter, not a whole model. Merge it first .alpaca-lora merge", AdapterError)


def test_an_unknown_format(copy, tmp_path):
    refused(copy, tmp_path, "format: 'gguf' must be one of gguf-f16, gguf-q8_0, gguf-q5_k_m,", ConfigError, "gguf")


def test_an_out_that_is_there(copy, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(AdapterError, match="full: exists and is not an empty folder; name a new one"):
        export(copy, tmp_path / "full", format="ollama")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "gemma"}, "is a gemma model; only LLaMA, Mistral, Qwen2 and Qwen3 models are written as GGUF"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "has rope type 'dynamic'"),
        ({"attention_bias": True}, "has biases, which could not be verified"),
        ({"vocab_size": 3_999}, "the tokenizer has ids up to 3999, the model's embedding 3999 rows"),
    ],
)
def test_models_that_gguf_cannot_hold(copy, tmp_path, values, reason):
    edit(copy / "config.json", **values)
    refused(copy, tmp_path, reason)


def test_values_beyond_half_precision(copy, tmp_path):
    change(copy, "lm_head.weight", lambda tensor: tensor[0, 0].fill_(1e5))
    refused(copy, tmp_path, "'lm_head.weight' holds values beyond the range of F16")


def test_a_file_that_answers_otherwise_is_not_kept(copy, tmp_path, monkeypatch):
    for layer in (0, 1):
        for name in "qk":  # so large that attention decides
            change(copy, f"model.layers.{layer}.self_attn.{name}_proj.weight", lambda tensor: tensor.mul_(20))
    assert export(copy, tmp_path / "good", format="gguf-f16").logits["same_greedy_answers"] >= 19
    monkeypatch.setattr(gguf_file, "_interleaved", lambda tensor, head_dim: tensor)
    refused(copy, tmp_path, "logits of the GGUF file and the folder differ by .* not kept", AdapterError)


def test_a_model_that_does_not_fit_the_memory(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e6))
    refused(copy, tmp_path, "export: comparing logits .* GB are free. Export on a larger machine.", AdapterError)


def test_without_the_package(copy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(copy, tmp_path, "pip install 'alpaca-lora.gguf.'", MissingDependencyError)
    export(copy, tmp_path / "out", format="ollama")


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([{"type": "ByteLevel", "use_regex": True}], "gpt-2"),
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}], "smollm"),
        ([{"type": "Split", "pattern": {"Regex": gguf_tokens._LLAMA3}}, {"type": "ByteLevel"}], "llama-bpe"),
        ([{"type": "Split", "pattern": {"Regex": QWENS}}, {"type": "ByteLevel"}], "qwen2"),
        ([{"type": "Split", "pattern": {"Regex": "."}}, {"type": "ByteLevel"}], None),
        ([{"type": "Whitespace"}], None),
    ],
)
def test_how_text_is_split(steps, kind):
    split = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    content = {"model": {"type": "BPE", "byte_fallback": False}, "pre_tokenizer": split}
    if kind:
        assert gguf_tokens._kind(content) == kind
    else:
        with pytest.raises(ModelError, match="splits text in a way .* that has no name in GGUF here"):
            gguf_tokens._kind(content)


def test_the_command(copy, tmp_path, capsys):
    cli.main(["export", str(copy), str(tmp_path / "out"), "--format", "gguf-q8_0"])
    text = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: Modelfile, export.json, model-q8_0.gguf" in text
    assert "Logits are at most" in text and f"ollama create NAME -f {tmp_path / 'out'}/Modelfile" in text
