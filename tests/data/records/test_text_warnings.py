"""Texts that are read as they stand and told: words for a missing value, control characters."""

from __future__ import annotations

import json
import warnings

import pytest

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.data.records.text_warnings import is_missing_word


def rows(count=40, **fields):
    base = {"instruction": "Name gull {}.", "input": "of line {}", "output": "It is gull {}."}
    return [{key: fields.get(key, value.format)(number) for key, value in base.items()} for number in range(count)]


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("input", word)
        for word in ("NaN", "nan", "NULL", "null", "#N/A", "<NA>", "None", "NA", "N/A", " nan\n", "\\N", "#REF!")
    ]
    + [("output", word) for word in ("nan", "NaN", "NULL", "#N/A", "<NA>", "#DIV/0!")]
    + [("instruction", "nan")],
)
def test_words_for_a_missing_value_are_told_and_kept(field, word):
    data = rows(**{field: lambda n: word if n in (3, 7) else f"text {n}"})
    said = rf"'{field}' is only the word .* in 2 of 40 rows \(first record 4\).*Leave a missing value empty"
    with pytest.warns(UserWarning, match=said) as caught:
        found = load_records(data)
    assert getattr(found.records[3], field) == word
    assert len(caught) == 1 and caught[0].filename == __file__ and repr(word.strip()) in str(caught[0].message)


@pytest.mark.parametrize(
    "record",
    [
        Record("Which port is meant?", "Nantes", "None"),
        Record("Does it hold?", "", "n/a"),
        Record("What does 0/0 give, an error or NaN?", "", "NaN"),
        Record("Say null.", "", "null"),
        Record("Name a fruit.", "", "banana"),
    ],
)
def test_words_that_may_be_texts_are_silent(record):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_records([record]).records == [record]


def test_a_word_inside_another_of_the_prompt_is_no_mention_of_it():
    assert is_missing_word(Record("Colour of a banana?", "", "nan"), "output")


def test_missing_cells_of_a_csv_file_and_what_the_message_says_to_do(tmp_path):
    pandas = pytest.importorskip("pandas")
    path, new = tmp_path / "x.csv", tmp_path / "x.json"
    frame = pandas.DataFrame(rows(input=lambda n: None if n % 4 else "007"))
    frame.to_csv(path, index=False, na_rep="NaN")
    with pytest.warns(UserWarning, match=r"'input' is only the word 'NaN' in 30 of 40 rows"):
        load_records(path)
    pandas.read_csv(path, dtype=str).to_json(new, orient="records")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_records(new)
    assert [record.input for record in found.records] == ["" if n % 4 else "007" for n in range(40)]


@pytest.mark.parametrize("stray", ["\x00", "\x1b[0m", "\x0c", "\x7f", "\ufeff"])
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_control_characters_are_told_with_their_records_and_kept(tmp_path, field, stray):
    data = rows(**{field: lambda n: f"text {stray}{n}" if n == 5 else f"text {n}\r\n\tmore"})
    for name, content in (("a.json", json.dumps(data)), ("b.jsonl", "\n".join(map(json.dumps, data)))):
        (tmp_path / name).write_text(content)
        said = rf"Control characters \(U\+{ord(stray[0]):04X}\) stand in 1 of 40 rows \(first record 6\)"
        with pytest.warns(UserWarning, match=said) as caught:
            found = load_records(tmp_path / name)
        assert getattr(found.records[5], field) == f"text {stray}5" and len(caught) == 1


def test_a_part_of_several_sources_is_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(rows(3)))
    (tmp_path / "b.json").write_text(json.dumps(rows(4, output=lambda n: f"gull \b{n} \x01\x02\x03\x04")))
    with pytest.warns(UserWarning, match=r"\(U\+0008, U\+0001, U\+0002, ...\) stand in 4 of 7 rows .*b.json 1\)"):
        load_records(tmp_path)
