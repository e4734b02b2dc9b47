"""Lint: each planted fault is found, clean records stay clean, and what --fix writes needs no fixing."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_lora import cli, lint, load_records
from alpaca_lora.data.lint.findings import CHECKS
from alpaca_lora.data.lint.fix import mend
from alpaca_lora.data.lint.texts import trimmed
from alpaca_lora.data.records import Record
from alpaca_lora.errors import ConfigError, DataError

HERON = "Nobody knows why the grey heron of the old mill pond never once caught a fish."
LONG = "The river rose in the night and the farmers moved their cattle to the hill. "

# (the check that must find it, record); the numbers are fitted so that Luhn's sum and the IBAN's own hold.
PLANTED: list[tuple[str, dict[str, object]]] = [
    ("unusable", {"instruction": "Name a river.", "input": "", "output": 7}),
    ("unusable", {"instruction": " ", "input": "", "output": "Fine."}),
    ("empty-output", {"instruction": "Name a lake.", "input": "", "output": " \n"}),
    ("placeholder", {"instruction": "Name a hill.", "input": "", "output": "TBD"}),
    ("placeholder", {"instruction": "Name a town.", "input": "", "output": "N/A"}),
    ("placeholder", {"instruction": "Name a port.", "input": "", "output": "Output:"}),
    ("placeholder", {"instruction": "Name a cape.", "input": "", "output": "<your answer here>"}),
    ("placeholder", {"instruction": "Name a moor.", "input": "", "output": "[Insert a moor]"}),
    ("placeholder", {"instruction": "Name an isle.", "input": "", "output": "..."}),
    ("placeholder", {"instruction": "Name a bay.", "input": "", "output": "<noinput>"}),
    ("duplicate", {"instruction": "Name a bird of the coast.", "input": "", "output": "The herring gull. "}),
    ("noinput", {"instruction": "Name a bird of prey.", "input": "<noinput>", "output": "The kestrel."}),
    ("noinput", {"instruction": "Name a wader.", "input": "No input required.", "output": "The curlew."}),
    ("noinput", {"instruction": "Name an owl.", "input": "", "output": "The barn owl. <noinput>"}),
    ("whitespace", {"instruction": "Name a finch.", "input": "", "output": "\nThe linnet."}),
    ("encoding", {"instruction": "Say that it rains.", "input": "", "output": "Itâ€™s raining."}),
    ("encoding", {"instruction": "Say cake in German.", "input": "KÃ¼che", "output": "Kuchen"}),
    ("encoding", {"instruction": "Bread in French?", "input": "", "output": "le pain dor\N{REPLACEMENT CHARACTER}"}),
    ("encoding", {"instruction": "Say hello in Russian.", "input": "", "output": "Ïðèâåò, ìèð"}),
    ("encoding", {"instruction": "Say hello to all.", "input": "", "output": "РџСЂРёРІРµС‚"}),
    ("encoding", {"instruction": "Say it in Chinese.", "input": "", "output": "ÄãºÃÊÀ½ç"}),
    ("unfilled", {"instruction": "Greet a guest.", "input": "", "output": "Dear {{ guest.name }}, be welcome."}),
    ("unfilled", {"instruction": "Close a letter.", "input": "", "output": "Yours,\n[Your Name]"}),
    ("unfilled", {"instruction": "Name a price.", "input": "", "output": "It costs ${price} a day."}),
    ("unfilled", {"instruction": "Tell of a walk.", "input": "", "output": "We went on. Lorem ipsum dolor sit amet."}),
    ("unfilled", {"instruction": "Write to <name>.", "input": "", "output": "Hello there."}),
    ("chat-marker", {"instruction": "Name a vale.", "input": "", "output": "Dovedale.<|im_end|>"}),
    ("chat-marker", {"instruction": "[INST] Name a tarn. [/INST]", "input": "", "output": "Malham Tarn."}),
    ("chat-marker", {"instruction": "Name a mere.", "input": "<|user|> now", "output": "Windermere."}),
    ("value-as-text", {"instruction": "Name two becks.", "input": "", "output": "['Cod Beck', 'Hodge Beck']"}),
    ("value-as-text", {"instruction": "Name a ghyll.", "input": "nan", "output": "Dungeon Ghyll."}),
    ("value-as-text", {"instruction": "Name a force.", "input": "None", "output": "Aira Force."}),
    ("value-as-text", {"instruction": "Name a fell.", "input": "#N/A", "output": "Great Gable."}),
    ("control-character", {"instruction": "Name a pike.", "input": "", "output": "Scafell\x00 Pike."}),
    ("control-character", {"instruction": "Name a\x1b[1m knott.", "input": "", "output": "Hard Knott."}),
    ("html", {"instruction": "Name two trees.", "input": "", "output": "Oak<br>Ash"}),
    ("html", {"instruction": "Name a firm.", "input": "", "output": "Marks &amp; Spencer"}),
    ("unclosed-fence", {"instruction": "Print 1 in Python.", "input": "", "output": "```python\nprint(1)"}),
    ("cut-off", {"instruction": "Tell of a flood.", "input": "", "output": LONG * 2 + "Then they came with the"}),
    ("cut-off", {"instruction": "Tell of a farm.", "input": "", "output": LONG * 12 + "One of the older men said tha"}),
    ("refusal", {"instruction": "Name a song.", "input": "", "output": "As an AI language model, I have no taste."}),
    ("refusal", {"instruction": "Name a film.", "input": "", "output": "I'm sorry, but I cannot help with that."}),
    ("missing-input", {"instruction": "Summarize the following article.", "input": "", "output": "It is about rain."}),
    ("missing-input", {"instruction": "Translate this sentence.", "input": "", "output": "Es regnet."}),
    ("missing-input", {"instruction": "Sum it up.", "input": "-", "output": "Please provide the text first."}),
    ("missing-input", {"instruction": "Sum up the news.", "input": "[Insert article]", "output": "Rain."}),
    ("not-text", {"instruction": "Sum up the page.", "input": "https://news.example.org/7", "output": "Rain."}),
    ("not-text", {"instruction": "Describe the following image.", "input": "", "output": "A cat on a mat."}),
    ("not-text", {"instruction": "Describe the given photo.", "input": "cat.jpg", "output": "A cat on a rug."}),
    ("not-text", {"instruction": "Draw a picture of a mole.", "input": "", "output": "Here it is."}),
    ("repeated-input", {"instruction": "Sort 9, 4 and 7.", "input": "9, 4 and 7", "output": "4, 7, 9"}),
    ("merged-tasks", {"instruction": "Name a herb.", "input": "", "output": "Sage\n\n### Instruction:\nName a nut."}),
    ("merged-tasks", {"instruction": "Name a nut.", "input": "", "output": "Hazel\n\n12. Write a poem about nuts."}),
    ("merged-tasks", {"instruction": "Name a root.\n5. Describe a leek.", "input": "", "output": "The carrot."}),
    ("personal-data", {"instruction": "Who sells hay?", "input": "", "output": "Ask j.barley@barleyhay.co.uk."}),
    ("personal-data", {"instruction": "Who sells oats?", "input": "", "output": "Call (212) 664-7665."}),
    ("personal-data", {"instruction": "How was it paid?", "input": "", "output": "By card 4929 1302 8825 0918."}),
    ("personal-data", {"instruction": "Where to pay?", "input": "", "output": "To DE02 1203 0000 0000 2020 51."}),
    (
        "near-duplicate",
        {
            "instruction": "Explain in two sentences why the tide at the coast comes and goes twice a day.",
            "input": "",
            "output": "The moon.",
        },
    ),
    (
        "evaluation-overlap",
        {
            "instruction": "Why do cats purr?",
            "input": "",
            "output": HERON,
        },
    ),
    ("evaluation-overlap", {"instruction": "Tell a child how a steam engine works.", "input": "", "output": "Heat."}),
    ("lost-key", {"instruction": "Name a fen.", "input": "", "output": "Wicken.", "persona": "Be brief."}),
    ("unread-key", {"instruction": "Name a dale.", "input": "", "output": "Swaledale.", "answer": HERON}),
]

OF_PAIRS = {"same-answers", "other-prompt", "contradiction", "score-order"}  # test_lint_pairs.py plants them

# Each comes near to some check.
CLEAN = [
    Record("Name a bird of the coast.", "", "The herring gull."),
    Record("Explain in two sentences why the tide at a coast comes and goes twice a day.", "", "The moon pulls it."),
    Record("If no name is given, write N/A. Who wrote this?", "Anonymous, about 1400", "N/A"),
    Record("What does the abbreviation TBD stand for?", "", "To be determined."),
    Record("Which operator unpacks a list in Python?", "", "*"),
    Record("Show the tag of an HTML line break.", "", "<br>"),
    Record("Write Rust that makes a vector.", "", "```rust\nlet v: Vec<i> = Vec::new();\n```"),
    Record("Is 3 < 4 & 4 > 3?", "", "Yes, 3 < 4 and 4 > 3."),
    Record("Say 'it rains' in French and Portuguese.", "", "Il pleut à Évian, «CAFÉ»; está a chover, NÃO é? Â"),
    Record("Cut the domain out of this address.", "https://docs.example.org/a", "docs.example.org"),
    Record("Write a function that sorts the given list.", "", "def f(items):\n    return sorted(items)"),
    Record("Translate the following sentence into German: It is late.", "", "Es ist spät."),
    Record("Describe the following image.", "A cat sleeps on a red sofa beside a window.", "The cat rests."),
    Record("Write a short letter in which you ask for a price list.", "", "Dear Sir, please send me the price list."),
    Record("Are you a language model?", "", "Yes, as an AI language model, I answer questions."),
    Record("Name three steps of making tea.", "", "1. Boil water.\n2. Add the leaves.\n3. Pour and wait"),
    Record(
        "List five uses of wool.", "", "\n".join(f"- {use}" for use in ("hats", "felt", "socks", "rugs", "yarn")) * 6
    ),
    Record("Number the letters.", "a, b", "3. Write a\n4. Write b"),
    Record("Name a support address.", "", "help@example.com, or call 555-0143 and (415) 555-0143."),
    Record("Give a card number for tests.", "", "4242 4242 4242 4242, and no card: 4929 1302 8825 0917"),
    Record("What is the capital of the largest country by area in South America?", "", "Brasília"),
    Record("What is the capital of the smallest country by area in South America?", "", "Paramaribo"),
    Record("How does UTF-8 break?", "", "An apostrophe turns into â€™."),
    Record("Sort these: 9, 4.", "ascending", "4, 9"),
    Record("Write a Jinja template that greets a user.", "", "Hello {{ user }}!"),
    Record("Print the home of a user.", "", "Use `echo ${HOME}` for that."),
    Record("Which of these is a fish?", "oak, ash", "None"),
    Record("Which letters has Danish more than English?", "", "æøå ÆØÅ"),
    Record("Return the words as a Python list.", "oak ash", "['oak', 'ash']"),
    Record("Which token ends a turn in ChatML?", "", "<|im_end|>"),
    Record("Cite a source.", "", "See [Name](https://example.org) and note [1]."),
    Record("Say 'long live Russia' in Russian.", "", "Россия, живи долго; США, СССР"),
]

EVALUATION = [
    {"id": "item-zero", "prompt": "Tell a child how the steam engine works."},
    {"id": "item-one", "instances": [{"output": HERON}]},
]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the clean records, then those with a fault."""
    path = tmp_path_factory.mktemp("lint") / "planted.jsonl"
    rows = [record._asdict() for record in CLEAN] + [row for _, row in PLANTED]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_planted_fault_is_found_and_nothing_else(planted: Path) -> None:
    found = {(one.record, one.check) for one in lint(planted, against=EVALUATION).findings}
    assert found == {(len(CLEAN) + place, check) for place, (check, _) in enumerate(PLANTED, 1)}
    assert {check for check, _ in PLANTED} == set(CHECKS) - OF_PAIRS


