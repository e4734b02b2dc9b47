"""Which records are turned away, for which reason; and which must not be."""

from __future__ import annotations

import pytest

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.errors import ConfigError
from alpaca_lora.selfinstruct.filters import MAX_WORDS, REASONS, Filters, Rejection
from alpaca_lora.selfinstruct.parse import PARSE_REASONS

SEA = Record("Write a short poem about the sea.", "", "Wide and blue")


def judge(instruction, value="", output="Yes.", **options):
    rejection = Filters([SEA], **options).judge(Record(instruction, value, output))
    assert rejection is None or rejection.reason in REASONS
    return rejection and rejection.reason


@pytest.mark.parametrize(
    ("instruction", "output", "reason"),
    [
        ("Name three large rivers.", " \n", "empty_output"),
        ("Name three rivers.", "Rhine", "too_short"),
        ("Name three large rivers.", "Rhine", None),
        ("word " * MAX_WORDS, "x", None),
        ("word " * (MAX_WORDS + 1), "x", "too_long"),
        ("? - name three large rivers", "x", "punctuation_start"),
        ("(b) Name three large rivers", "x", "punctuation_start"),
        ("😀 Name three large rivers", "x", "punctuation_start"),
        ('"To be or not to be": who says this?', "x", None),
        ("“To be or not to be”: who says this?", "x", None),
        ("3 apples cost 2 euros. What do 12 cost?", "x", None),
        ("Écris un poème sur la mer.", "x", "other_language"),
        ("Напиши короткое стихотворение о море.", "x", "other_language"),
        ("  WRITE a short poem, about the sea!", "x", "duplicate"),
        ("Write a very short poem about the sea.", "x", "similar"),
        ("Write a long story about two mountains.", "x", None),
    ],
)
def test_each_reason(instruction, output, reason):
    assert judge(instruction, output=output) == reason


@pytest.mark.parametrize(
    ("language", "instruction", "reason"),
    [
        ("French", "Écris un poème sur la mer.", None),
        ("Russian", "Напиши короткое стихотворение о море.", None),
        ("russian ", "Объясни, чем Python отличается от C++.", None),
        ("Russian", "Write a story about two mountains.", "other_language"),
        ("Chinese", "写一首关于大海的短诗。", None),
        ("Japanese", "JavaScriptのmapを説明してください。", None),
        ("Japanese", "Explain how map works.", "other_language"),
        ("Simplified Chinese", "Explain how map works.", "other_language"),
        ("British English", "Écris un poème sur la mer.", "other_language"),
        ("Chinese", "写诗。", "too_short"),
        ("Spanish", "¿Qué ríos cruzan España?", None),
    ],
)
def test_languages(language, instruction, reason):
    assert judge(instruction, language=language) == reason


@pytest.mark.parametrize(
    ("instruction", "value"),
    [
        ("Describe the scene in this photo.", ""),
        ("What can be seen in the attached image?", ""),
        ("Transcribe the following audio recording word by word.", ""),
        ("Summarize the given file in two sentences.", ""),
        ("Read the numbers off the following bar chart.", ""),
        ("Draw a cat that sleeps on a sofa.", ""),
        ("Think of a house, and then draw the house.", ""),
        ("Create a pie chart of these figures.", "Tea: 3, coffee: 5"),
        ("Make a two-minute video about recycling.", ""),
        ("Plot the function for x between 0 and 10.", ""),
        ("Graph the sales of the last five years.", ""),
        ("Design a logo for a bakery.", ""),
        ("Watch the film and tell how it ends.", ""),
        ("Listen to this piece and name the composer.", ""),
        ("Play some quiet music for me now.", ""),
        ("Visit the website of the city and list its museums.", ""),
        ("Go to www.example.com and click on the first link.", ""),
        ("Summarise the article at https://example.com/a for a child.", ""),
        ("What is the current weather in Oslo?", ""),
        ("Send an email to my landlord about the rent.", ""),
        ("Book a table for two at eight.", ""),
        ("Set an alarm for seven in the morning.", ""),
        ("Open the file and count the lines.", ""),
        ("Summarise the article in two sentences.", "https://example.com/news/4711"),
        ("Describe what you see in detail.", "[Insert image here]"),
        ("Describe what you see in detail.", "holiday.jpg"),
        ("Describe what you see in detail.", "An image of a dog on a beach"),
    ],
)
def test_what_text_cannot_do(instruction, value):
    assert judge(instruction, value) == "not_text"


@pytest.mark.parametrize(
    ("instruction", "value"),
    [
        ("Rewrite this paragraph in plain English.", "..."),
        ("Retell the plot of Romeo and Juliet in 80 words.", ""),
        ("Draw a conclusion from these three facts.", ""),
        ("Draw up a Markdown table of the seven base units.", ""),
        ("How do you draw a horse, step by step?", ""),
        ("Brainstorm a list of titles for a photo album.", ""),
        ("Write a script for a video about recycling.", ""),
        ("Write a Python function that reads a file and counts its lines.", ""),
        ("Write a recursive function that computes the following graph's size.", ""),
        ("Write an SVG that shows a red circle: draw a circle of radius 10.", ""),
        ("Find the shortest path in a directed graph with these edges.", "a-b, b-c"),
        ("Explain graph theory to a child of ten.", ""),
        ("I sent a confidential file to the wrong person. What now?", ""),
        ("Decode this URL query string into YAML.", "a=1&b=2"),
        ("Which domain does this address belong to?", "https://docs.example.com/a"),
        ("Order the events from first to last.", "He woke. He rose."),
        ("Text messages or calls: which are better for news?", ""),
        ("Write an e-mail to my landlord about the rent.", ""),
        ("Describe how photography changed painting.", ""),
        ("Explain what a filename extension is for.", ""),
        ("Invent a game that two people can play in a car.", ""),
    ],
)
def test_what_text_can_do_passes(instruction, value):
    assert judge(instruction, value) is None


def test_the_packaged_records_pass_one_after_another():
    filters = Filters([])
    for record in load_records("seeds").records:
        assert filters.judge(record) is None, record
        filters.add(record)


def test_the_pool_grows_only_by_add():
    filters = Filters([])
    assert filters.judge(SEA) is None
    assert filters.judge(SEA) is None
    filters.add(SEA)
    assert filters.judge(SEA) == Rejection("duplicate", "its instruction is in the pool, word for word")
    near = Record("Write a short poem about the lake.", "", "x")
    assert filters.judge(near) == Rejection("similar", "ROUGE-L 0.86 to 'Write a short poem about the sea.'")


def test_the_threshold_is_the_callers():
    near = Record("Write a short poem about the lake.", "", "x")
    assert Filters([SEA], threshold=0.9).judge(near) is None
    with pytest.raises(ConfigError, match="threshold: 70 is no F1"):
        Filters([SEA], threshold=70)


def test_reasons_are_named_once_and_hold_those_of_the_parser():
    assert len(set(REASONS)) == len(REASONS)
    assert set(PARSE_REASONS) <= set(REASONS)
