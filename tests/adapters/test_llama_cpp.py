"""GGUF files in llama.cpp itself: its probabilities, prompts, answers and stops are those here.

For each architecture, kind of rotary positions and shape; benchmarks/elsewhere.py does the same with a trained model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from alpaca_lora import export
from alpaca_lora.adapters.chat_template import chat_template
from alpaca_lora.adapters.gguf_file import write_gguf
from alpaca_lora.adapters.gguf_tokens import _SPLITS
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.generation.model import LocalModel
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.prompts import Template
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp")

WORKER = Path(__file__).parents[2] / "benchmarks" / "elsewhere_programs" / "llama_cpp.py"
CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
ORIGINAL = 64
"""Positions of the original context; prompts go beyond it."""
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        **{"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": ORIGINAL,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": ORIGINAL},
}


def asked(file: Path, requests: list[dict[str, Any]], **job: Any) -> list[Any]:
    """What llama.cpp says, with keys and values in float32."""
    paths = [file.with_name(name) for name in ("job.json", "result.json")]
    fixed = {"model": str(file), "requests": requests, "context": 1024, "exact": True, "threads": 1, "top": 1_000_000}
    paths[0].write_text(json.dumps({"plain": 0, "max_new_tokens": 1, **fixed, **job}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(WORKER), *map(str, paths)], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(paths[1].read_text(encoding="utf-8"))["answers"]


def random_model(vocabulary: int, rope: dict[str, Any], kind: str = "llama", **shape: Any) -> Any:
    """A tiny model of a kind, its weights and biases so large that a wrong position moves probabilities far."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CONFIGS[kind](
        **{**sizes, "num_key_value_heads": 1, "max_position_embeddings": 8 * ORIGINAL, **shape},
        **({"sliding_window": None} if kind == "mistral" else {}),
        vocab_size=vocabulary,
        rope_parameters=rope,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                tensor.mul_(8)
            elif name.endswith("bias") or "q_norm" in name or "k_norm" in name:  # they begin as zeros and ones
                tensor.add_(torch.randn_like(tensor) / 2)
    return model


def written(model: Any, encoder: Encoder, folder: Path, stops: list[int] | None = None) -> Path:
    """The model as a GGUF file in float32."""
    model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    write_gguf(
        folder, folder / "model.gguf", "f32", encoder, stops or [encoder.eos_id], chat_template(encoder, glue="")
    )
    return folder / "model.gguf"


@pytest.mark.parametrize(
    ("rope", "shape"),
    [
        *((name, {}) for name in ROPES),
        ("llama3", {"tie_word_embeddings": True}),
        ("llama3", {"num_key_value_heads": 2, "head_dim": 16}),
        ("default", {"kind": "mistral"}),
        ("default", {"kind": "qwen2"}),
        ("yarn", {"kind": "qwen2", "tie_word_embeddings": True}),
        ("default", {"kind": "qwen3", "head_dim": 48}),
        ("yarn", {"kind": "qwen3", "head_dim": 32, "tie_word_embeddings": True}),
    ],
    ids=str,
)
def test_probabilities_are_those_of_transformers(rope, shape, short_tokenizers, tmp_path):
    tokenizer = short_tokenizers["bpe"]
    model = random_model(len(tokenizer), ROPES[rope], **shape)
    file = written(model, Encoder(tokenizer, Template.load("alpaca")), tmp_path)
    ids = torch.randint(5, len(tokenizer), (6 * ORIGINAL,), generator=torch.Generator().manual_seed(1)).tolist()
    prompts = [ids[:20], ids]
    (plain,) = tokenizer("x", add_special_tokens=False).input_ids
    told = asked(file, [{"prompt_ids": prompt, "forced": [plain]} for prompt in prompts], plain=plain)
    for prompt, (found,) in zip(prompts, [one["likely"] for one in told], strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        assert len(found) > len(tokenizer) // 2  # the others are unused, or too unlikely to be told
        theirs = torch.tensor([expected[int(id)] for id in found])
        assert expected.max() - expected.min() > 3
        assert (theirs - torch.tensor([*found.values()])).abs().max() < 1e-3


def qwens_splitting(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer, its text split as Qwen splits it."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    (pattern,) = (pattern for pattern, name in _SPLITS.items() if name == "qwen2")
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_only]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["sentencepiece", "bpe", "qwen2"])
def test_a_chat_clients_prompts_answers_and_stops_are_those_here(
    kind, short_tokenizers, sentencepiece_tokenizer, tmp_path
):
    """The stop is a usual token that the answer comes to, beside EOS: a random model comes to no EOS."""
    # The whole SentencePiece tokenizer: the short one has tokens without their parts, which llama.cpp makes anyway.
    tokenizer = sentencepiece_tokenizer if kind == "sentencepiece" else short_tokenizers["bpe"]
    if kind == "qwen2":
        tokenizer = qwens_splitting(tokenizer, tmp_path / "tokenizer")
    encoder = Encoder(tokenizer, Template.load("alpaca"))
    model = random_model(len(tokenizer), ROPES["default"], **({"kind": kind} if kind == "qwen2" else {}))
    local = LocalModel(model, encoder, [encoder.eos_id])
    texts = ["Name a cat.", "two\n\nlines\n", "1234567 + 89, it's 3x", "naïve café 🦙 日本", "  spaces   and\ttabs "]
    prompts = [encoder.prompt_ids(text) for text in texts]
    answers = [local.begin(prompt, Sampling(max_new_tokens=12), growing=False) for prompt in prompts]
    stop = made(local, answers[0]).ids[6]
    ours = [made(local, local.begin(prompt, Sampling(max_new_tokens=12), growing=False), stop) for prompt in prompts]
    file = written(model, encoder, tmp_path / "model", [encoder.eos_id, stop])
    requests = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    told = asked(file, requests, max_new_tokens=12)
    assert [one["prompt_ids"] for one in told] == prompts
    assert [[id for id in one["ids"] if id != stop] for one in told] == [one.ids for one in ours]
    assert [one["stop"] for one in told] == [one.finish_reason for one in ours]
    assert ours[0].finish_reason == "stop"


