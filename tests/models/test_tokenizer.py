"""Tokenizers whose files name the wrong class or special tokens: loaded as SentencePiece means them, or refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import ModelError
from alpaca_lora.models.tokenizer import check_pairing, load_tokenizer
from alpaca_lora.prompts import Template

GOOD = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
EMPTY = dict.fromkeys(GOOD, "")
OBJECTS = {name: {"__type": "AddedToken", "content": "", "lstrip": False, "rstrip": False} for name in GOOD}


def sentencepiece_folder(folder: Path, **settings: object) -> str:
    """A folder with a SentencePiece model, and no tokenizer.json."""
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None and spec.origin is not None
    shutil.copy(Path(spec.origin).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("name", ["LLaMATokenizer", "LlamaTokenizer", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize("specials", [GOOD, EMPTY, OBJECTS, {}])
def test_a_sentencepiece_model_gives_its_own_ids_whatever_its_config_says(tmp_path, name, specials):
    settings = {"tokenizer_class": name, **specials} if name else specials
    encoder = Encoder(load_tokenizer(sentencepiece_folder(tmp_path, **settings)), Template.load("alpaca"))
    words = encoder.tokenizer.convert_ids_to_tokens(encoder.prompt_ids("Hi"))
    assert words[:3] == ["<s>", "▁Below", "▁is"]
    assert (encoder.prefix_ids, encoder.eos_id) == ([1], 2)
    assert encoder.decode(encoder.response_ids("  two")) == "  two"


def test_a_model_trained_without_bos_stays_so_and_is_warned_of(tmp_path):
    tokenizer = load_tokenizer(sentencepiece_folder(tmp_path, **GOOD, add_bos_token=False))
    assert Encoder(tokenizer, Template.load("alpaca")).prefix_ids == []
    config = SimpleNamespace(vocab_size=32_000, bos_token_id=1, eos_token_id=2)
    with pytest.warns(UserWarning, match="bos_token: '<s>' is not put in front of prompts"):
        check_pairing(tokenizer, config)


def test_an_eos_without_a_row_is_refused(tmp_path):
    tokenizer = load_tokenizer(sentencepiece_folder(tmp_path, **{**GOOD, "eos_token": "<|im_end|>"}))
    config = SimpleNamespace(vocab_size=32_000, bos_token_id=1, eos_token_id=2)
    with pytest.raises(ModelError, match=r"'<\|im_end\|>' has id 32000.*32000 ids only.*by its config '</s>' \(id 2\)"):
        check_pairing(tokenizer, config)


@pytest.mark.parametrize("name", ["LLaMATokenizer", "LlamaTokenizer"])
def test_empty_special_tokens_of_a_tokenizer_json_are_none(tmp_path, name, sentencepiece_tokenizer):
    sentencepiece_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **EMPTY}), encoding="utf-8")
    with pytest.raises(ModelError, match="no EOS token"):  # before: a RecursionError, or id 0 at every end
        Encoder(load_tokenizer(str(tmp_path)), Template.load("alpaca"))


def test_a_pad_token_without_a_row_is_eos_instead(tmp_path):
    tokenizer = load_tokenizer(sentencepiece_folder(tmp_path, **GOOD, pad_token="[PAD]"))
    assert tokenizer.pad_token_id == 32_000
    config = SimpleNamespace(vocab_size=32_000, bos_token_id=1, eos_token_id=2)
    with pytest.warns(UserWarning, match=r"pad_token: '\[PAD\]' has id 32000, and the model knows 32000 ids only"):
        check_pairing(tokenizer, config)
    assert tokenizer.pad_token_id == 2
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(str(tmp_path / "saved")).pad_token_id == 2
