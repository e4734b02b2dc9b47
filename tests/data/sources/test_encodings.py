"""Files that are not UTF-8: nothing is guessed, the right encoding is among the candidates, and the command works."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from alpaca_lora.data.records import load_records
from alpaca_lora.data.sources.encodings import decode_text
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
        assert 1 <= len(lines) <= 10
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
def test_the_user_chooses_and_the_command_does_not_run_before(tmp_path, text, encoding):
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match="only you can tell") as caught:
        decode_text(path.read_bytes(), "x.txt")
    message = str(caught.value)
    name = re.search(rf"^  (\w+) +{re.escape(text)}$", message, re.MULTILINE)[1]
    with pytest.raises(subprocess.CalledProcessError):
        run_advice(message, tmp_path)
    assert not (tmp_path / "x.utf8.txt").exists()
    run_advice(message, tmp_path, name)
    assert (tmp_path / "x.utf8.txt").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("texts", "encoding"), [(FRENCH, "cp1252"), (CHINESE, "gbk")])
@pytest.mark.parametrize("odd_is_utf8", [False, True])
def test_lines_in_two_encodings_are_told_apart(texts, encoding, odd_is_utf8):
    data = [one.encode("utf-8" if (n == 2) == odd_is_utf8 else encoding) for n, one in enumerate(texts)]
    expected = (
        "seems to be UTF-8 already, line 3: convert"
        if odd_is_utf8
        else "The rest of the file is UTF-8; not so line 3. Correct"
    )
    with pytest.raises(DataError, match=expected):
        decode_text(b"\n".join(data), "x.txt")


def test_a_few_damaged_bytes_do_not_hide_the_encoding(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\n".join(CHINESE).encode("gbk")[:-9] + b"\xff\n" + CHINESE[0].encode("gbk"))
    with pytest.raises(DataError, match=r"gb18030 .*unreadable places: \d") as caught:
        decode_text(path.read_bytes(), "x.txt")
    run_advice(str(caught.value), tmp_path, "gb18030")
    assert (tmp_path / "x.utf8.txt").read_text(encoding="utf-8").startswith("\n".join(CHINESE[:4]))


def test_invalid_utf8_names_line_and_byte():
    with pytest.raises(DataError, match=r"x, line 2, byte 6: 0xe9 is not valid UTF-8 \(file offset 8\)"):
        decode_text(b'[{\n "caf\xe9"}]', "x")


def test_utf8_with_a_few_bad_bytes_says_so_and_where(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [f'{{"instruction": "Où est l’été {number} ?", "output": "là"}}'.encode() for number in range(9)]
    lines[6] = lines[6].replace("’".encode(), b"\x92")
    path.write_bytes(b"\n".join(lines))
    expected = r"x.jsonl, line 7, byte 27: 0x92 .* The rest of the file is UTF-8; not so line 7\."
    with pytest.raises(DataError, match=expected) as caught:
        load_records(path)
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


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("iso2022_jp", "海についての短い詩。"), ("iso2022_jp_2", "海の詩"), ("iso2022_kr", "바다에 대한 시")],
)
def test_mail_encodings_that_pass_for_ascii_are_told(tmp_path, encoding, text):
    path = tmp_path / "x.csv"
    path.write_bytes(f"instruction,output\n{text},Fine.\n".encode(encoding))
    with pytest.raises(DataError, match="the file is encoded in ISO2022_") as caught:
        load_records(path)
    run_advice(str(caught.value), tmp_path)
    assert load_records(tmp_path / "x.utf8.csv").records[0].instruction == text


def test_bytes_with_control_characters_are_no_text():
    with pytest.raises(DataError, match="This is no text: it holds control characters"):
        decode_text(bytes(range(1, 256)) * 9, "x")


@pytest.mark.parametrize("before", ["word " * 9000, "word, " * 90000])
def test_a_long_text_is_looked_at_where_it_is_not_utf8(before):
    with pytest.raises(DataError, match=r"(?m)^  cp1252 .*Où est l’été"):
        decode_text(before.encode() + "Où est l’été, là-bas ?".encode("cp1252"), "x.txt")


# A sentence in each of the encodings of its language.
SENTENCES = {
    "cp1252 latin_1 mac_roman cp850": "Où se trouve la forêt la plus étendue d'Europe ? Elle a été créée à l'est.",
    "cp1251 koi8_r cp866 iso8859_5 mac_cyrillic": "Солнечный свет рассеивается в атмосфере, и голубой сильнее.",
    "cp1251 koi8_u": "Тому вдень ми бачимо блакитне небо. Її сестра живе в Києві.",
    "cp1250 iso8859_2 cp852": "Wyjaśnij, dlaczego niebo jest niebieskie. Książka leży na stole, a ćma na źdźble.",
    "cp1253 iso8859_7": "Εξηγήστε γιατί ο ουρανός είναι μπλε. Το φως του ήλιου σκεδάζεται.",
    "cp1254 iso8859_9": "Gökyüzünün neden mavi olduğunu açıklayın. Deniz hakkında kısa bir şiir yazın.",
    "cp1255 iso8859_8": "הסבירו מדוע השמיים כחולים. כתבו שיר קצר על הים.",
    "cp1256 iso8859_6": "اشرح لماذا السماء زرقاء. اكتب قصيدة قصيرة عن البحر.",
    "shift_jis cp932 euc_jp": "空が青い理由を説明してください。海についての短い詩を書いてください。",
    "gb2312 gbk gb18030": "请解释为什么天空是蓝色的。写一首关于大海的短诗。",
    "big5 cp950": "請解釋為什麼天空是藍色的。寫一首關於大海的短詩。",
    "euc_kr cp949": "하늘이 파란 이유를 설명해 주세요. 바다에 대한 짧은 시를 쓰세요.",
    "cp874 tis_620": "อธิบายว่าทำไมท้องฟ้าจึงเป็นสีฟ้า เขียนบทกวีสั้น ๆ เกี่ยวกับทะเล",
    "cp1257": "Paaiškinkite, kodėl dangus yra mėlynas. Parašykite trumpą eilėraštį apie jūrą.",
}


SHORT = [
    ("cp1252", "£5"),
    ("cp1252", "a café"),
    ("cp1250", "Łódź"),
    ("koi8_r", "Привет"),
    ("gb18030", "大海"),
    ("cp949", "바다"),
]


@pytest.mark.parametrize(
    ("encoding", "text"), [*SHORT, *((one, text) for names, text in SENTENCES.items() for one in names.split())]
)
def test_one_of_the_readings_is_right_in_every_language(encoding, text):
    data = f'{{"output": "{text}"}}'.encode(encoding)
    with pytest.raises(DataError, match="only you can tell") as caught:
        decode_text(data, "x.json")
    names = re.findall(r"^  (\w+) ", str(caught.value), re.MULTILINE)
    assert text in [data.decode(name, "replace")[12:-2] for name in names]