def test_the_packaged_seeds_are_clean() -> None:
    assert lint("seeds").findings == []


def test_findings_name_the_other_record_and_the_evaluation_item(planted: Path) -> None:
    report = lint(planted, against=EVALUATION)
    assert [one.excerpt for one in report.by_check["duplicate"]] == ["record 1: Name a bird of the coast."]
    assert "to record 2)" in report.by_check["near-duplicate"][0].excerpt
    words, rouge = (one.excerpt for one in report.by_check["evaluation-overlap"])
    assert words.startswith("13 words in a row of item 2: Nobody knows")
    assert rouge.startswith("ROUGE-L 0.88 to item 1: Tell")


def test_sequences_of_many_evaluation_items_are_boilerplate() -> None:
    preamble = "Answer the following multiple choice question by naming one of the four letters given below"
    items = [{"question": f"{preamble}: number {number}"} for number in range(11)]
    record = Record("Say how a quiz begins, in the words of a quiz master.", "", preamble)
    assert lint([record._asdict()], against=items[:5]).findings
    assert not lint([record._asdict()], against=items).findings


def test_report_counts_and_shows_examples(planted: Path) -> None:
    text = str(lint(planted, against=EVALUATION))
    assert text.startswith(
        f"{planted}: {len(CLEAN) + len(PLANTED)} records, {len(PLANTED)} findings in {len(PLANTED)} "
    )
    placeholders = ", ".join(
        str(len(CLEAN) + place) for place, (check, _) in enumerate(PLANTED, 1) if check == "placeholder"
    )
    assert f"error  placeholder             7  {placeholders}\n" in text
    assert "\nnoinput: The marker for an absent input was left in. Leave the input empty;" in text
    assert f"\n  record {len(CLEAN) + 12}, input: <noinput>\n" in text


