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


FRENCH = (
    "Expliquez pourquoi le ciel est bleu.",
    "La lumière du soleil se disperse dans l'atmosphère, et le bleu est dispersé davantage.",
    "Où se trouve la forêt la plus étendue d'Europe ?",
    "Elle a été créée près de la frontière, à l'est du pays.",
    "Ça dépend du côté où l'on se place.",
)
CHINESE = (
    "请解释为什么天空是蓝色的。",
    "太阳光进入大气层后会被空气分子散射,蓝光的散射最强。",
    "因此我们白天看到的天空是蓝色的。",
    "写一首关于大海的短诗。",
    "这个问题需要考虑三个不同的方面。",
)


def run_advice(message, tmp_path, encoding=None):
    """Runs the command that ends a message, as a shell would, with another encoding where one is chosen."""
    code = re.search(r'python -c "(.*)"$', message, re.MULTILINE)[1]
    if encoding:
        code = re.sub(r"decode\('(?!utf)\w+'", f"decode('{encoding}'", code)
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
        assert 1 <= len(lines) <= 8
        chosen = next(name for name, shown in lines if shown.startswith(text))
    run_advice(message, tmp_path, chosen)
    converted = tmp_path / path.name.replace("a b", "a b.utf8")
    assert load_records(converted).records[0].instruction == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Wyjaśnij to.", "cp1250"),
        ("a café", "cp1252"),
        ("Explicaţi de ce cerul este albastru.", "cp1250"),
        ("The sea — don’t rhyme.", "cp1252"),
        ("Тому вдень ми бачимо його таким.", "cp1251"),
        ("5 m² ± 1", "latin_1"),
    ],
)
def test_where_readings_are_close_the_user_chooses_and_the_command_does_not_run_before(tmp_path, text, encoding):
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match="only you can tell") as caught:
        decode_text(path.read_bytes(), "x.txt")
    message = str(caught.value)
    name = re.search(rf"^  (\w+) +{re.escape(text)}   \(", message, re.MULTILINE)[1]
    assert f"here {name}" not in message
    with pytest.raises(subprocess.CalledProcessError):
        run_advice(message, tmp_path)
    assert not (tmp_path / "x.utf8.txt").exists()
    run_advice(message, tmp_path, name)
    assert (tmp_path / "x.utf8.txt").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("texts", "encoding"), [(FRENCH, "cp1252"), (CHINESE, "gbk")])
@pytest.mark.parametrize("odd_is_utf8", [False, True])
@pytest.mark.parametrize("array", [False, True])
def test_lines_of_another_encoding_among_utf8_are_named_and_read_by_themselves(
    tmp_path, texts, encoding, odd_is_utf8, array
):
    lines = [json.dumps({"output": one}, ensure_ascii=False) for one in texts]
    data = [line.encode("utf-8" if (n == 2) == odd_is_utf8 else encoding) for n, line in enumerate(lines)]
    path = tmp_path / "x.json"
    path.write_bytes(b"[" + b", ".join(data) + b"]" if array else b"\n".join(data))
    with pytest.raises(DataError, match="The rest of the file is UTF-8; not so line") as caught:
        decode_text(path.read_bytes(), "x.json")
    message = str(caught.value)
    if not array:
        bad = [n for n, line in enumerate(data, 1) if line.decode("utf-8", "ignore").encode() != line]
        assert f"not so line{'s' * (len(bad) > 1)}: {', '.join(map(str, bad))}." in message
    run_advice(message, tmp_path)
    expected = "[" + ", ".join(lines) + "]" if array else "\n".join(lines)
    assert (tmp_path / "x.utf8.json").read_text(encoding="utf-8") == expected


def test_a_few_damaged_bytes_do_not_hide_the_encoding(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\n".join(CHINESE).encode("gbk")[:-9] + b"\xff\n" + CHINESE[0].encode("gbk"))
    with pytest.raises(DataError, match=r"(?s)gb18030 .*unreadable places: \d.*here gb18030") as caught:
        decode_text(path.read_bytes(), "x.txt")
    run_advice(str(caught.value), tmp_path)
    assert (tmp_path / "x.utf8.txt").read_text(encoding="utf-8").startswith("\n".join(CHINESE[:4]))


def test_invalid_utf8_names_line_and_byte():
    with pytest.raises(DataError, match=r"x, line 2, byte 6: 0xe9 is not valid UTF-8 \(file offset 8\)"):
        decode_text(b'[{\n "caf\xe9"}]', "x")


def test_utf8_with_a_few_bad_bytes_says_so_and_where(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [f'{{"instruction": "Où est l’été {number} ?", "output": "là"}}'.encode() for number in range(9)]
    lines[6] = lines[6].replace("’".encode(), b"\x92")
    path.write_bytes(b"\n".join(lines))
    expected = r"x.jsonl, line 7, byte 27: 0x92 .* The rest of the file is UTF-8; not so line: 7\."
    with pytest.raises(DataError, match=expected) as caught:
        load_records(path)
    for chosen, mark in (("cp1252", "’"), (None, "\ufffd")):  # the last line's command is for damaged bytes
        message = str(caught.value)
        run_advice(message if chosen else message.splitlines()[-1], tmp_path, chosen)
        assert load_records(tmp_path / "x.utf8.jsonl").records[6].instruction == f"Où est l{mark}été 6 ?"


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


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("iso2022_jp", "海についての短い詩。"), ("iso2022_jp_2", "海の詩"), ("iso2022_kr", "바다에 대한 시")],
)
def test_mail_encodings_that_pass_for_ascii_are_told(tmp_path, encoding, text):
    path = tmp_path / "x.csv"
    path.write_bytes(f"instruction,output\n{text},Fine.\n".encode(encoding))
    with pytest.raises(DataError, match="the file is encoded in iso2022_") as caught:
        load_records(path)
    run_advice(str(caught.value), tmp_path)
    assert load_records(tmp_path / "x.utf8.csv").records[0].instruction == text


def test_bytes_with_control_characters_are_no_text():
    with pytest.raises(DataError, match="This is no text: it holds control characters"):
        decode_text(bytes(range(1, 256)) * 9, "x")


@pytest.mark.parametrize("encoding", ["cp1252", "gbk"])
@pytest.mark.parametrize("before", ["word " * 9000, "déjà vu " * 9000, "我们白天看到的天空是蓝色的。" * 900])
def test_a_long_text_is_looked_at_where_it_is_not_utf8(tmp_path, encoding, before):
    text = " ".join(FRENCH if encoding == "cp1252" else CHINESE)
    path = tmp_path / "x.txt"
    path.write_bytes(before.encode() + b"\n" + text.encode(encoding))
    with pytest.raises(DataError, match=rf"here {'gb18030' if encoding == 'gbk' else encoding},") as caught:
        decode_text(path.read_bytes(), "x.txt")
    run_advice(str(caught.value), tmp_path)
    assert (tmp_path / "x.utf8.txt").read_text(encoding="utf-8") == before + "\n" + text
    one_line = before.replace("\n", " ").encode() + b" " + "Où est l’été, là-bas ?".encode("cp1252")
    with pytest.raises(DataError) as caught:
        decode_text(one_line, "x.txt")
    assert re.search(r"^  cp1252 .*Où est l’été|^  cp1252 .* là-bas", str(caught.value), re.MULTILINE)
