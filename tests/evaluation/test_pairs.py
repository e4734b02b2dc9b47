"""Answers side by side."""

from __future__ import annotations

import json
import warnings

import pytest

from alpaca_lora.errors import ConfigError, DataError
from alpaca_lora.evaluation.compare_models import compare_preferences, compare_report
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.outputs import ModelOutput, write_outputs
from alpaca_lora.evaluation.pairs import Pair


def outputs(path, answers, generator, settings=""):
    """A file with answers: (instruction, input) -> output, or a list of such."""
    rows = [ModelOutput(*asked, output, generator, "", settings) for asked, output in answers]
    write_outputs(path, rows)
    return path


@pytest.fixture
def files(tmp_path):
    a = outputs(tmp_path / "a.json", [(("Hi", ""), " Hello\n"), (("Add.", "1, 2"), "3")], "m", '{"contract": "c0"}')
    b = outputs(tmp_path / "b.json", [(("Add.\n\n1, 2", ""), "4"), (("Hi ", ""), "Hey")], "n")
    return a, b


def test_pairs_are_by_what_was_asked(tmp_path, files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = Comparison.open(tmp_path / "out", *files)
    assert (made.a, made.b) == ("m", "n")
    assert [(pair.instruction, pair.input) for pair in made.pairs] == [("Hi", ""), ("Add.", "1, 2")]
    assert [(pair.output_a, pair.output_b) for pair in made.pairs] == [("Hello", "Hey"), ("3", "4")]
    assert made.sources["a"]["settings"] == {"contract": "c0"} and made.sources["b"]["settings"] == {}
    assert made.sources["a"]["answers"] == 2 and len(made.sources["a"]["sha256"]) == 64
    assert Comparison.read(tmp_path / "out") == made


def test_the_folder_keeps_to_one_comparison(tmp_path, files):
    made = Comparison.open(tmp_path / "out", *files)
    before = (tmp_path / "out" / "comparison.json").read_bytes()
    assert Comparison.open(tmp_path / "out", *files) == made
    assert (tmp_path / "out" / "comparison.json").read_bytes() == before
    with pytest.raises(ConfigError, match="2 problems(.|\n)*A: .* compares 'm' .*, not 'n' .*another folder: --out"):
        Comparison.open(tmp_path / "out", *reversed(files))
    files[1].write_text(files[1].read_text().replace("Hey", "Ho"))
    with pytest.raises(ConfigError, match="^B: .*or that file has changed"):
        Comparison.open(tmp_path / "out", *files)


def test_a_file_may_say_more_of_its_model_later(tmp_path, files):
    """`answer`, repeated after a benchmark, writes its figures into the file; the answers are the same."""
    made = Comparison.open(tmp_path / "out", *files)
    text = files[0].read_text()
    files[0].write_text(text.replace('\\"c0\\"', '\\"c0\\", \\"benchmarks\\": [\\"a task: 0.5\\"]'))
    assert files[0].read_text() != text
    assert Comparison.open(tmp_path / "out", *files).pairs == made.pairs


def test_what_only_one_answered_is_left_out_with_a_warning(tmp_path, files):
    more = outputs(tmp_path / "c.json", [(("Hi", ""), "Ho"), (("Why?", ""), "So."), (("How?", ""), "Well.")], "o")
    with pytest.warns(
        UserWarning, match=r"a.json has 1 of 2 alone, the first 'Add.'; .*c.json has 2 of 3 alone"
    ) as told:
        assert len(Comparison.open(tmp_path / "out", files[0], more).pairs) == 1
    assert len(told) == 1


def test_nothing_in_common(tmp_path, files):
    other = outputs(tmp_path / "c.json", [(("Why?", ""), "So.")], "o")
    with pytest.raises(DataError, match="no instruction in common: .*a.json has 2 of 2 alone"):
        Comparison.open(tmp_path / "out", files[0], other)
    assert not (tmp_path / "out").exists()


def test_an_instruction_asked_twice_is_paired_in_order(tmp_path):
    paths = [
        outputs(tmp_path / f"{name}.json", [(("Roll.", ""), f"{name}1"), (("Roll.", ""), f"{name}2")], name)
        for name in "ab"
    ]
    first, second = Comparison.open(tmp_path / "out", *paths).pairs
    assert (first.output_a, first.output_b, second.output_a, second.output_b) == ("a1", "b1", "a2", "b2")
    assert second.id == f"{first.id}-2"


def test_models_of_one_name_are_called_as_their_files(tmp_path, files):
    again = outputs(tmp_path / "c.json", [(("Hi", ""), "Ho")], "m")
    with pytest.warns(UserWarning) as told:
        made = Comparison.open(tmp_path / "out", files[0], again)
    assert ["both models are called 'm'; here they are 'a' and 'c'" in str(one.message) for one in told] == [
        True,
        False,
    ]
    assert (made.a, made.b) == ("a", "c")
    with pytest.raises(ConfigError, match="both are called 'a'. Rename one"):
        Comparison.open(tmp_path / "again", files[0], files[0])


def test_a_folder_with_other_files_is_refused(tmp_path, files):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=f"^{tmp_path}: is not empty .a.json, b.json.. Name a new folder.$"):
        Comparison.open(tmp_path, *files)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with pytest.raises(ConfigError, match="is not empty .a.json, b.json.. Name a new folder.$"):
        compare_preferences(files[0], tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".comparison.json.part").write_text("")  # what a killed process left
    made = Comparison.open(empty, *files)
    assert Comparison.open(empty, *files) == made == Comparison.read(empty)