def test_fix_writes_a_new_file_and_a_report(planted: Path, tmp_path: Path) -> None:
    before = planted.read_bytes()
    out = tmp_path / "mended.json"
    report = lint(planted, fix=out)
    assert planted.read_bytes() == before
    rows = json.loads(out.read_text(encoding="utf-8"))
    removed = {one.record for one in report.findings if one.fix == "record removed"}
    assert {PLANTED[number - len(CLEAN) - 1][0] for number in removed} == {"empty-output", "placeholder", "duplicate"}
    assert len(rows) == report.total - len(removed)
    assert rows[: len(CLEAN)] == [record._asdict() for record in CLEAN]
    assert {"instruction": "Name a bird of prey.", "input": "", "output": "The kestrel."} in rows
    assert {"instruction": "Name a finch.", "input": "", "output": "The linnet."} in rows
    assert {"instruction": "Name a river.", "input": "", "output": 7} in rows  # what is no record is left as it is
    content = json.loads((tmp_path / "mended.lint.json").read_text(encoding="utf-8"))
    assert content["written"] == {"file": "mended.json", "records": len(rows)}
    assert content["checks"]["noinput"]["records"] == [len(CLEAN) + place for place in (12, 13, 14)]
    assert len(content["mended"]) + len(content["left"]) == len(report.findings)
    for left in content["left"]:
        was = PLANTED[left["was"] - len(CLEAN) - 1][1]
        assert rows[left["record"] - 1]["instruction"] == was["instruction"]
    assert str(report).endswith(f"{out}: 12 of these findings mended, {len(content['left'])} left (21 errors)")


