"""CSV and Parquet."""

from __future__ import annotations

import csv
import sys
from datetime import date

import pyarrow
import pyarrow.parquet
import pytest

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.data.sources.tables import read_csv
from alpaca_lora.errors import DataError


def test_csv_cells_stay_strings(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfinstruction,input,output\r\n2024-01-31,,007\r\n\r\n"say ""a,\nb""",NA,null\r\n')
    with pytest.warns(UserWarning, match="'input' is only the word 'NA' .*'output' is only the word 'null'"):
        found = load_records(str(path))
    assert found.records == [Record("2024-01-31", "", "007"), Record('say "a,\nb"', "NA", "null")]


def test_csv_rows_know_their_lines():
    rows = read_csv('instruction,output\n"a\nb",c\n\nd,e\n', "x")
    assert rows.lines == [2, 5]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_mark_between_columns_shows_in_the_header(mark, end):
    lines = ["instruction;output;;", "a, b;c", '"d;e";"f', 'g";;', ";;;", ";;;", ""]
    text = end.join(lines).replace("d;e", "D").replace(";", mark)
    text = text.replace("a, b", '"a, b"').replace("D", f"d{mark}e")
    rows = read_csv(text, "x")
    expected = [{"instruction": "a, b", "output": "c"}, {"instruction": f"d{mark}e", "output": f"f{end}g"}]
    assert rows.values == expected and rows.lines == [2, 3]


def test_excels_line_says_the_mark_and_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\ninstruction;output\r\na,b;c\r\n")
    assert load_records(path).records == [Record("a,b", "", "c")]
    assert read_csv("sep=#\noutput,instruction#n\na#b\n", "x").lines == [3]


def test_tabs_in_a_file_named_tsv(tmp_path):
    (tmp_path / "x.tsv").write_text("instruction\toutput\tnote, long\na, b\tc\t\n")
    assert load_records(tmp_path / "x.tsv").records == [Record("a, b", "", "c")]


def test_long_cells_are_read_and_the_limit_of_csv_is_put_back():
    before = csv.field_size_limit()
    assert len(read_csv("output\n" + "x" * 200_000, "x").values[0]["output"]) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,2\n"3,4\n5,6\n', r"x, line 3: unexpected end of data. This row starts on line 3; close its quotes"),
        (
            "a,b\n1,2,3\n",
            r"x, line 2: 3 cells, but the header names 2 columns \('a', 'b'\). Put text that holds a comma",
        ),
        ("a,b\n1\n", r"x, line 2: 1 cell, but the header names 2 columns .*Write every cell, an empty one as nothing"),
        ("a\n1,2\n", r"x, line 2: 2 cells, but the header names 1 column \('a'\)\. Put"),
        (
            "a,b\n1,2,3\n4,5\n6\n",
            r"x, line 2: 3 cells, .*\. So it is with 2 rows, on lines 2, 4\. Put text that holds a comma",
        ),
        ("My data,,\na,prompt,output\n1,2,3\n", r"x, line 1: 'My data,,' does not name .* and line 2 does. Remove"),
        ("\nMy data, of May\r\n\r\ninstruction;output\r\n1;2", r"x, line 2: 'My data, of May' does not .* and line 4"),
        ("# exported\ninstruction,output\n", r"x, line 1: '# exported' does not name"),
        ("a,b\n<<<<<<< HEAD\n1,2\n=======\n3,4\n>>>>>>> new\n", r"x, line 2: this is a conflict marker of git. Choose"),
        ("a,b\n1,2\na,b\n3,4\n", r"x, line 3: the header stands here again, .*pass the files themselves"),
        ("\ufeffa,b\n1,2\n\ufeffa,b\n", r"x, line 3: the header stands here again"),
        ("x" * 200_000 + ",b\n", r"x, line 1: this line should name the columns"),
        ('a,b\n"1"2,3\n', r"x, line 2: "),
        ("a,b,a\n1,2,3\n", r"x: the column 'a' stands more than once"),
        ("a;b\n1;2;3\n", r"x, line 2: 3 cells, .* Put text that holds a semicolon in double quotes"),
        ("a,b,,\n1,2,,3\n", r"x, line 2: 4 cells, but the header names 2 columns"),
        ("a,b,c\n---,---,---\n1,2,3\n", r"x, line 2: this is a line drawn below the names .*Remove it"),
        ("a|b\n:--|--:\n1|2\n", r"x, line 2: this is a line drawn below the names"),
        ("a,b,c\nstring,,String\n1,2,3\n", r"x, line 2: this is the types of the columns"),
        ("a,b\n\nvarchar(255),int64\n1,2\n", r"x, line 3: this is the types of the columns"),
        ("Name a big bird.,The gull.\n", r"x, line 1: this line should name the columns, .*: 'Name a big bird.'. Put"),
    ],
)
def test_csv_that_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_csv(text, "x")


