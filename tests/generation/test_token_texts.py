"""What single tokens stand for, joined, is the text that the tokenizer gives for all of them."""

from __future__ import annotations

import pytest

from alpaca_lora.data.tokens import Encoder
from alpaca_lora.generation.token_texts import TokenTexts
from alpaca_lora.prompts import Template

TEXTS = [" Hello", "Hello, world!\n\n", "  two", "naïve 日本 \u2028 🦙🦙", "a\tb\r\n", "</s> <|im_end|>", ""]


@pytest.fixture(params=["sentencepiece", "bpe"])
def encoder(request, sentencepiece_tokenizer, bpe_tokenizer):
    tokenizer = {"sentencepiece": sentencepiece_tokenizer, "bpe": bpe_tokenizer}[request.param]
    return Encoder(tokenizer, Template.load("alpaca"))


@pytest.mark.parametrize("text", TEXTS)
def test_joined_they_are_the_text(encoder, text):
    texts, ids = TokenTexts(encoder), encoder.response_ids(text)
    assert b"".join(map(texts.shown, ids)) == text.encode()
    assert encoder.decode(ids) == text


def test_names(encoder):
    texts = TokenTexts(encoder)
    for id in encoder.response_ids("Hello 🦙"):
        own = texts.in_bytes(id)
        try:
            assert texts.name(id) == own.decode()
        except UnicodeDecodeError:
            assert texts.name(id) == "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)
    assert texts.name(encoder.eos_id) == encoder.tokenizer.eos_token
    assert texts.shown(encoder.eos_id) == b""
    beyond = max(encoder.tokenizer.get_vocab().values()) + 5  # of a model whose embedding has more rows
    assert texts.name(beyond) == ""


def test_a_prompt_is_a_text_of_its_own(encoder):
    ids = [*encoder.text_ids("Hello there"), encoder.eos_id]
    assert TokenTexts(encoder).whole(ids) == "Hello there"


def test_a_tokenizer_of_another_kind_is_asked_what_it_decodes(encoder, monkeypatch):
    monkeypatch.setattr(TokenTexts, "_byte_level", lambda self, id: b"?")
    monkeypatch.setattr(TokenTexts, "_piece", lambda self, id: b"?")
    texts = TokenTexts(encoder)
    assert b"".join(map(texts.shown, encoder.response_ids(" Hello, world!"))) == b" Hello, world!"
