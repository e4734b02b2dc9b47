"""Files that are not UTF-8: nothing is guessed, the right encoding is among the candidates, and the command works."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from alpaca_lora.data.encodings import decode_text
from alpaca_lora.data.records import load_records
from alpaca_lora.errors import DataError

TEXTS = {
    "cp1251": "Напиши короткое стихотворение о море.",
    "koi8_r": "Напиши короткое стихотворение о море.",
    "gb18030": "写一首关于大海的短诗。",
    "gbk": "写一首关于大海的短诗。",
    "big5": "寫一首關於大海的短詩。",
    "cp932": "海についての短い詩を書いてください。",
    "shift_jis": "海についての短い詩を書いてください。",
    "euc_jp": "海についての短い詩を書いてください。",
    "euc_kr": "바다에 대한 짧은 시를 쓰세요.",
    "cp1252": "It’s “fine” – the café",
    "latin_1": "Die Straße hört hier auf.",
    "mac_roman": "Die Straße hört hier auf.",
    "cp1250": "Zażółć gęślą jaźń",
    "cp1253": "Γράψε ένα ποίημα",
    "cp1255": "כתוב שיר קצר על הים",
    "cp1256": "اكتب قصيدة قصيرة عن البحر",
    "cp874": "เขียนบทกวี",
    "utf-16": "写 é",
    "utf-16-le": "写 é",
    "utf-16-be": "写 é",
    "utf-32": "写 é",
    "utf-32-le": "写 é",
}


def run_advice(message, tmp_path, encoding=None):
    """Runs the command that ends a message, as a shell would, with another encoding where one is chosen."""
    code = re.search(r'python -c "(.*)"$', message)[1]
    if encoding:
        code = re.sub(r"decode\('\w+'", f"decode('{encoding}'", code)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("layout", ["lines", "array", "csv"])
@pytest.mark.parametrize("encoding", TEXTS)
def test_the_text_is_among_the_candidates_and_the_command_converts(tmp_path, encoding, layout):
    text = TEXTS[encoding]
    row = {"instruction": text, "input": "", "output": "Fine."}
    content = {
        "lines": json.dumps(row, ensure_ascii=False),
        "array": json.dumps([row, row], ensure_ascii=False),
        "csv": f'instruction,output\r\n"{text}",Fine.\r\n',
    }[layout]
    path = tmp_path / ("a b.csv" if layout == "csv" else "a b.json")
    path.write_bytes(content.encode(encoding))
    with pytest.raises(DataError, match=r"not (valid )?UTF-8") as caught:
        load_records(path)
    message = str(caught.value)
    chosen = None
    if not encoding.startswith("utf"):
        lines = [line.split(None, 1) for line in message.splitlines() if line.startswith("  ")]
        assert 1 <= len(lines) <= 6
        chosen = next(name for name, shown in lines if shown.startswith(text))
    run_advice(message, tmp_path, chosen)
    converted = tmp_path / path.name.replace("a b", "a b.utf8")
    assert load_records(converted).records[0].instruction == text


@pytest.mark.parametrize("encoding", ["cp1251", "gb18030", "big5", "cp932", "cp1253", "koi8_r", "cp1256", "cp1250"])
def test_a_few_sentences_put_the_right_one_first(encoding):
    content = "\n".join(json.dumps({"output": f"{number} {TEXTS[encoding]}"}, ensure_ascii=False) for number in "12")
    with pytest.raises(DataError, match=rf"Take the name of the one that reads right, here {encoding},"):
        decode_text(content.encode(encoding), "x")


def test_invalid_utf8_names_line_and_byte():
    with pytest.raises(DataError, match=r"x, line 2, byte 6: 0xe9 is not valid UTF-8 \(file offset 8\)"):
        decode_text(b'[{\n "caf\xe9"}]', "x")


def test_utf8_with_a_few_bad_bytes_says_so_and_where(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [f'{{"instruction": "Où est l’été {number} ?", "output": "là"}}'.encode() for number in range(9)]
    lines[6] = lines[6].replace("’".encode(), b"\x92")
    path.write_bytes(b"\n".join(lines))
    expected = r"x.jsonl, line 7, byte 27: 0x92 .* The rest of the file is UTF-8; damaged line: 7\."
    with pytest.raises(DataError, match=expected) as caught:
        load_records(path)
    assert "cp12" not in str(caught.value)
    run_advice(str(caught.value), tmp_path)
    assert load_records(tmp_path / "x.utf8.jsonl").records[6].instruction == "Où est l\ufffdété 6 ?"


def test_damage_inside_a_long_run_of_utf8():
    data = bytearray(("写一首关于大海的短诗" * 3).encode())
    data[31] = 0x41
    with pytest.raises(DataError, match="The rest of the file is UTF-8"):
        decode_text(b'{"output": "' + bytes(data) + b'"}', "x")


def test_a_file_cut_inside_a_character():
    with pytest.raises(
        DataError, match="ends inside a character; it seems to be cut short. Write or download it again"
    ):
        decode_text('{"output": "写'.encode()[:-1], "x")


@pytest.mark.parametrize("data", [b"", b" \n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_empty_file(data):
    with pytest.raises(DataError, match="x: the file is empty"):
        decode_text(data, "x")


@pytest.mark.parametrize("text", ["a,b\n\x00,c\n", "写诗\n" * 9 + "\x00"])
def test_a_zero_in_utf8_is_a_character(text):
    assert decode_text(text.encode(), "x") == text


def test_zeros_and_bytes_that_are_no_text():
    with pytest.raises(DataError, match="holds only zero bytes, as after a crash"):
        decode_text(b"\x00" * 40, "x")
    with pytest.raises(DataError, match="this is no text"):
        decode_text(b"\x01\x00\x00\x02\x00\x00\x00\x00\xff" * 9, "x")