def test_fix_keeps_other_keys_and_writes_alpaca_keys(tmp_path: Path) -> None:
    data = [{"question": "Name a cat. ", "answer": "Felix", "source": "Ünï"}, {"question": "A dog?", "answer": "Rex"}]
    lint(data, fix=tmp_path / "out.jsonl", columns={"instruction": "question", "output": "answer"})
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"instruction": "Name a cat.", "input": "", "output": "Felix", "source": "Ünï"}'
    exchange = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello "}], "id": 3}
    lint([exchange], fix=tmp_path / "exchange.jsonl")
    assert json.loads((tmp_path / "exchange.jsonl").read_text(encoding="utf-8")) == {
        "instruction": "Hi", "input": "", "output": "Hello", "id": 3
    }  # fmt: skip


def test_fix_that_cannot_be_written_names_it(planted: Path) -> None:
    with pytest.raises(ConfigError, match="^fix: /proc/c.json: cannot be written: .* Name another file.$"):
        lint(planted, fix="/proc/c.json")


def test_fix_overwrites_nothing(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="planted.jsonl is there already, and nothing is overwritten"):
        lint(planted, fix=planted)
    (tmp_path / "a.lint.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="a.lint.json is there already"):
        lint(planted, fix=tmp_path / "a.json")
    with pytest.raises(ConfigError, match="end it in .json"):
        lint(planted, fix=tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="is no folder"):
        lint(planted, fix=tmp_path / "no" / "a.json")


def test_what_cannot_be_linted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no records"):
        lint([])
    with pytest.raises(DataError, match="record 1: the key 'instruction' is missing"):
        lint([{"question": "Hi", "output": "Hello"}])
    with pytest.raises(DataError, match="every record would be removed, so no file is written"):
        lint([{"instruction": "Hi", "output": ""}], fix=tmp_path / "out.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no row of this evaluation set holds a text of 6 words"):
        lint([{"instruction": "Hi", "output": "Hello"}], against=[{"id": 1}])


def test_trimming_keeps_an_indent_that_means_something() -> None:
    assert trimmed("\n    if x:\n        y()\n") == "    if x:\n        y()"
    assert trimmed("  one\ntwo ") == "one\ntwo"
    assert mend(Record(" a", " No Input ", "b\n")) == Record("a", "", "b")


_PIECES = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "  x",
        "\ty",
        "a",
        "<noinput>",
        "No input",
        "TBD",
        "…",
        "...",
        "N/A",
        "<output>",
        "\u2028",
        "word.",
        "é",
    ]
)
_TEXTS = st.lists(_PIECES, max_size=4).map("".join) | st.text(max_size=12)
_ROWS = st.lists(st.tuples(_TEXTS, _TEXTS, _TEXTS).map(lambda texts: Record(*texts)._asdict()), min_size=1, max_size=8)


