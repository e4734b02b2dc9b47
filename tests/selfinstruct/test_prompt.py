"""The request for new tasks: what it says, where it ends, and what it refuses."""

from __future__ import annotations

import json

import pytest

from alpaca_lora.data.records import Record
from alpaca_lora.errors import ConfigError
from alpaca_lora.selfinstruct.prompt import Brief, build_prompt

EXAMPLES = [Record("Add.", "2, 3", "5"), Record("Name a bird.", "", "A wren"), Record("Ask {me}.", "{x}", "{}")]


def test_a_list_is_shown_and_continued():
    prompt = build_prompt(EXAMPLES, Brief(count=20))
    shown = (
        "### Task 1\nInstruction: Add.\nInput: 2, 3\nOutput: 5\n\n"
        "### Task 2\nInstruction: Name a bird.\nInput: <noinput>\nOutput: A wren\n\n"
        "### Task 3\nInstruction: Ask {me}.\nInput: {x}\nOutput: {}"
    )
    assert prompt.user.endswith("Examples:\n\n" + shown)
    assert prompt.text.endswith("\n\n" + shown + "\n\n### Task 4\nInstruction:")
    assert prompt.text.startswith(prompt.system)
    assert prompt.first == 4
    assert prompt.stops == ("### Task 24",)
    assert "Write 20 new ones." in prompt.user
    assert "the numbers 4 to 23" in prompt.user


def test_json_is_shown_and_continued():
    prompt = build_prompt(EXAMPLES, Brief(count=5, mode="json"))
    shown = prompt.user.split("Examples:\n\n")[1]
    assert [Record(**item) for item in json.loads(shown)["tasks"]] == EXAMPLES
    assert prompt.text.endswith('"output": "{}"},\n{"instruction":')
    assert prompt.stops == ("\n]",)
    assert shown.index(prompt.stops[0]) > shown.rindex("output")
    assert "<noinput>" not in prompt.user
    assert "5 new objects" in prompt.user


def test_domain_and_language_are_asked_for():
    prompt = build_prompt(EXAMPLES, Brief(domain=" medical questions for patients ", language="German"))
    assert "new ones, all of them about this: medical questions for patients." in prompt.user
    assert prompt.user.count("in German") == 2
    assert "English" in prompt.user  # the labels
    assert "about this" not in build_prompt(EXAMPLES, Brief()).user


def test_every_problem_of_a_brief_is_named():
    with pytest.raises(ConfigError) as caught:
        Brief(domain=" ", language="", count=0, mode="xml")  # type: ignore[arg-type]
    assert [problem.split(";")[0].split(" is ")[0] for problem in caught.value.problems] == [
        "domain: ' '",
        "language: ''",
        "count: 0 new tasks per call",
        "mode: 'xml'",
    ]
    assert "none of 'list', 'json'" in str(caught.value)


def test_examples_are_needed():
    with pytest.raises(ConfigError, match="examples: none are given.*give three records"):
        build_prompt([], Brief())
