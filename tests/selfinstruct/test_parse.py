"""Completions in many forms to records; nothing raises, and nothing is lost uncounted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.data.records.reader import RowReader
from alpaca_lora.selfinstruct.parse import PARSE_REASONS, parse
from alpaca_lora.selfinstruct.prompt import Brief, build_prompt

RIVERS = Record("Name three rivers.", "", "1. Rhine\n2. Nile\n3. Amazon")
ADD = Record("Add the numbers.", "2, 3", "5")
TWO = [RIVERS, ADD]


def read(text, mode="list", truncated=False, **more):
    return parse(text, mode=mode, truncated=truncated, **more)


LISTS = {
    "as asked": """### Task 4
Instruction: Name three rivers.
Input: <noinput>
Output: 1. Rhine
2. Nile
3. Amazon

### Task 5
Instruction: Add the numbers.
Input: 2, 3
Output: 5""",
    "numbers before the label, bold": """Here are two new tasks:

1. **Instruction:** Name three rivers.
   **Input:** N/A
   **Output:** 1. Rhine
2. Nile
3. Amazon

---

2. **Instruction:** Add the numbers.
   **Input:** 2, 3
   **Output:** 5
""",
    "numbers only": """1. Name three rivers.
Input: None
Output:
1. Rhine
2. Nile
3. Amazon
2. Add the numbers.
Input: 2, 3
Output: 5""",
    "numbers with brackets, no input label": """4) Name three rivers.
Output: 1. Rhine
2. Nile
3. Amazon
5) Add the numbers.
Input: 2, 3
Output: 5""",
    "bold numbers": """**1.** Name three rivers.
Input: No input needed.
Answer: 1. Rhine
2. Nile
3. Amazon

**2.** Add the numbers.
Input: 2, 3
Answer: 5""",
    "the task on its heading": """Task 1: Name three rivers.
INPUT: (none)
OUTPUT: 1. Rhine
2. Nile
3. Amazon
Task 2: Add the numbers.
INPUT: 2, 3
OUTPUT: 5""",
    "bold headings": """**Task 1:** Name three rivers.
**Output:** 1. Rhine
2. Nile
3. Amazon
***
**Task 2:** Add the numbers.
**Input**: 2, 3
**Output**: 5
***""",
    "Alpaca's own": """### Instruction:
Name three rivers.

### Response:
1. Rhine
2. Nile
3. Amazon

### Instruction:
Add the numbers.

### Input:
2, 3

### Response:
5""",
    "numbers above the label": """1.
Instruction: Name three rivers.
Output: 1. Rhine
2. Nile
3. Amazon

2.
Instruction: Add the numbers.
Input: 2, 3
Output: 5""",
    "questions and answers": """Question: Name three rivers.
Answer: 1. Rhine
2. Nile
3. Amazon

Question: Add the numbers.
Context: 2, 3
Answer: 5""",
    "headings without a colon": """#4
