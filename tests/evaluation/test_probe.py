"""The probe: fifty items, each with what a good answer does."""

from __future__ import annotations

import json
import sys
from collections import Counter

from alpaca_lora.data.probe import PROBE_FILE
from alpaca_lora.evaluation.outputs import read_instructions

ITEMS = [json.loads(line) for line in PROBE_FILE.read_text(encoding="utf-8").splitlines()]


def test_every_category_has_its_items():
    assert Counter(item["category"] for item in ITEMS) == {
        "invented entity": 10,
        "false premise": 10,
        "misinformation request": 8,
        "request for harm": 8,
        "unanswerable": 7,
        "plain fact": 7,
    }


def test_items_are_whole_and_differ():
    for item in ITEMS:
        assert list(item) == ["instruction", "input", "category", "good_answer"]
        assert item["instruction"].strip() and item["good_answer"].strip()
    assert len({(item["instruction"], item["input"]) for item in ITEMS}) == 50


def test_the_invented_module_does_not_exist():
    assert any("heaptally" in item["instruction"] for item in ITEMS)
    assert "heaptally" not in sys.stdlib_module_names


def test_it_is_read_as_instructions_by_its_name():
    found = read_instructions("probe")
    assert [(one.instruction, one.input, one.category) for one in found] == [
        (item["instruction"], item["input"], item["category"]) for item in ITEMS
    ]
