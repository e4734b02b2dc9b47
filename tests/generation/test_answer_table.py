"""Answers of several models side by side."""

from __future__ import annotations

import pytest

from alpaca_lora import compare_answers, finetune, generate, load, stream
from alpaca_lora.errors import AlpacaLoraError, ConfigError, DataError


@pytest.fixture(scope="module")
def run(short_base, records, tmp_path_factory):
    rows = [record._asdict() for record in records]
    out = tmp_path_factory.mktemp("runs") / "tuned"
    settings = {"val_set_size": 2, "batch_size": 4, "max_steps": 2, "learning_rate": 0.1, "dtype": "float32"}
    return finetune(base_model=short_base, data=rows, output_dir=out, **settings)


ASKED = ["Name <b>three</b> fruits.", {"instruction": "Add the numbers.", "input": "2, 3"}]


def test_each_model_gives_the_answers_it_gives_alone(run, short_base):
    base = load(short_base)
    table = compare_answers({"before": base, "after": run, "folder": run.output_dir}, ASKED, max_new_tokens=6)
    assert table.answers["before"] == [
        base.answers([("Name <b>three</b> fruits.", "")], max_new_tokens_of(6))[0],
        base.answers([("Add the numbers.", "2, 3")], max_new_tokens_of(6))[0],
    ]
    assert table.answers["after"] == table.answers["folder"] != table.answers["before"]
    frame = table.to_pandas()
    assert list(frame.columns) == ["instruction", "input", "before", "after", "folder"]
    assert frame["input"].tolist() == ["", "2, 3"]
    page = table._repr_html_()
    assert "&lt;b&gt;three" in page and "<b>" not in page and page.count("<tr>") == 3
    assert "=== Add the numbers.\n\n2, 3\n--- before\n" in str(table)


def max_new_tokens_of(tokens):
    from alpaca_lora import Sampling

    return Sampling(max_new_tokens=tokens)


def test_a_list_is_named_by_folders(run, short_base):
    table = compare_answers([short_base, run], ["Hello."], max_new_tokens=2)
    assert list(table.answers) == [short_base.rpartition("/")[2], "tuned"]


def test_settings_of_sampling_that_there_are_not(short_base):
    with pytest.raises(ConfigError, match="'max_tokens' is not a setting of sampling. Did you mean 'max_new_tokens'"):
        compare_answers([short_base], ["Hello."], max_tokens=2)


@pytest.mark.parametrize(
    ("models", "instructions", "said"),
    [
        (["demo"], [], "give one model or more and a list of one instruction or more"),
        (["demo"], "Name three fruits.", "'Name three fruits.' is no list; give a list"),
        ([], ["Hello."], "give one model or more"),
        (["demo"], ["Hello.", {"input": "2"}], "instruction 2: {'input': '2'} cannot be asked; give a text, a pair"),
        (["demo", "demo"], ["Hello."], "two have the same name .demo, demo.; give a dict of names"),
    ],
)
def test_nothing_to_ask_and_nobody(models, instructions, said):
    with pytest.raises(AlpacaLoraError, match=said):
        compare_answers(models, instructions)


def test_a_question_is_a_text_a_pair_or_a_record(short_base):
    model, sampling = load(short_base), max_new_tokens_of(6)
    alone, with_input = model.answers([("Hi", ""), ("Add.", "2, 3")], sampling)
    assert alone != with_input
    record = {"instruction": "Add.", "input": "2, 3", "output": "5"}
    asked = ["Hi", {"instruction": "Hi"}, ["Hi", None], record, ("Add.", "2, 3")]
    assert model.answers(asked, sampling) == [alone] * 3 + [with_input] * 2
    assert (
        list(compare_answers({"one": model}, asked, max_new_tokens=6).answers["one"]) == [alone] * 3 + [with_input] * 2
    )
    for given in (("Add.", "2, 3"), (("Add.", "2, 3"),), (record,)):
        assert model.generate(*given, sampling=sampling) == generate(model, *given, max_new_tokens=6) == with_input
        assert "".join(model.stream(*given, sampling=sampling)) == with_input
        assert "".join(stream(model, *given, max_new_tokens=6)) == with_input


@pytest.mark.parametrize(
    "wrong",
    [
        *(3, None, b"Hi", {}, {"input": "b"}, {"a": "b"}, {"instruction": 3}, ("a",), ("a", "b", "c"), ("a", 3)),
        *({"instruction": "a", "inputs": "b"}, {"instruction": "a", "context": "b"}),
    ],
)
def test_what_is_no_question_is_refused(short_base, wrong):
    model, said = load(short_base), r"cannot be asked; give a text, a pair \(instruction, input\), a mapping with"
    for ask in (model.generate, lambda one: list(model.stream(one)), lambda one: generate(model, one)):
        with pytest.raises(DataError, match=f"^instruction: (.|\n)*{said}"):
            ask(wrong)
    for ask in (lambda one: model.answers(["Hi", one]), lambda one: compare_answers({"one": model}, ["Hi", one])):
        with pytest.raises(DataError, match=f"^instruction 2: (.|\n)*{said}"):
            ask(wrong)


def test_one_question_is_no_list_and_has_one_input(short_base):
    model = load(short_base)
    for one in ("Hi", {"instruction": "Hi"}, 3, None):
        with pytest.raises(DataError, match="is no list; give a list, each of it a text, a pair"):
            model.answers(one)
    with pytest.raises(DataError, match=r"\('a', 'b'\) cannot have an input beside it; give a text"):
        generate(model, ("a", "b"), "c")