def made(model: LocalModel, answer: Any, *stops: int) -> Any:
    """An answer, made to its end."""
    answer.stop_ids |= {*stops}
    batch = model.batch()
    batch.join([answer])
    while not answer.finish_reason:
        batch.step()
    return answer


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_qwen_is_exported(kind, short_tokenizers, tmp_path):
    """Read back and compared by the export itself; with biases, norms of q and k, licence and base."""
    tokenizer = qwens_splitting(short_tokenizers["bpe"], tmp_path / "tokenizer")
    folder = tmp_path / "model"
    random_model(len(tokenizer), ROPES["default"], kind=kind, num_key_value_heads=2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), Template.load("alpaca"))  # Qwen's class, by the config
    RunFile(Contract.of(encoder, "a hub id", "of old")).write(folder)
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nbase_model: Owner/base-1\n---\n# M\n", encoding="utf-8"
    )
    report = export(folder, tmp_path / "out", format="gguf-f16")
    assert report.logits["max_difference"] < report.logits["limit"]
    read = GGUFReader(tmp_path / "out" / "model-f16.gguf")
    names = {tensor.name for tensor in read.tensors}
    assert ({"blk.1.attn_k.bias"} if kind == "qwen2" else {"blk.1.attn_q_norm.weight"}) < names
    said = {name: field.contents() for name, field in read.fields.items() if name.startswith("general.")}
    assert (said["general.architecture"], said["general.license"]) == (kind, "apache-2.0")
    assert said["general.base_model.0.organization"] == "Owner" and said["general.base_model.0.name"] == "base-1"


@pytest.mark.parametrize("kind", ["q4_k_m", "q5_k_m"])
def test_few_bits_are_llama_cpps_mixture_and_answer_nearly_as_before(kind, short_tokenizers, tmp_path):
    """8 layers, rows of 256, against the types that llama-quantize gives such a model."""
    tokenizer = short_tokenizers["bpe"]
    encoder = Encoder(tokenizer, Template.load("alpaca"))
    folder = tmp_path / "model"
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 8}
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=4, vocab_size=len(tokenizer))
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    RunFile(Contract.of(encoder, "a hub id", "of old")).write(folder)
    report = export(folder, tmp_path / "out", format=f"gguf-{kind}")
    assert 0 < report.logits["mean_kl"] < report.logits["limit"] / 4
    file = tmp_path / "out" / f"model-{kind}.gguf"
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
    few = kind[:4].upper()
    more = [f"blk.{layer}.{name}.weight" for layer in (0, 3, 6, 7) for name in ("attn_v", "ffn_down")]
    assert {name for name, found in types.items() if found == "Q6_K"} == {*more, "output.weight"}
    assert {found for name, found in types.items() if "norm" in name} == {"F32"}
    assert {found for name, found in types.items() if "norm" not in name} == {few, "Q6_K"}

    (answer,) = asked(file, [{"messages": [{"role": "user", "content": "Name a cat."}]}], max_new_tokens=4)
    assert len(answer["ids"]) <= 4 and answer["stop"] in ("stop", "length")
