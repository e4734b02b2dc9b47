"""Lint of preferences: faults of either answer, between the two and among pairs; what `fix` takes out."""

from __future__ import annotations

import json

import pytest

from alpaca_lora import cli, lint, load_records
from alpaca_lora.errors import DataError

GOOD = [
    {"prompt": f"Which bird lives at pond number {n}?", "chosen": f"The heron of pond {n}.", "rejected": "A stork."}
    for n in range(6)
]


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


# (check, field, row)
PLANTED = [
    (
        "same-answers",
        "chosen",
        {"prompt": "Name a tern.", "chosen": "The little tern.", "rejected": "The little tern. "},
    ),
    ("empty-output", "chosen", {"prompt": "Name a rail.", "chosen": "The corncrake.", "rejected": " "}),
    (
        "other-prompt",
        "chosen",
        {
            "chosen": [user("Hi"), said("Ho"), user("Name a gull."), said("The kittiwake.")],
            "rejected": [user("Hi"), said("Name one yourself.")],
        },
    ),
    ("duplicate", "chosen", GOOD[1]),
    ("contradiction", "chosen", {**GOOD[2], "chosen": GOOD[2]["rejected"], "rejected": GOOD[2]["chosen"]}),
    (
        "score-order",
        "score_chosen",
        {
            "prompt": "Name a duck.",
            "chosen": "The teal.",
            "rejected": "A goose.",
            "score_chosen": 3,
            "score_rejected": 4,
        },
    ),
    ("refusal", "rejected", {"prompt": "Name a wren.", "chosen": "The wren.", "rejected": "As an AI model, I cannot."}),
    ("chat-marker", "chosen", {"prompt": "Name a lark.", "chosen": "The skylark.<|im_end|>", "rejected": "A linnet."}),
    ("whitespace", "", {}),
    (
        "missing-input",
        "instruction",
        {"prompt": "Translate this sentence.", "chosen": "Es taut.", "rejected": "Es ist."},
    ),
    ("unusable", "row", {"prompt": "Name a crow.", "chosen": "The rook.", "rejected": 7}),
]
PLANTED = [one for one in PLANTED if one[2]]


@pytest.fixture
def planted(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [*GOOD, *(row for *_, row in PLANTED)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_planted_fault_is_found_and_nothing_else(planted):
    report = lint(planted, objective="dpo")
    found = {(one.record, one.check, one.field) for one in report.findings}
    assert found == {(len(GOOD) + place, check, field) for place, (check, field, _) in enumerate(PLANTED, 1)}
    assert report.to_dict()["figures"] == list(report.figures)


def test_both_answers_of_a_conversation_are_looked_at():
    before = [user("Hi"), said("Ho"), user("Name a duck.")]
    row = {"prompt": before, "chosen": [said("The teal.")], "rejected": [said("A teal.<|im_end|>")]}
    found = lint([*GOOD, row], objective="orpo").findings
    assert [(one.record, one.check, one.field) for one in found] == [(7, "chat-marker", "rejected")]


def test_the_length_of_the_better_answers_is_told():
    rows = [{"prompt": f"Hi {n}", "chosen": "yes " * (n + 1), "rejected": "no no no"} for n in range(10)]
    (said,) = lint(rows, objective="dpo").figures
    assert said == (
        "The chosen answer is longer in 70.0% of 10 pairs and shorter in 20.0%; the median is 6 words against 3."
    )
    assert said in str(lint(rows, objective="dpo"))


def test_several_pairs_on_one_prompt_are_no_near_duplicates():
    rows = [{**GOOD[0], "rejected": f"A stork of pond {n}."} for n in range(5)]
    assert not lint(rows, objective="dpo").findings


def test_an_evaluation_set_is_compared_with_prompt_and_answers():
    heron = "Nobody knows why the grey heron of the old mill pond never once caught a fish."
    rows = [*GOOD, {"prompt": "Tell a tale.", "chosen": "Once.", "rejected": heron}]
    found = lint(rows, against=[{"question": heron}], objective="dpo").findings
    assert [(one.record, one.check) for one in found] == [(7, "evaluation-overlap")]


def test_fix_takes_out_what_teaches_nothing_and_leaves_rows_as_they_are(planted, tmp_path):
    report = lint(planted, objective="dpo", fix=tmp_path / "clean.jsonl")
    removed = {"same-answers", "empty-output", "other-prompt", "duplicate"}
    left = [*GOOD, *(row for check, _, row in PLANTED if check not in removed)]
    made = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text(encoding="utf-8").splitlines()]
    assert made == left
    assert {one.check for one in report.findings} - {one.check for one in report.left} == removed
    assert load_records(made[:-1], objective="dpo").records


def test_the_command_takes_the_objective(planted, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["lint", str(planted), "--objective", "dpo"])
    assert ended.value.code == 1 and "The chosen answer is longer in" in capsys.readouterr().out
    with pytest.raises(DataError, match="these are preference pairs"):
        lint(GOOD)