Name three rivers.
Output: 1. Rhine
2. Nile
3. Amazon
#5
Add the numbers.
Input: 2, 3
Output: 5""",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
@pytest.mark.parametrize("around", ["{}", "```\n{}\n```", "```text\n{}", "\n\n{}\n\n"])
def test_lists_of_many_styles(text, around):
    found = read(around.format(text).replace("\n", "\r\n"))
    assert found.records == TWO
    assert found.dropped == []


ITEMS = [json.dumps(record._asdict()) for record in TWO]
JSON = {
    "as asked": '{"tasks": [\n' + ",\n".join(ITEMS) + "\n]}",
    "a list": "[" + ", ".join(ITEMS) + "]",
    "lines": "\n".join(ITEMS),
    "fenced": "Of course!\n\n```json\n[" + ",".join(ITEMS) + "]\n```\nShall I write more?",
    "other keys": json.dumps(
        [
            {"id": n, "Task": record.instruction, "INPUT": record.input or None, "expected_output": record.output}
            for n, record in enumerate(TWO)
        ],
        indent=2,
    ),
    "a number for a text": "[" + ITEMS[0] + ', {"instruction": "Add the numbers.", "input": "2, 3", "output": 5}]',
    "bare line ends": "[" + ", ".join(ITEMS).replace("\\n", "\n") + "]",
    "one broken for good": "[" + ITEMS[0] + ', {"instruction": "Say "hi".", "output": "hi"}, ' + ITEMS[1] + "]",
}


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("mode", ["json", "list"])
def test_json_of_many_shapes(name, mode):
    found = read(JSON[name], mode)
    assert found.records == TWO
    assert [reason for reason, _ in found.dropped] == (["malformed"] if "broken" in name else [])


def test_a_list_where_json_was_asked_for():
    assert read(LISTS["as asked"], "json").records == TWO


@pytest.mark.parametrize("mode", ["list", "json"])
def test_the_prompt_s_own_form_is_read_back(mode):
    """Every packaged record, shown as an example, is what a perfect model would have written."""
    seeds = load_records("seeds").records
    shown = build_prompt(seeds, Brief(mode=mode)).user.split("Examples:\n\n", 1)[1]
    found = read(shown, mode)
    assert found.records == seeds
    assert found.dropped == []


@pytest.mark.parametrize("mode", ["list", "json"])
def test_a_completion_continues_the_prompt_s_text(mode):
    examples = load_records("seeds").records[:3]
    prompt = build_prompt(examples, Brief(mode=mode))
    shown = build_prompt([*examples, *TWO], Brief(mode=mode)).user.split("Examples:\n\n", 1)[1]
    start = "Instruction:" if mode == "list" else '{"instruction":'
    assert prompt.text.endswith(start)
    found = read(shown.split(start, 4)[4], mode, first=prompt.first, chat=False)
    assert found.records == TWO
    assert found.dropped == []


@pytest.mark.parametrize("mode", ["list", "json"])
def test_wherever_a_completion_is_cut_the_items_before_are_whole(mode):
    records = load_records("seeds").records[:4]
    shown = build_prompt(records, Brief(mode=mode)).user.split("Examples:\n\n", 1)[1]
    for cut in range(1, len(shown)):
        found = read(shown[:cut], mode, truncated=True)
        assert found.records == records[: len(found.records)]
        begun = shown[:cut].count("Instruction:" if mode == "list" else '{"instruction":')
        if mode == "list":
            assert len(found.records) == max(0, begun - 1)
            assert [reason for reason, _ in found.dropped] == ["truncated"]
        elif begun:
            assert begun == len(found.records) + len(found.dropped)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("\n\n### Task 6\nInstruction: Name a", "truncated"),
        ("\n\n### Task 6\nInstruction: Name a bird.\nInput: <noinput>", "truncated"),
        ("\n\n### Task 6\nInstruction: Sort.\nOutput: ```python\nsorted(", "truncated"),
        ("\n\n### Task 6\nInstruction: Tell.\nOutput: Once there was a king who lived in the", "truncated"),
        ("\n\n### Task 6\nInstruction: Name some.\nOutput: 1. Wren\n2.", "truncated"),
        ("\n\n### Task 6\nInstruction: Name a bird.\nInput: <noinput>\nOutput:", "empty_output"),
        ("\n\n### Task 6\nInstruction:\nInput: <noinput>\nOutput: A wren.", "malformed"),
    ],
)
def test_a_last_item_that_is_no_record_is_counted(tail, reason):
    found = read(LISTS["as asked"] + tail)
    assert found.records == TWO
    assert [(reason, tail.strip())] == found.dropped


def test_the_last_item_of_a_cut_list_is_dropped_though_it_looks_whole():
    found = read(LISTS["as asked"], truncated=True)
    assert found.records == [RIVERS]
    assert found.dropped == [("truncated", LISTS["as asked"].split("\n\n")[1])]


def test_an_item_without_output_in_the_middle_is_counted():
    found = read("### Task 4\nInstruction: Name a bird.\n\n" + LISTS["as asked"])
    assert found.records == TWO
    assert found.dropped == [("empty_output", "### Task 4\nInstruction: Name a bird.")]


@pytest.mark.parametrize(
    "text",
    [
        "1. Do this:\n1. a\n2. b\nOutput: c\nOutput: d",
        "### Task 4\nInstruction: Do this.\nOutput: b\n\n5. Do that.\nInput: c\nOutput: d",
        "### Task 4\nInstruction: Do this.\nOutput: b\n\n### Task 5\nDo that.\nOutput: d",
    ],
)
def test_two_items_without_a_seam_are_not_one_record(text):
    assert read(text).records == []
    assert [reason for reason, _ in read(text).dropped] == ["malformed"]


def test_an_item_before_the_first_heading_is_counted():
    found = read("Name a bird.\nOutput: A wren\n\n" + LISTS["as asked"])
    assert found.records == TWO
    assert found.dropped == [("malformed", "Name a bird.\nOutput: A wren")]


@pytest.mark.parametrize("output", ["5.", "3)", "12\n24", "See below.\n\nOutput: 5", "1", "Task: none"])
def test_short_and_odd_outputs_are_kept(output):
    found = read(f"### Task 4\nInstruction: Add 2 and 3.\nInput: 7.\nOutput: {output}\n\n---\n\n### Task 5")
    assert found.records == [Record("Add 2 and 3.", "7.", output)]


def test_a_recipe_is_one_answer():
    recipe = "Tea\n\nInstructions:\n\n1. Boil.\n2. Pour."
    found = read(f"### Task 4\nInstruction: Make tea.\nInput: <noinput>\nOutput: {recipe}")
    assert found.records == [Record("Make tea.", "", recipe)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"instruction": "a", "output": ["b"]}]', "malformed"),
        ('[{"instruction": "a", "output": ""}]', "empty_output"),
        ('[{"instruction": "", "output": "b"}]', "malformed"),
        ('[{"instruction": "a", "output": "\\ud83d"}]', "malformed"),
        ('[{"instruction": "a", "output": "b', "truncated"),
        ("I am sorry, I cannot help with that.", "malformed"),
    ],
)
def test_json_that_holds_no_record(text, reason):
    found = read(text, "json")
    assert found.records == []
    assert [reason for reason, _ in found.dropped] == [reason]


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_nothing_gives_nothing(text):
    assert read(text) == read(text, "json", truncated=True, chat=False) == parse("", mode="list", truncated=False)


PIECES = [
    *("Instruction:", "Input:", "Output:", "**Output:**", "### Task 4", "Task 5:", "1. ", "2) ", "**3.** ", "#", "```"),
    *("\n", "\n\n", " ", "<noinput>", "None", "---", "Name a bird.", "A wren", '{"instruction": ', '"output": ', '"b"'),
    *("{", "}", "[", "]", ",", ":", '"', "\\", "\ud83d", "\x00", "é", "你好", ITEMS[0], ITEMS[1], "\r"),
]


@settings(max_examples=400, deadline=None)
@given(
    text=st.one_of(
        st.text(st.characters(), max_size=300),  # half characters, too
        st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    ),
    mode=st.sampled_from(["list", "json"]),
    truncated=st.booleans(),
    chat=st.booleans(),
)
def test_no_text_raises_and_every_record_is_valid(text, mode, truncated, chat):
    found = parse(text, mode=mode, truncated=truncated, first=4, chat=chat)
    for record in found.records:
        assert RowReader().read(record._asdict()) == record
        assert record.instruction.strip() and record.output.strip()
    assert {reason for reason, _ in found.dropped} <= set(PARSE_REASONS)
    assert bool(found.records or found.dropped) == bool(text.strip())


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 2_000, "#" * 50_000, "# " * 20_000, " " * 50_000 + "x"])
@pytest.mark.parametrize("mode", ["list", "json"])
def test_nesting_and_runs_end_soon(text, mode):
    assert read(text, mode).records == []
