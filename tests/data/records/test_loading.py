"""Records from any source: what is kept, what is dropped, what is refused, and how they are split."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_lora.data.record import is_blank
from alpaca_lora.data.records import Record, RecordSet, load_records, split_records
from alpaca_lora.errors import ConfigError, DataError

ROWS = [
    {"instruction": "Name a cat.", "input": "", "output": "Tom"},
    {"instruction": "Add.", "input": "2, 3", "output": "5"},
    {"instruction": "When?", "input": "", "output": "2024-01-31"},
]
RECORDS = [Record("Name a cat.", "", "Tom"), Record("Add.", "2, 3", "5"), Record("When?", "", "2024-01-31")]


def many(count: int) -> list[dict[str, str]]:
    return [{"instruction": f"Say {number}.", "output": str(number)} for number in range(count)]


def write(path: Path, rows: list[dict[str, str]], kind: str) -> Path:
    """Writes rows as other programs would."""
    if kind == "json":
        path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif kind == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["instruction", "input", "output"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


# An escape may begin a text of Japanese or Korean mail, which is refused.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1b"))
blank_free = text.filter(lambda value: not is_blank(value))
rows_strategy = st.lists(
    st.fixed_dictionaries({"instruction": blank_free, "input": text, "output": blank_free}), min_size=1, max_size=6
)


@pytest.mark.filterwarnings("ignore:.*Control characters", "ignore:.*only the word")
@settings(max_examples=60, deadline=None)
@given(rows=rows_strategy)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_any_records_come_back_from_any_format(kind, rows, tmp_path_factory):
    if kind == "csv" and sys.version_info < (3, 11) and "\0" in str(rows):
        return  # the csv module of Python 3.10 refuses NUL
    path = write(tmp_path_factory.mktemp("round") / f"data.{kind}", rows, kind)
    found = load_records(path)
    assert found.records == [Record(**row) for row in rows]
    assert found.numbers == list(range(1, len(rows) + 1))
    assert found.fingerprint == load_records(rows).fingerprint


def test_list_of_dicts_and_of_records():
    found = load_records(ROWS)
    assert found == RecordSet(RECORDS, [1, 2, 3], "<list>", {})
    assert load_records(RECORDS) == found


def test_a_record_set_is_looped_over_as_its_records_are():
    found = load_records([{"instruction": f"Say {n}", "output": f"{n}"} for n in range(3)])
    assert [*found] == found.records and found[1] == found.records[1] and len(found) == 3


def test_unknown_keys_are_ignored_and_texts_kept_as_they_are():
    found = load_records([{"instruction": " a ", "input": " ", "output": "\nb ", "category": 7}])
    assert found.records == [Record(" a ", " ", "\nb ")]


def test_blank_instruction_is_fine_with_an_input_only():
    assert load_records([{"instruction": "", "input": "Hi", "output": "Hello"}]).records == [Record("", "Hi", "Hello")]
    with pytest.raises(DataError, match=r"<list>, record 2: instruction and input are both blank.*Fill one in"):
        load_records([ROWS[0], {"instruction": None, "input": " \u200b", "output": "x"}])


@pytest.mark.parametrize("empty", [None, "", " \n\t", "\u200b", "\u200c \u2060", "\u3164", "\xad\ufeff"])
def test_empty_outputs_are_dropped_counted_and_warned_about_once(empty):
    rows = many(40)
    rows[6]["output"] = rows[30]["output"] = empty
    with pytest.warns(UserWarning, match=r"2 of 40 records \(5.0%; numbers 7, 31\) have an empty output") as caught:
        found = load_records(rows)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert found.dropped == {"empty output": [7, 31]}
    assert len(found) == 38 and found.numbers[5:7] == [6, 8]
    assert found.describe() == "<list>: 38 records, 0 with an input; dropped 2 (empty output: 7, 31)"


def test_too_many_empty_outputs_are_an_error():
    rows = many(10)
    rows[0]["output"] = ""
    with pytest.raises(
        DataError, match=r"1 of 10 records \(10.0%; numbers 1\) have an empty output; at most 5% may be dropped. Fill"
    ):
        load_records(rows)
    with pytest.raises(DataError, match=r"6 of 6 .*\(100.0%; numbers 1, 2, 3, 4, 5 and 1 more\) .*; none is left"):
        load_records([{"instruction": "a", "output": None}] * 6)


def test_no_rows_are_an_error(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"a\.json: the source holds no records \(0 rows\)"):
        load_records(tmp_path / "a.json")
    with pytest.raises(DataError, match="<list>: the source holds no records"):
        load_records([])


def test_errors_name_file_record_and_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ROWS[0], {"instrution": "x", "output": "y"}], indent=1))
    with pytest.raises(
        DataError, match=r"a\.json, record 2 \(line 7\): the key 'instruction' is missing. Did you mean"
    ):
        load_records(path)


def test_columns_map_other_keys():
    rows = [{"question": "q", "answer": "a"}, {"question": "q", "context": "c", "answer": "a"}]
    found = load_records(rows, columns={"instruction": "question", "input": "context", "output": "answer"})
    assert found.records == [Record("q", "", "a"), Record("q", "c", "a")]


def test_a_mapped_input_that_no_record_has_is_an_error():
    with pytest.raises(DataError, match="reads 'input' from 'kontext', which no record has. Keys of the first.*'out"):
        load_records(many(2), columns={"input": "kontext"})


def test_fingerprint_is_stable_and_depends_on_content_and_order():
    found = load_records(ROWS)
    assert found.fingerprint == "3059b3fca87ddcbba963b4da9d47da6339d7c49bf7920cf1e19802cbc6196597"
    assert found.subset([0, 1, 2]).fingerprint == found.fingerprint
    assert found.subset([1, 0, 2]).fingerprint != found.fingerprint
    shifted = [load_records([Record(*texts)]).fingerprint for texts in (("ab", "c", "d"), ("a", "bc", "d"))]
    assert shifted[0] != shifted[1]


def test_split_is_seeded_disjoint_and_in_source_order():
    found = load_records(many(100))
    train, validation = split_records(found, 10, seed=42)
    assert validation.numbers == [2, 8, 10, 13, 20, 42, 45, 68, 90, 95]  # pinned: the same everywhere, for ever
    assert train.numbers == sorted(set(found.numbers) - set(validation.numbers))
    assert [record.output for record in validation.records] == [str(number - 1) for number in validation.numbers]
    assert split_records(load_records(many(100)), 10, seed=42)[1].fingerprint == validation.fingerprint
    assert split_records(found, 10, seed=43)[1].numbers != validation.numbers
    assert set(split_records(found, 0.2, seed=42)[1].numbers) > set(validation.numbers)


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (0.0, 0), (1, 1), (9, 9), (0.25, 2), (0.001, 1), (0.9, 9)])
def test_split_counts(size, expected):
    train, validation = split_records(load_records(many(10)), size, seed=0)
    assert (len(train), len(validation)) == (10 - expected, expected)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (10, r"val_set_size: 10: 10 for validation of 10 records in <list> leaves 10 - 10 = 0 .*Give at most 9"),
        (2000, r"leaves 10 - 2,000 = -1,990 to train on"),
        (0.99, r"0.99 of 10 rounds to 10, and 10 for validation .* leaves 10 - 10 = 0"),
    ],
)
def test_split_refuses_with_the_arithmetic(size, message):
    with pytest.raises(ConfigError, match=message):
        split_records(load_records(many(10)), size, seed=0)


def test_split_of_one_record():
    with pytest.raises(ConfigError, match=r"0.5 of 1 rounds to 1, and 1 .*of 1 record in .* Give 0, or more data"):
        split_records(load_records(many(1)), 0.5, seed=0)


def test_clean_data_is_silent_and_import_is_light():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_records(ROWS)
    code = (
        "import sys, alpaca_lora.data.records\n"
        "print([name for name in ('torch', 'datasets', 'pandas', 'pyarrow', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
