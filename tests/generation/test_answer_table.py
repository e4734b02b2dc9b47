"""Answers of several models side by side."""

from __future__ import annotations

import pytest

from alpaca_lora import compare_answers, finetune, load
from alpaca_lora.errors import ConfigError


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
        (["demo"], "Name three fruits.", "give one model or more and a list"),
        ([], ["Hello."], "give one model or more"),
        (["demo"], ["Hello.", {"input": "2"}], "instruction 2 is neither a text nor a record"),
        (["demo", "demo"], ["Hello."], "two have the same name .demo, demo.; give a dict of names"),
    ],
)
def test_nothing_to_ask_and_nobody(models, instructions, said):
    with pytest.raises(ConfigError, match=said):
        compare_answers(models, instructions)