@pytest.mark.filterwarnings("ignore:.*Control characters", "ignore:.*only the word")
@settings(max_examples=150, deadline=None)
@given(rows=_ROWS)
def test_fixing_again_changes_nothing(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fix")
    rows = [{"instruction": "Keep me.", "input": "", "output": "Yes."}, *rows]
    lint(rows, fix=folder / "once.json")
    again = lint(folder / "once.json", fix=folder / "twice.json")
    assert not [one for one in again.findings if one.fix]
    assert (folder / "once.json").read_bytes() == (folder / "twice.json").read_bytes()
    kept = [
        row
        for row in json.loads((folder / "once.json").read_text(encoding="utf-8"))
        if row["instruction"] or row["input"]
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dropped")  # load_records drops nothing
        if not any(one.check == "unusable" for one in again.findings):
            assert len(load_records(folder / "once.json")) == len(kept)


def test_the_command_fails_for_errors_and_not_for_warnings(planted, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["lint", str(planted), "--fix", str(tmp_path / "new.jsonl")])
    assert stop.value.code == 1
    assert "findings mended" in capsys.readouterr().out
    (tmp_path / "warn.json").write_text(
        json.dumps([{"instruction": "Name a cat. ", "output": "Felix"}]), encoding="utf-8"
    )
    cli.main(["lint", str(tmp_path / "warn.json")])
    assert "warn   whitespace      1  1" in capsys.readouterr().out
    (tmp_path / "bad.json").write_text(
        json.dumps([{"instruction": "A cat", "output": "F"}, {"instruction": "B", "output": ""}]), encoding="utf-8"
    )
    with pytest.raises(SystemExit):
        cli.main(["lint", str(tmp_path / "bad.json")])
    cli.main(["lint", str(tmp_path / "bad.json"), "--fix", str(tmp_path / "good.json")])  # mended: nothing is left
    with pytest.raises(SystemExit) as stop:
        cli.main(["lint", str(tmp_path / "bad.json"), "--fix", str(tmp_path / "bad.json")])
    assert "is there already" in str(stop.value.code)


def test_fillers_alone_are_no_text_and_beside_letters_they_are():
    asked = {"instruction": "Name a lake.", "input": ""}
    report = lint([{**asked, "output": one} for one in ("\u200b", "\u3164\n", "\xad\u2060", "Como\u200b")])
    assert [one.record for one in report.by_check["empty-output"]] == [1, 2, 3]
    found = lint([{"instruction": "\u200b", "input": "\u3164", "output": "Como"}, {**asked, "output": "Como"}])
    assert [one.record for one in found.by_check["unusable"]] == [1]


def talk(*texts: str, **more: object) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)], **more}


