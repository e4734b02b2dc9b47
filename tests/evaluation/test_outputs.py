"""Files of instructions and of answers."""

from __future__ import annotations

import json

import pytest

from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.outputs import Instruction, ModelOutput, read_instructions, read_outputs, write_outputs


def write(path, rows):
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (
            [{"question_id": 81, "category": "writing", "turns": ["Write."], "reference": ["x"]}],
            [Instruction("Write.", "", "writing")],
        ),
        ([{"prompt": "Hi"}], [Instruction("Hi", "")]),
        ([{"Instruction": "Hi", "id": 7}], [Instruction("Hi", "")]),
        ([{"text": "Hi"}], [Instruction("Hi", "")]),
        ([{"question": "Who?", "context": "He ran.", "answer": "He"}], [Instruction("Who?", "He ran.")]),
        ([{"instruction": "Hi", "output": "not read"}], [Instruction("Hi", "")]),
        ([{"instruction": "Add.", "input": "1, 2", "category": "maths"}], [Instruction("Add.", "1, 2", "maths")]),
        ([{"instruction": "Hi", "dataset": "koala"}], [Instruction("Hi", "", "koala")]),
        (
            [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}],
            [Instruction("Hi", "")],
        ),
        (
            [
                {
                    "id": "user_oriented_task_0",
                    "motivation_app": "Gmail",
                    "instruction": "Shorten it.",
                    "instances": [{"input": "a b", "output": "a"}, {"input": "c d", "output": "c"}],
                }
            ],
            [Instruction("Shorten it.", "a b", "Gmail"), Instruction("Shorten it.", "c d", "Gmail")],
        ),
    ],
    ids=[
        "mt-bench",
        "prompt",
        "Instruction",
        "text",
        "question with context",
        "alpaca",
        "category",
        "alpaca eval",
        "sharegpt",
        "self-instruct",
    ],
)
def test_instructions_of_every_kind(tmp_path, rows, found):
    assert read_instructions(write(tmp_path / "x.jsonl", rows)) == found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instrution": "Hi"}, "record 2 .line 2.: the key 'instruction' is missing. Did you mean 'instrution'"),
        ({"instruction": " ", "input": ""}, "record 2 .line 2.: instruction and input are both blank"),
        ({"instruction": "Hi", "instances": "none"}, "record 2 .line 2.: 'instances' is no list of objects"),
        ({"instruction": "Hi", "category": 7}, "record 2 .line 2.: 'category' is 7, an int, not a string"),
        ("Hi", "record 2 .line 2.: this is 'Hi', a str, not an object"),
    ],
)
def test_bad_instructions_are_named(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_instructions(write(tmp_path / "x.jsonl", [{"instruction": "Hi"}, row]))


def test_further_turns_of_a_question_are_told(tmp_path):
    rows = [{"question_id": number, "turns": ["One?", "Two?"]} for number in range(3)]
    with pytest.warns(UserWarning, match="of 3 questions with several 'turns', only the first is asked"):
        assert read_instructions(write(tmp_path / "x.jsonl", rows)) == [Instruction("One?", "")] * 3


def test_turns_and_ids_are_read_where_they_are_asked_for(tmp_path):
    rows = [
        {"question_id": 81, "category": "writing", "turns": ["One?", "Two?"]},
        {"question_id": "x", "turns": ["Three?"]},
        {"instruction": "Add.", "input": "2, 3"},
    ]
    found = read_instructions(write(tmp_path / "x.jsonl", rows), turns=True)
    assert [(one.question, one.more, one.category) for one in found] == [
        (81, ("Two?",), "writing"),
        ("x", (), ""),
        (3, (), ""),
    ]
    with pytest.raises(DataError, match="record 1 .line 1.: 'question_id' is 1.5, a float. Give a number or a text."):
        read_instructions(write(tmp_path / "x.jsonl", [{"question_id": 1.5, "turns": ["One?"]}]), turns=True)


def test_no_instructions(tmp_path):
    with pytest.raises(DataError, match="holds no instructions"):
        read_instructions(write(tmp_path / "x.json", []))
    with pytest.raises(DataError, match="no such file"):
        read_instructions(tmp_path / "y.json")


def test_the_probe_is_packaged():
    probe = read_instructions("probe")
    assert len(probe) == len({one.id for one in probe}) == 50
    assert all(one.category for one in probe)


def test_ids_are_of_what_is_asked():
    one = Instruction("Add the numbers.", "2, 3", "maths")
    assert one.id == Instruction("Add the  numbers.\n", "2, 3").id == "e8cce583c900"
    assert one.id != Instruction("Add the numbers.", "2, 4").id


def test_answers_come_back_as_they_were_written(tmp_path):
    made = [
        ModelOutput("Add.", "2, 3", " 5\n", "m", "maths", '{"temperature": 0.0}'),
        ModelOutput("Say “ä”.", "", "", "m", "", "{}"),
    ]
    write_outputs(tmp_path / "m.json", made)
    assert read_outputs(tmp_path / "m.json") == made
    rows = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert list(rows[0]) == ["instruction", "input", "output", "generator", "dataset", "settings"]
    assert "dataset" not in rows[1]
    # AlpacaEval drops duplicates of merged rows, which nested values do not allow.
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_an_input_stands_below_its_instruction_for_alpaca_eval_pairs_by_instruction_alone(tmp_path):
    made = [ModelOutput(asked, given, "5", "m") for asked, given in (("Add.", "2, 3"), ("Add.", " "), ("", "4"))]
    write_outputs(tmp_path / "m.json", made)
    rows = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert [row["instruction"] for row in rows] == ["Add.\n\n2, 3", "Add.", "4"]
    assert read_outputs(tmp_path / "m.json") == made
    assert [(one.instruction, one.input) for one in read_instructions(tmp_path / "m.json")] == [
        (one.instruction, one.input) for one in made
    ]
    plain = [{"instruction": "Say: Hi.\n\nHi.", "input": "Hi."}]  # nobody's answers: asked as it stands
    assert read_instructions(write(tmp_path / "x.json", plain)) == [Instruction("Say: Hi.\n\nHi.", "Hi.")]


def test_predictions_of_self_instruct_are_called_as_their_file(tmp_path):
    row = {"prompt": "Hi\nOutput:", "instruction": "Hi\n", "input": "", "response": " Hello", "target": "Hey"}
    found = read_outputs(write(tmp_path / "text-davinci-003_predictions.jsonl", [row]))
    assert found == [ModelOutput("Hi\n", "", " Hello", "text-davinci-003")]


def test_answers_of_two_models_are_refused(tmp_path):
    rows = [{"instruction": "Hi", "output": "x", "generator": name} for name in ("m", "m", "n")]
    with pytest.raises(DataError, match="holds answers of 2 models: 'm', 'n'"):
        read_outputs(write(tmp_path / "x.json", rows))


def test_bad_answers_are_named(tmp_path):
    with pytest.raises(DataError, match="holds no answers"):
        read_outputs(write(tmp_path / "x.json", []))
    with pytest.raises(DataError, match="record 1 .line 1.: the key 'output' is missing"):
        read_outputs(write(tmp_path / "x.json", [{"instruction": "Hi"}]))
    with pytest.raises(DataError, match="record 1 .line 1.: 'output' is 5 .int., not a string"):
        read_outputs(write(tmp_path / "x.json", [{"instruction": "Hi", "output": 5}]))
    row = {"question_id": 81, "answer_id": "a", "model_id": "m", "choices": [{"index": 0, "turns": ["Hi."]}]}
    with pytest.raises(
        DataError, match="record 1 .line 1.: this is FastChat's model_answer, which holds no instruction"
    ):
        read_outputs(write(tmp_path / "x.jsonl", [row, row]))
