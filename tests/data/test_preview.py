"""What `inspect` tells about encoded records."""

from __future__ import annotations

import json
import re

import pytest

from alpaca_lora.data.preview import DataReport
from alpaca_lora.data.record import Conversation
from alpaca_lora.data.records import Record, RecordSet, load_records
from alpaca_lora.data.tokens import Encoder, encoder_for
from alpaca_lora.prompts import Template
from chats import chat_tokenizer


@pytest.fixture(scope="module")
def report(records, bpe_tokenizer) -> DataReport:
    encoder = Encoder(bpe_tokenizer, Template.load("alpaca"))
    source = RecordSet(records, list(range(1, len(records) + 1)), "mine.json", {"empty output": [40, 41]})
    return DataReport(source, encoder.encode(source, cutoff_len=60), encoder)


def test_counts_drops_and_truncation_are_named(report):
    rows = report.rows
    assert rows["records"] == "12 from mine.json"
    assert rows["dropped, empty output"] == "2 (record 40, 41)"
    assert rows["ending in EOS"] == "100%"
    assert rows["special tokens in text"] == "none"
    assert rows["text changed by the tokenizer"] == "none"
    assert rows["begins with"].startswith("no BOS: 38751 'Below' 314 'Ġis'") or "'Below'" in rows["begins with"]
    assert len(report.examples) + len(report.examples.too_long) == 12
    assert f"supervised tokens  {report.examples.supervised.sum():,}" in re.sub(r" {2,}", "  ", str(report))


def test_what_each_layout_computes(report):
    """Rows of 8 are the first 8 of the step and the 4 left over, each as long as its longest."""
    tokens = {name: int(value.split()[0].replace(",", "")) for name, value in report.computed.items()}
    assert tokens["computed, packed"] == int(report.examples.lengths.sum()) - len(report.examples)
    assert tokens["computed, tree"] < tokens["computed, packed"] <= tokens["computed, padded"]
    longest = int(report.examples.lengths.max()) - 1
    assert tokens["computed, packed"] <= tokens["computed, rows of 8"] <= longest * len(report.examples)


def test_a_tree_computes_conversations_once(bpe_tokenizer):
    """Conversations of 2 to 4 turns that begin differently, so that nothing is saved but by their own turns."""
    chats = [
        [{"role": "system", "content": f"{number} is your number; say it when you are asked for one."}]
        + [
            {"role": role, "content": f"{text} {turn}, please: what is {number} plus {turn}?"}
            for turn in range(2 + number % 3)
            for role, text in (("user", "Question"), ("assistant", "You asked for"))
        ]
        for number in range(100, 160)
    ]
    encoder = encoder_for(bpe_tokenizer, "chat")
    records = load_records([{"messages": messages} for messages in chats])
    report = DataReport(records, encoder.encode(records, cutoff_len=512), encoder)
    tokens = {name: int(value.split()[0].replace(",", "")) for name, value in report.computed.items()}
    # Behind a conversation's last answer stands its end, which is only predicted, and a line feed.
    once = sum(len(bpe_tokenizer.apply_chat_template(messages)["input_ids"]) - 2 for messages in chats)
    assert 0.9 * once < tokens["computed, tree"] <= 1.02 * once
    assert tokens["computed, packed"] > 1.5 * once


def test_examples_are_shown_prompt_dim_and_response_green(report):
    text = report.examples_shown(1)[0]
    assert text.plain.startswith("record 1: Below is an instruction")
    assert text.plain.endswith("### Response:\nApple, pear and plum.<|im_end|>")
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["record 1: "] == "bold" and styles["<|im_end|>"] == "reverse green"
    assert styles["Apple"] in ("green", "bright_green")


ASKED, ANSWERED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}


def talk(*texts, learned=None, system=""):
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    places = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
    return Conversation(tuple(messages), tuple(places if learned is None else learned))


def chat_report(short_tokenizers, name, records, cutoff_len=1000, **more):
    encoder = encoder_for(chat_tokenizer(name, short_tokenizers), "chat")
    source = RecordSet(records, list(range(1, len(records) + 1)), "mine.json", **more)
    return DataReport(source, encoder.encode(source, cutoff_len), encoder)


def styled(text, *colours):
    """What of a shown record has these colours, joined."""
    return "".join(text.plain[span.start : span.end] for span in text.spans if str(span.style) in colours)