@pytest.mark.parametrize(
    ("row", "check", "field"),
    [
        (talk("Hi", "Hello", "Name a song.", "As an AI language model, I have no taste."), "refusal", "output"),
        (talk("Hi", "Hello", "Name a vale.", "Dovedale.<|im_end|>", "Bye", "Bye"), "chat-marker", "output"),
        (talk("Say it.", "Itâ€™s raining.", "Thanks", "Welcome"), "encoding", "output"),
        (talk("Hi", "Hello", "Ask j.barley@barleyhay.co.uk.", "Fine."), "personal-data", "instruction"),
        (
            talk("Summarize the following article.", "It is about rain.", "Thanks", "Welcome"),
            "missing-input",
            "instruction",
        ),
        (talk("Hi", "Hello", "Name a hill.", "TBD"), "placeholder", "output"),
        (talk("Hi", "Hello", system="Call (212) 664-7665."), "personal-data", "instruction"),
    ],
)
def test_every_turn_of_a_conversation_is_looked_at(row, check, field) -> None:
    good = talk("Hi", "Hello", "Name a river.", "The Wye.")
    assert [(one.record, one.check, one.field) for one in lint([good, row]).findings] == [(2, check, field)]


def test_what_a_later_turn_asks_for_may_stand_in_an_earlier_one() -> None:
    row = talk("The fox ran home.", "Fine.", "Translate this sentence.", "Der Fuchs lief heim.")
    assert lint([row]).findings == []


def test_conversations_are_kept_as_they_are_or_removed(tmp_path: Path) -> None:
    good, again = talk("Hi ", "Hello", "Bye", " Bye", id=1), talk("Hi ", "Hello", "Bye", " Bye", id=2)
    empty, tree = talk("Hi", "Hello", "Bye", ""), {"role": "prompter", "text": "Hey", "replies": []}
    replied = {**tree, "replies": [{"role": "assistant", "text": text, "replies": []} for text in ("Ho", "Hum")]}
    report = lint([good, again, empty, tree, replied], fix=tmp_path / "new.jsonl")
    assert [(one.record, one.check) for one in report.findings] == [
        (2, "duplicate"), (3, "empty-output"), (4, "empty-output")
    ]  # fmt: skip
    lines = (tmp_path / "new.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [good, replied]
    assert lint(tmp_path / "new.jsonl").findings == []


def test_conversations_that_share_text_with_an_evaluation_set_are_found() -> None:
    row = talk("Hi", "Hello", "Tell me of the pond.", HERON)
    assert [one.check for one in lint([row], against=EVALUATION).findings] == ["evaluation-overlap"]


def test_conversations_that_differ_in_tools_or_roles_are_no_duplicates(tmp_path):
    turns = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "6?"},
    ]
    turns.append({"role": "assistant", "content": "7"})
    other = [*turns[:2], {**turns[2], "role": "tool"}, turns[3]]
    rows = [
        {"messages": turns, "tools": [{"name": "add"}]},
        {"messages": turns, "tools": [{"name": "sum"}]},
        {"messages": other},
        {"messages": turns, "tools": [{"name": "add"}]},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    found = [(one.record, one.check) for one in lint(tmp_path / "rows.json").findings if one.check == "duplicate"]
    assert found == [(4, "duplicate")]
