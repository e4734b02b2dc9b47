"""FastChat's files: judgements as votes, counted as its show_result counts them, and answers it can judge."""

from __future__ import annotations

import json

import pytest

from alpaca_lora import compare_preferences
from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.fastchat import Answer, write_model_answers
from alpaca_lora.evaluation.preferences import read_preferences
from alpaca_lora.evaluation.statistics.summary import summarize
from alpaca_lora.evaluation.statistics.votes import between


def game(first, second, question=81, turn=1, **changes):
    """A row of model_judgment/gpt-4_pair.jsonl."""
    return {
        "question_id": question,
        "model_1": "tuned",
        "model_2": "base",
        "g1_winner": first,
        "g2_winner": second,
        "judge": ["gpt-4", "pair-v2" if turn == 1 else "pair-v2-multi-turn"],
        "g1_user_prompt": "...",
        "g1_judgment": "[[A]]",
        "g2_user_prompt": "...",
        "g2_judgment": "[[B]]",
        "turn": turn,
        "tstamp": 1686800000.5,
        **changes,
    }


def graded(model, score, question=81, turn=1, **changes):
    """A row of model_judgment/gpt-4_single.jsonl."""
    judge = ["gpt-4", "single-v1"]
    row = {"question_id": question, "model": model, "judge": judge, "user_prompt": "...", "judgment": "Rating: [[7]]"}
    return {**row, "score": score, "turn": turn, "tstamp": 1686800000.5, **changes}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_model_has_won_only_if_both_orders_say_so(tmp_path):
    rows = [
        game("model_1", "model_1", 81),
        game("model_1", "model_2", 82),  # whichever stood first
        game("tie", "model_1", 83),
        game("model_2", "model_2", 84, turn=2),
        game("error", "model_1", 85),
    ]
    found = read_preferences(write(tmp_path / "gpt-4_pair.jsonl", rows))
    assert [vote.preference for vote in found.votes] == [1.0, 0.5, 0.5, 0.0] and found.left_out == 1
    first, *_, last = found.votes
    assert (first.item, first.a, first.b, first.rater, first.category) == ("81", "tuned", "base", "gpt-4", "turn 1")
    assert last.category == "turn 2"
    assert len(found.single) == 8 and {vote.shown_first for vote in found.single[:2]} == {"tuned", "base"}
    assert [vote.preference for vote in found.single[2:4]] == [1.0, 0.0]  # the first answer, both times


def test_both_turns_of_a_question_are_one_instruction(tmp_path):
    rows = [
        game(*["model_1" if question % 3 else "model_2"] * 2, question, turn)
        for question in range(12)
        for turn in (1, 2)
    ]
    overall = summarize(read_preferences(write(tmp_path / "x.jsonl", rows)).votes).overall
    assert (overall.wins, overall.losses, overall.items) == (16, 8, 12)
    assert overall.standard_error == pytest.approx((2 / 3 * 1 / 3 / 11) ** 0.5)  # of 12 independent values


def test_position_bias_is_that_of_single_orders(tmp_path):
    path = write(tmp_path / "x.jsonl", [game("model_1", "model_2", question) for question in range(6)])
    (section,) = compare_preferences(path, tmp_path / "out").report.sections
    assert section.summary.position.rate == 1.0 and section.summary.overall.ties == 6


def test_people_s_judgements(tmp_path):
    rows = [
        {"question_id": 81, "model_a": "x", "model_b": "y", "winner": winner, "judge": judge, "turn": 1}
        for winner, judge in (("model_b", "expert_1"), ("tie", "expert_2"), ("tie (bothbad)", "author_1"))
    ]
    found = read_preferences(write(tmp_path / "human.jsonl", rows))
    assert [(vote.preference, vote.rater) for vote in found.votes] == [
        (0.0, "expert_1"),
        (0.5, "expert_2"),
        (0.5, "author_1"),
    ]
    assert found.single == []


def test_scores_are_votes_and_means(tmp_path, capsys):
    rows = [
        *(graded(model, score, 81) for model, score in (("x", 7), ("y", 6.94), ("z", 9))),
        *(graded(model, score, 82, turn=2) for model, score in (("x", 8), ("y", 2), ("z", -1))),
    ]
    path = write(tmp_path / "gpt-4_single.jsonl", rows)
    found = read_preferences(path)
    assert found.left_out == 1
    assert [(vote.item, vote.preference) for vote in between(found.votes, "x", "y")] == [("81", 0.5), ("82", 1.0)]
    assert [vote.preference for vote in between(found.votes, "x", "z")] == [0.0]
    compared = compare_preferences(path, tmp_path / "out")
    (told,) = [note.found for note in compared.report.notes if note.key == "scores"]
    assert told == "z 9.00 (turn 1: 9.00); x 7.50 (turn 1: 7.00, turn 2: 8.00); y 4.47 (turn 1: 6.94, turn 2: 2.00)"


def test_what_a_grading_pair_judge_says_has_no_order(tmp_path):
    row = game("model_1", "model_1", m1_score=8, m2_score=5)
    found = read_preferences(write(tmp_path / "x.jsonl", [row]))
    assert len(found.votes) == 1 and found.single == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([game("model_1", "A")], r"record 1 \(line 1\): g2_winner is 'A'; a winner is model_1, model_2, tie or error."),
        ([game("tie", "tie"), game("tie", None)], r"record 2 \(line 2\): 'g2_winner' is missing"),
        ([game("tie", "tie", model_2="tuned")], "'tuned' is compared with itself"),
        ([game("tie", "tie", turn="one")], "turn is 'one'; give 1 or 2"),
        ([game("error", "error")] * 3, "none of the 3 rows has a preference"),
        ([graded("x", "7"), graded("y", 1)], "score is '7'; give a number"),
        ([graded("x", 7), graded("x", 8, 82)], "grades answers of one model .x.; a comparison needs two"),
        ([graded("x", 7), {"question_id": 81, "judge": "me", "model": "y"}], "record 2 .line 2.: 'score' is missing"),
        ([graded("x", 7), 5], "record 2 .line 2.: this is no object"),
    ],
)
def test_bad_judgements_name_the_row(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_preferences(write(tmp_path / "x.jsonl", rows))


def test_answers_have_fastchat_s_keys_and_ids_of_their_own(tmp_path):
    answers = [Answer(81, ["Ä", "Two."], 1.5), Answer("x", [""], 2.5)]
    write_model_answers(tmp_path / "m.jsonl", "vendor/m", answers)
    first, second = map(json.loads, (tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines())
    assert list(first) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
    assert (first["question_id"], first["model_id"], first["tstamp"]) == (81, "vendor/m", 1.5)
    assert first["choices"] == [{"index": 0, "turns": ["Ä", "Two."]}]
    assert len({first["answer_id"], second["answer_id"]}) == 2 and len(first["answer_id"]) == 22
