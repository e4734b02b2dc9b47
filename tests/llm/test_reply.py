"""What a reply says: thoughts in front of it are left out, and nothing that only looks like one is."""

from __future__ import annotations

import pytest

from alpaca_lora.generation.completion import Completion
from alpaca_lora.llm.reply import (
    EMPTY_REPLY,
    FILTERED,
    REMEDIES,
    THOUGHT_ONLY,
    TOO_LONG,
    read_reply,
    sample_of,
    whole_characters,
)


def read(text, max_new_tokens=64):
    return read_reply(Completion(text, "stop", 1, 1), max_new_tokens)


@pytest.mark.parametrize(
    "text",
    [
        "<think>draft</think>\n\nAnswer.",
        "\n<think>\ndraft\n</think>\nAnswer.",
        "<THINK>draft</THINK>Answer.",
        "<thinking>draft</thinking>Answer.",
        "<reasoning>draft</reasoning>Answer.",
        "<thought>draft</thought> Answer.",
        "<seed:think>draft</seed:think>Answer.",
        "[THINK]draft[/THINK]Answer.",
        "◁think▷draft◁/think▷Answer.",
        "<think></think><think>draft</think>Answer.",
        "<think>a `<think>` of <think> mine</think> draft\n</think>\nAnswer.",
        "<think>\n```\ncode\n```\n</think>\nAnswer.",
        "draft\n</think>\n\nAnswer.",
        "draft.</think>Answer.",
        "draft </think>\nAnswer.",
        "draft[/THINK]Answer.",
        "<|begin_of_thought|>draft<|end_of_thought|>\n<|begin_of_solution|>Answer.<|end_of_solution|>",
        "<|START_THINKING|>draft<|END_THINKING|><|START_RESPONSE|>Answer.<|END_RESPONSE|>",
        "<|channel|>analysis<|message|>draft<|end|><|start|>assistant<|channel|>final<|message|>Answer.<|return|>",
        "<|channel|>analysis draft <|channel|>final Answer.",
        "<|start|>assistant<|channel|>commentary<|message|>draft<|end|><|channel|>final<|message|>Answer.",
        "analysisWe draft.assistantfinalAnswer.",
    ],
)
def test_thoughts_are_left_out(text):
    reply = read(text)
    assert (reply.text, reply.problem, reply.thoughts) == ("Answer.", "", True)


@pytest.mark.parametrize(
    "text",
    [
        "<think>draft",
        "<think>\ndraft\nVerdict: 1",
        "<think>draft</think>",
        "<think>one</think><think>two",
        "[THINK]draft",
        "◁think▷draft",
        "draft\n</think>\n",
        "Let me see.\n<think>\nVerdict: 1",
        "<|channel|>analysis<|message|>draft",
        "analysisWe draft",
        "<|START_THINKING|>draft",
    ],
)
def test_what_is_only_thought_cannot_be_used(text):
    reply = read(text)
    assert (reply.text, reply.problem, reply.thoughts) == ("", THOUGHT_ONLY, True)


@pytest.mark.parametrize(
    "text",
    [
        "Use `<think>` and `</think>`.",
        "It looks so:\n\n```\n<think>\ndraft\n</think>\n```\n\nDone.",
        "Some models write <think> first and </think> last.",
        "The </think> tag ends it.",
        'It ends in "</think>"\nand goes on.',
        "Close with `</think>`\nand go on.",
        "~~~xml\n</think>\n~~~\nis the end.",
        "[Reasoning] The first is right.",
        "analysis of the text",
        "Analysis: it is good.",
        "  kept as it is \n",
        "Instruction: Explain.\nOutput: First <think>a</think>, then b.",
    ],
)
def test_what_is_said_about_thoughts_stays(text):
    assert read(text) == read_reply(Completion(text, "length", 1, 1), 64)
    assert (read(text).text, read(text).problem, read(text).thoughts) == (text, "", False)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_reply(text):
    assert (read(text).text, read(text).problem) == ("", EMPTY_REPLY)
    filtered = read_reply(Completion(text, "content_filter", 1, 0), 64)
    assert (filtered.text, filtered.problem) == ("", FILTERED)


def test_a_reply_far_beyond_its_limit_is_not_looked_into():
    assert read("x" * 10_000).problem == "" and read("x" * 10_001).problem == TOO_LONG
    assert read("x" * 32_000, 1_000).problem == "" and read("x" * 32_001, 1_000).problem == TOO_LONG
    assert set(REMEDIES) == {THOUGHT_ONLY, EMPTY_REPLY, FILTERED, TOO_LONG}


def test_samples_are_short_and_can_be_printed():
    assert sample_of("a\n\ud83d") == "'a\\n\\ud83d'"
    assert len(sample_of("a" * 150 + "b" * 9_000 + "c" * 150)) < 320
    assert whole_characters("a \ud83d b \ud83d\ude00 😀") == "a \ufffd b 😀 😀"
