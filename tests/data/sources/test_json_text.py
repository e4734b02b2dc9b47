"""JSON arrays and JSON Lines: sniffing, positions, and what the standard decoder would let pass."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.data.sources.json_text import read_json
from alpaca_lora.errors import DataError

ARRAY = '[\n {"instruction": "a", "output": "b"},\n\n {"instruction": "c", "output": "d"}\n]\n'
LINES = '{"instruction": "a", "output": "b"}\n\n{"instruction": "c", "output": "d"}\r\n'
A = '{"a": "b"}'
CR_LINES = LINES.replace("\r", "").replace("\n", "\r")


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt", "x"])
@pytest.mark.parametrize(
    "content",
    [
        ARRAY,
        LINES,
        LINES.rstrip(),
        LINES.replace("\r", "").replace("\n", "\r"),
        "\ufeff" + ARRAY,
        "\ufeff" + LINES,
        "\n " + ARRAY,
    ],
)
def test_content_decides_not_the_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    found = load_records(tmp_path / name)
    assert found.records == [Record("a", "", "b"), Record("c", "", "d")]
    assert found.numbers == [1, 2]


def test_rows_know_their_lines():
    assert read_json(ARRAY, "x").lines == [2, 4]
    assert read_json(LINES, "x").lines == [1, 3]
    assert read_json('\n{\n "output": "b"\n}', "x").lines == [2]


def test_unicode_line_separators_stay_inside_strings():
    assert read_json('{"output": "a\u2028b\x85c"}\n{"output": "d"}', "x").values == [
        {"output": "a\u2028b\x85c"},
        {"output": "d"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # cut short
        ('[{"a": "b"},\n {"a": "c', r"x, line 2, column 8: Unterminated string .*\(in record 2\). .*cut short"),
        ('[{"a": "b"},\n {"a":', r"x, line 2, column 7: Expecting value .*cut short"),
        ('[{"a": "b"},\n {"a": "b"}\n', r"x, line 3, column 1: the array is not closed after record 2. .*cut short"),
        ('[{"a": "b"},', r"x, line 1, column 13: .*cut short"),
        ("[", r"x, line 1, column 2: .*cut short"),
        ('{"a": "b"}\n{"a": "c', r"x, line 2, column 7: Unterminated string .*\(in record 2\). .*cut short"),
        ('{"a": "b"}\n{"a": "c"', r"x, line 2, column 10: Expecting ',' delimiter .*cut short"),
        ('{"a": "b"', r"x, line 1, column 10: .*cut short"),
        ('{\n"data": [\n{"a": "b"}', r"x, line 3, column 11: .*cut short"),
        # broken
        ('{"a": "b"}\n{"a": }\n{"a": "c"}', r"x, line 2, column 7: Expecting value \(in record 2\). Correct the JSON"),
        ('{"a": "b"}\n{"a": "c\n{"a": "d"}', r"x, line 2, column 7: Unterminated string .* Correct the JSON"),
        ('[{"a": "b"},\n {"a" "c"}]', r"x, line 2, column 7: Expecting ':' delimiter .* Correct the JSON"),
        ('[{"a": "b"}\n{"a": "c"}]', r"x, line 2, column 1: expected ',' or '\]' after record 1, found '\{'"),
        ('[{"a": "b"},\n]', r"x, line 2, column 1: a comma stands before the closing"),
        ('[{"a": "b"}]\n[{"a": "c"}]', r"x, line 2, column 1: text follows the closing '\]'"),
        (
            '{"a": "b"},\n{"a": "c"}',
            r"x, line 1, column 11: ',' follows the object; JSON Lines holds one object per line",
        ),
        ('{"a": "b"}{"a": "c"}', r"x, line 1, column 11: '\{' follows the object"),
        ('{\n"a": "b"\n}\n{\n"a": "c"\n}', r"x, line 4, column 1: expected one JSON object per line"),
        ("hello", r"x, line 1, column 1: Expecting value"),
        # not JSON, though Python's decoder takes it
        ('[{"a": "b"},\n {"a": NaN}]', r"x, record 2 \(line 2\): NaN is not JSON. Write null"),
        ('{"a": "b"}\n{"a": -Infinity}', r"x, record 2 \(line 2\): -Infinity is not JSON"),
        ('{"a": NaN}', r"x, record 1 \(line 1\): NaN is not JSON"),
        ('{"a": "b"}\n\n{"a": "c", "b": "", "a": "c"}', r"x, record 2 \(line 3\): the key 'a' stands more than once"),
        ('[{"c": {"a": 1, "a": 2}}]', r"x, record 1 \(line 1\): the key 'a' stands more than once"),
        (
            '[{"a": "b"},\n {"a":\n ' + "1" * 6000 + "}]",
            r"x, record 2 \(line 3\): a number of 6,000 digits .* quotes",
        ),
        ('{"a": "b"}\n{"a": -' + "1" * 6000 + "}", r"x, record 2 \(line 2\): a number of 6,000 digits"),
        # among other things
        (f"[\n<<<<<<< HEAD\n{A},\n=======\n{A},\n>>>>>>> new\n{A}]", r"x, line 2: this is a conflict marker of git"),
        (f"{A}\n<<<<<<< HEAD\n{A}\n=======\n{A}\n>>>>>>> new\n", r"x, line 2: this is a conflict marker of git"),
        (f"[{A}]\n\ufeff[{A}]", r"x, line 2: a byte-order mark stands here, .*Pass the files .* or a pattern"),
        (f'{A}\n{{"a": "c\nhello"}}\n', r"x, line 2, column 7: Unterminated string"),
        ("[" * 200_000, r"x, record 1 \(line 1\): the value is nested too deep"),
        ('{"a":' * 200_000, r"x, record 1 \(line 1\): the value is nested too deep"),
        # wrapped
        ('{"data": [{"a": "b"}]}', r"x: the records are inside the key 'data'\. .*dump\(data\['data'\]"),
        ('{\n "version": 1,\n "data": [\n {"a": "b"}]}', r"x: the records are inside the key 'data'"),
        ('{"instruction": ["a"], "output": ["b"]}', r"x: this is a dict of lists .*zip"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_json(text, "x")


def test_lone_surrogates_are_placed_and_pairs_are_fine(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"instruction": "a", "output": "\\ud83d\\ude00"}\n{"instruction": "a", "output": "b\\ud800"}\n')
    with pytest.raises(
        DataError, match=r"x.jsonl, record 2 \(line 2\): 'output' holds the lone surrogate \\ud800 at ch"
    ):
        load_records(path)
    path.write_text(path.read_text().splitlines()[0])
    assert load_records(path).records[0].output == "\U0001f600"


def test_dates_and_numbers_in_quotes_stay_strings(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"instruction": "2024-01-31", "input": "007", "output": "1e5"}\n')
    assert load_records(path).records == [Record("2024-01-31", "007", "1e5")]


IT = '{"instruction": "a", "output": "it\'s"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{'instruction': 'a', 'input': None, 'output': 'it\\'s'}]", "These are Python's dicts, not JSON"),
        ("{'instruction': 'a', 'output': \"it's\"}\n", "These are Python's dicts, not JSON"),
        ('[{"instruction": "a", "input": None, "output": "it\'s"}]', "These are Python's dicts, not JSON"),
        ('[{"instruction": "a", "input": NaN, "output": "it\'s"}]', "NaN is not JSON"),
        ('{"instruction": "a", "input": NaN, "output": "it\'s"}\n', "NaN is not JSON"),
        (f"[{IT},\n]", "a comma stands before the closing"),
        ('[{"instruction": "a", "output": "it\'s",}]', "A comma stands before the closing bracket"),
        ('{"instruction": "a", "output": "it\'s",\t}\n', "A comma stands before the closing bracket"),
        ("[{instruction: 'a',\n\toutput: 'it''s'},]", "This is JSON5 or JavaScript"),
        ('{instruction: "a", output: "it\'s"}\n', "This is JSON5 or JavaScript"),
    ],
)
def test_the_command_that_a_message_ends_with_makes_records(tmp_path, text, message):
    path = tmp_path / "my rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_records(path)
    subprocess.run([sys.executable, "-c", re.search(r'python -c "(.*)"$', str(caught.value))[1]], check=True)
    assert load_records(tmp_path / "my rows.records.json").records == [Record("a", "", "it's")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[{IT}]\n[{IT}]", r"line 2, column 1: text follows the closing '\]'. Keep one array, .*pass joined files"),
        (f"{IT}{IT}\n", "'{' follows the object; .* Keep one array"),
        (f"{IT},\n{IT}\n", "',' follows the object; .* Remove it"),
        (f"\ufeff\n\ufeff{IT}\n", "line 2: a byte-order mark stands here, .* Pass the files themselves"),
        (f"{IT}\nDone.", "line 2, column 1: Expecting value"),
    ],
)
def test_joined_files_and_foreign_lines_are_named(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_records(path)


def test_raw_line_breaks_are_mended_by_the_command(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"instruction": "a\nb", "output": "c\td"}]')
    with pytest.raises(DataError, match=r"line 1, column 20: Invalid control .* is written \\n or") as caught:
        load_records(path)
    subprocess.run([sys.executable, "-c", re.search(r'python -c "(.*)"$', str(caught.value))[1]], check=True)
    assert load_records(tmp_path / "x.records.json").records == [Record("a\nb", "", "c\td")]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (r'[{"a": "C:\dir"}]', "A backslash is written twice in JSON"),
        ("[{“a”: “b”}]", "Strings stand in straight quotes"),
        ("// one\n[]", "JSON has no comments. Remove them"),
        ('{"a": "b"}\n{"a": /* c */ "b"}', "JSON has no comments"),
        ('[{"a": "b",}]', "A comma stands before the closing bracket"),
        ('[{"a": "b" // note\n}]', "JSON has no comments"),
    ],
)
def test_what_is_nearly_json_is_named(text, advice):
    with pytest.raises(DataError, match=advice):
        read_json(text, "x")
