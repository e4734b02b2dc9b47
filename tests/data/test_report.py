"""What `inspect` tells about encoded records."""

from __future__ import annotations

import re

import pytest

from alpaca_lora.data.records import RecordSet
from alpaca_lora.data.report import DataReport
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.prompts import Template


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


def test_examples_are_shown_prompt_dim_and_response_green(report):
    text = report.examples_shown(1)[0]
    assert text.plain.startswith("record 1: Below is an instruction")
    assert text.plain.endswith("### Response:\nApple, pear and plum.<|im_end|>")
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["record 1: "] == "bold" and styles["<|im_end|>"] == "reverse green"
    assert styles["Apple"] in ("green", "bright_green")