def test_a_folder_of_another_kind_is_refused(tmp_path, files):
    for out, reason in ((files[0], "it is a file"), (files[0] / "x", "Not a directory")):
        with pytest.raises(ConfigError, match=f"^{out}: cannot be written: {reason}. Name another folder.$"):
            Comparison.open(out, *files)
    votes = tmp_path / "votes.csv"
    votes.write_text("item,model_a,model_b,preference\n" + "".join(f"{i},x,y,{'ab'[i % 2]}\n" for i in range(6)))
    with pytest.raises(ConfigError, match="a.json: cannot be written: it is a file"):
        compare_preferences(votes, files[0])
    compare_preferences(votes, tmp_path / "votes")
    with pytest.raises(ConfigError, match="votes: holds a report of preferences"):
        Comparison.open(tmp_path / "votes", *files)
    with pytest.raises(DataError, match="votes: holds a report of preferences, and no comparison"):
        compare_report(tmp_path / "votes")
    compare_preferences(votes, tmp_path / "votes")  # its own report, anew
    Comparison.open(tmp_path / "out", *files)
    with pytest.raises(ConfigError, match="out: holds a comparison"):
        compare_preferences(votes, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged"), ('{"version": 2}', "version 2; this library reads 1"), ('{"version": 1}', "damaged")],
)
def test_a_damaged_folder_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match="holds no comparison.json"):
        Comparison.read(tmp_path)
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(DataError, match=f"comparison.json: {message}"):
        Comparison.read(tmp_path)


def test_the_fingerprint_is_of_names_and_texts(tmp_path, files):
    made = Comparison.open(tmp_path / "out", *files)
    elsewhere = Comparison(tmp_path, made.a, made.b, made.pairs, {})
    assert elsewhere.fingerprint == made.fingerprint
    changed = [Pair(**{**vars(made.pairs[0]), "output_a": "Ho"}), *made.pairs[1:]]
    assert Comparison(tmp_path, made.a, made.b, changed, {}).fingerprint != made.fingerprint


def test_settings_that_are_no_settings(tmp_path, files):
    rows = json.loads(files[0].read_text())
    files[0].write_text(json.dumps([{**row, "settings": "greedy"} for row in rows]))
    with pytest.raises(DataError, match="'settings' is no JSON object as text: 'greedy'"):
        Comparison.open(tmp_path / "out", *files)