def test_lines_and_types_in_a_record_are_texts():
    assert len(read_csv("a,b\nDraw a line,---\nstring,What is it?\n---,---\n", "x").values) == 3


@pytest.mark.parametrize("text", ["Say 0,,The number 0\nSay 1,,The number 1\n", "hi,hello\nbye,farewell\n"])
def test_a_csv_file_of_short_texts_without_a_header_is_told_so(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(
        DataError, match=r"If the first line .* is a record, the line that names the columns is missing"
    ):
        load_records(path)
    path.write_text(f"instruction,{'input,' if ',,' in text else ''}output\n{text}")
    assert load_records(path).records[0].output in ("The number 0", "hello")
    path.write_text("question,reply_of_ours\nhi,hello\n")
    with pytest.raises(DataError) as caught:
        load_records(path)
    assert "first line" not in str(caught.value)


def test_csv_without_records_or_columns(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("instruction,input,output\n")
    with pytest.raises(DataError, match=r"x.csv: the source holds no records"):
        load_records(path)
    path.write_text("instruction,input,ouput\na,b,c\n")
    with pytest.raises(
        DataError, match=r"x.csv, record 1 \(line 2\): the key 'output' is missing. Did you mean 'ouput'\?"
    ):
        load_records(path)


def test_parquet_is_known_by_its_content_and_keeps_types(tmp_path):
    path = tmp_path / "x.data"
    table = pyarrow.table({"instruction": ["a", "b"], "output": ["2024-01-31", "d"], "input": [None, "e"]})
    pyarrow.parquet.write_table(table, path)
    assert load_records(path).records == [Record("a", "", "2024-01-31"), Record("b", "e", "d")]
    pyarrow.parquet.write_table(pyarrow.table({"instruction": ["a"], "output": [date(2024, 1, 31)]}), path)
    with pytest.raises(DataError, match=r"x.data, record 1: 'output' is .*\(date\), not a string"):
        load_records(path)


def test_parquet_with_conversations(tmp_path):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"conversations": turns}]), tmp_path / "x.parquet")
    assert load_records(tmp_path / "x.parquet").records == [Record("Hi", "", "Hello")]


def test_damaged_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"instruction": ["a"], "output": ["b"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"x.parquet: this Parquet file cannot be read: .*Write or download it again"):
        load_records(path)
    pyarrow.parquet.write_table(pyarrow.table([["a"], ["b"]], names=["output", "output"]), path)
    with pytest.raises(DataError, match=r"x.parquet: the column 'output' stands more than once"):
        load_records(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_do_on_every_system(tmp_path, end):
    text = f'instruction,output{end}a,"b{end}c"{end}d,e{end}'
    (tmp_path / "x.csv").write_bytes(text.encode())
    assert load_records(tmp_path / "x.csv").records == [Record("a", "", f"b{end}c"), Record("d", "", "e")]
    (tmp_path / "x.csv").write_bytes(f"sep=;{end}instruction;output{end}a;b".encode())
    assert load_records(tmp_path / "x.csv").records == [Record("a", "", "b")]


@pytest.mark.parametrize(
    "text",
    [
        'instruction, input, output\n"a", "b, c", d\n',
        'instruction , "input", output\na, "b, c", d\n',
        'instruction,input,output\n"a", "b, c", "d"\n',
        'instruction;input;output\ne;f;g\na; "b, c"; "d"\n',
    ],
)
def test_spaces_after_marks_are_no_text(text):
    assert [*read_csv(text, "x").values[-1].items()] == [("instruction", "a"), ("input", "b, c"), ("output", "d")]


def test_spaces_that_are_text_stay():
    text = 'instruction,output\n a," ""b"""\n"c, ""d"""," e"\n'
    assert [[*row.values()] for row in read_csv(text, "x").values] == [[" a", ' "b"'], ['c, "d"', " e"]]


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="later versions read zero bytes")
def test_a_zero_byte_in_csv():
    with pytest.raises(DataError, match="line 2: a zero byte stands in this row. Remove it"):
        read_csv("a,b\n1\0,2\n", "x")
