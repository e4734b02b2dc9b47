"""The table of GPUs, and GPUs that are not in it."""

from __future__ import annotations

import pytest

from alpaca_lora.errors import ConfigError
from alpaca_lora.planning.cards import CARDS, Card, find_card


def test_known_cards():
    assert find_card("A100-80G") == Card("a100-80g", 80, 312)
    assert find_card("h200").tflops == find_card("h100-80g").tflops == 989
    assert CARDS["t4"].dtype == CARDS["v100-32g"].dtype == "float16"  # no bfloat16 before compute capability 8.0


def test_figures_given_win():
    assert find_card("l4", tflops=100) == Card("l4", 22.5, 100)
    assert find_card("mine", 48, 200) == Card("mine", 48, 200)


def test_unknown_cards():
    with pytest.raises(
        ConfigError, match=r"gpu: 'a100-8g' is not in the table. Did you mean 'a100-80g'\? Known: a100-40g"
    ):
        find_card("a100-8g")
    with pytest.raises(ConfigError, match="give gpu_memory .* and gpu_tflops"):
        find_card("mine", memory_gib=48)
    with pytest.raises(ConfigError) as caught:
        find_card("l4", -1, float("nan"))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["gpu_memory", "gpu_tflops"]