def test_conversations_are_shown_with_all_that_is_learned_coloured(short_tokenizers):
    record = talk("Hi", "Ho é", "Why?", "So.", "And?", "Now.", learned=(2, 6), system="Be kind.")
    (text,) = chat_report(short_tokenizers, "chatml", [record]).examples_shown(1)
    head = "record 1: <|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert text.plain.startswith(head + "Ho é<|im_end|>\n<|im_start|>user\nWhy?")
    assert text.plain.endswith("And?<|im_end|>\n<|im_start|>assistant\nNow.<|im_end|>")
    assert styled(text, "green", "bright_green") == "Ho éNow."
    assert styled(text, "reverse green") == "<|im_end|><|im_end|>"
    assert "So.<|im_end|>" in styled(text, "dim")


def test_turns_of_a_template_that_rewrites_history_are_shown_apart(short_tokenizers):
    record = talk("Hi", "<think>\nHm.\n</think>\n\nHo", "Bye", "Bye")
    first, second = chat_report(short_tokenizers, "qwen3", [record, record]).examples_shown(1)
    assert styled(first, "green", "bright_green") == "<think>\nHm.\n</think>\n\nHo"
    assert "Hm." not in second.plain and styled(second, "green", "bright_green").endswith("\n\nBye")


@pytest.mark.parametrize("name", ["llama2", "phi"])
def test_sentencepiece_conversations_are_shown_as_their_templates_write_them(short_tokenizers, name):
    (text,) = chat_report(short_tokenizers, name, [talk("Hi", "Ho", "Bye", "So")]).examples_shown(1)
    assert styled(text, "green", "bright_green").replace(" ", "") == "HoSo"
    assert text.plain.count("Hi") == text.plain.count("Bye") == 1


def test_a_json_templates_special_tokens_are_shown(short_tokenizers, tmp_path):
    asked = "<s>[INST] {instruction} [/INST]"
    fields = {"description": "", "prompt_input": asked, "prompt_no_input": asked, "response_split": "[/INST]"}
    (tmp_path / "mine.json").write_text(json.dumps({**fields, "prompt_input": f"{asked}{{input}}"}), encoding="utf-8")
    encoder = Encoder(short_tokenizers["sentencepiece"], Template.load(tmp_path / "mine.json"))
    source = RecordSet([Record("Is it </s>?", "", "Yes")], [1], "mine.json")
    (text,) = DataReport(source, encoder.encode(source, 100), encoder).examples_shown(1)
    assert text.plain.startswith("record 1: <s>") and text.plain.count("<s>") == 1
    assert text.plain.endswith("Yes</s>") and styled(text, "reverse green") == "</s>"


def test_what_is_learned_dropped_and_computed_of_conversations(short_tokenizers):
    records = [
        talk("Hi", "Ho", "Why?", "So.", learned=(3,)),
        talk("Hi", "Ho", "Bye " * 100, "Bye"),
        talk("Hi " * 200, "Ho"),
        Conversation((ASKED, ANSWERED, ANSWERED), (1, 2), parents=(-1, 0, 0)),
        talk("Hi", "Ho", system="Be kind."),
    ]
    report = chat_report(short_tokenizers, "phi", records, 100, unlearned={"deleted": 3})
    rows = report.rows
    assert rows["conversations"] == "5 with 7 answers to learn"
    assert rows["answers that are context only"] == "1"
    assert rows["with a system text"] == rows["trees of replies"] == "1"
    assert rows["answers of trees not learned"] == "3 deleted"
    assert rows["dropped, prompt reaches cutoff_len"] == "1 (record 3)"
    assert rows["later turns dropped, prompt reaches cutoff_len"] == "1 (record 2)"
    assert rows["examples"] == "5" and rows["ending in <|end|> or <|endoftext|>"] == "100%"
    assert rows["begins with"].startswith("no BOS: ")


def test_the_tree_computes_conversations_once(short_tokenizers):
    records = [talk(f"Question {n}", "Ho", "Why?", "So.", "And?", f"Now {n}.") for n in range(20)]
    report = chat_report(short_tokenizers, "chatml", records)
    tokens = {name: int(value.split()[0].replace(",", "")) for name, value in report.computed.items()}
    once = len(report.examples.ids)
    assert f"{once:,} if each is laid out once" in report.rows["tokens"]
    assert tokens["computed, tree"] <= once < tokens["computed, packed"] / 1.7
