"""One encoder for training and inference: what it promises, on two real tokenizers and every packaged template."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_lora.data.packs import build_pack
from alpaca_lora.data.records import Record, RecordSet
from alpaca_lora.data.tokens import Encoder, Examples
from alpaca_lora.errors import DataError, ModelError
from alpaca_lora.prompts import Template

TOKENIZERS = ("bpe", "sentencepiece")
TEMPLATES = ("alpaca", "alpaca_legacy", "alpaca_short")
SPECIALS = {"bpe": "<|im_end|>", "sentencepiece": "</s>"}


@pytest.fixture(scope="module")
def encoders(bpe_tokenizer: Any, sentencepiece_tokenizer: Any) -> dict[tuple[str, str], Encoder]:
    tokenizers = dict(zip(TOKENIZERS, (bpe_tokenizer, sentencepiece_tokenizer), strict=True))
    return {(kind, name): Encoder(tokenizers[kind], Template.load(name)) for kind in TOKENIZERS for name in TEMPLATES}


# Characters that a vocabulary has no ids for, so that no encoder could bring them back.
LOST_CONTROLS = "\x04\x06\x13\x14\x16\x1d"  # the demo model's vocabulary lacks these bytes and the lead bytes F1 and F2


def survives(kind: str, text: str) -> bool:
    """Whether each character has ids: SentencePiece writes a space as U+2581, the demo's BPE lacks 21 byte values."""
    if kind == "sentencepiece":
        return "\u2581" not in text
    return not any(character in LOST_CONTROLS or 0x40000 <= ord(character) < 0xC0000 for character in text)


# Texts in which boundaries are easy to get wrong: white space, joiners, header and field look-alikes, special tokens.
BLANKS = st.sampled_from([" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\ufeff", "\u200d", "\x00"])
WORDS = st.sampled_from(["'s", "7", "Hello", " world", "é", "e\u0301", "日本", "😀"])
MARKS = st.sampled_from(["### Response:", "### Response:\n", "{input}", "{instruction}", "{{", "<0x0A>"])
SPECIAL_TEXTS = st.sampled_from(["</s>", "<s>", "<unk>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"])
PIECES = BLANKS | WORDS | MARKS | SPECIAL_TEXTS | st.text(max_size=12)  # st.text() holds no surrogates
TEXTS = st.lists(PIECES, max_size=5).map("".join)
FILLED = TEXTS.filter(bool)

each_encoder = pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in TOKENIZERS for name in TEMPLATES])
each_tokenizer = pytest.mark.parametrize("kind", TOKENIZERS)
quick = settings(deadline=None, max_examples=50)


def record_set(*records: Record) -> RecordSet:
    """Records numbered 11, 12, ... so that a number is never mistaken for an index."""
    return RecordSet(list(records), list(range(11, 11 + len(records))), "<test>")


def same(one: Examples, other: Examples) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("ids", "starts", "ends", "prompt_lens", "record_numbers")
    )
    lists = all(getattr(one, name) == getattr(other, name) for name in ("truncated", "too_long", "special_text"))
    return arrays and lists and one.train_on_inputs == other.train_on_inputs


@each_encoder
def test_an_example_is_the_prompt_of_inference_then_the_response_then_eos(encoders, kind, name):
    encoder = encoders[kind, name]
    special_ids = set(encoder.tokenizer.all_special_ids)

    @quick
    @given(instruction=FILLED, input=TEXTS, output=FILLED)
    def holds(instruction: str, input: str, output: str) -> None:
        found = encoder.encode(record_set(Record(instruction, input, output)), cutoff_len=4_096)
        ids, prompt_len = found[0]
        assert ids[:prompt_len].tolist() == encoder.prompt_ids(instruction, input)
        assert ids[prompt_len:].tolist() == [*encoder.response_ids(output), encoder.eos_id]
        if survives(kind, output):
            assert encoder.decode(ids[prompt_len:].tolist()) == output
        # Text never becomes a special id: BOS once in front where the tokenizer wants one, EOS once at the end.
        begin = [encoder.tokenizer.bos_token_id] if kind == "sentencepiece" else []
        assert encoder.prefix_ids == begin
        assert [token for token in ids.tolist() if token in special_ids] == [*begin, encoder.eos_id]
        assert ids[: len(begin)].tolist() == begin
        # The first response token is supervised, and predicted from the last prompt token.
        pack = build_pack(found, [0], "tree")
        assert pack.targets.tolist() == ids[prompt_len:].tolist()
        assert pack.predict_at.tolist() == list(range(prompt_len - 1, len(ids) - 1))

    holds()


@each_encoder
def test_truncation_cuts_the_response_and_keeps_eos(encoders, kind, name):
    encoder = encoders[kind, name]

    @quick
    @given(instruction=FILLED, input=TEXTS, output=FILLED, cutoff_len=st.integers(8, 120))
    def holds(instruction: str, input: str, output: str, cutoff_len: int) -> None:
        prompt, response = encoder.prompt_ids(instruction, input), encoder.response_ids(output)
        records = record_set(Record(instruction, input, output), Record("Hi", "", output))
        fallback = len(encoder.prompt_ids("Hi")) + 1 < cutoff_len  # else both records may be too long
        if len(prompt) + 1 >= cutoff_len:
            if not fallback:
                with pytest.raises(DataError, match="no record is left"):
                    encoder.encode(records, cutoff_len)
                return
            found = encoder.encode(records, cutoff_len)
            assert found.too_long == [11]
            assert found.record_numbers.tolist() == [12]
            return
        found = encoder.encode(records, cutoff_len)
        ids, prompt_len = found[0]
        assert len(ids) == min(len(prompt) + len(response) + 1, cutoff_len)
        assert ids.tolist() == [*prompt, *response[: cutoff_len - len(prompt) - 1], encoder.eos_id]
        assert prompt_len == len(prompt)
        assert (11 in found.truncated) == (len(prompt) + len(response) + 1 > cutoff_len)
        assert all(found[k].ids[-1] == encoder.eos_id for k in range(len(found)))
        assert found.lengths.max() <= cutoff_len

    holds()


@each_tokenizer
def test_decoding_any_response_ids_gives_no_spurious_space(encoders, kind):
    """Generation may stop in the middle of a character; what is complete comes back all the same."""
    encoder = encoders[kind, "alpaca"]
    text = " Héllo\n  日本 </s>"
    ids = encoder.response_ids(text)
    for count in range(len(ids) + 1):
        assert text.startswith(encoder.decode(ids[:count]).rstrip("\ufffd"))
    assert encoder.decode([*ids, encoder.eos_id]) == text
    assert encoder.decode([]) == ""


@each_tokenizer
def test_what_cannot_survive_is_what_the_vocabulary_lacks(encoders, kind):
    """Pins the exceptions of `survives`: each of them is really lost."""
    encoder = encoders[kind, "alpaca"]
    if kind == "sentencepiece":
        assert encoder.decode(encoder.response_ids("a\u2581b")) == "a b"
    else:
        assert encoder.decode(encoder.response_ids(f"a{LOST_CONTROLS}b")) == "ab"
        assert encoder.decode(encoder.response_ids("\U00040000")) != "\U00040000"


@each_encoder
def test_special_token_text_is_text_and_counted(encoders, kind, name):
    encoder, special = encoders[kind, name], SPECIALS[kind]
    records = record_set(
        Record("plain", "", "plain"),
        Record(f"What does {special} mean?", "", "End."),
        Record("Explain.", special, "End."),
        Record("Write the end mark.", "", special),
        Record("Write another model's end mark.", "", "<eot>"),
    )
    found = encoder.encode(records, 512)
    assert found.special_text == [12, 13, 14]
    for index in range(len(found)):
        assert found[index].ids.tolist().count(encoder.eos_id) == 1
    ids, prompt_len = found[3]
    assert encoder.decode(ids[prompt_len:-1].tolist()) == special
    assert len(ids) - prompt_len > 2


@each_tokenizer
def test_known_ids(encoders, kind):
    """Joint encoding would merge `Response:` and `Hello`; encoding `Hello` alone would put a space in front of it."""
    encoder = encoders[kind, "alpaca_legacy"]
    words = encoder.tokenizer.convert_ids_to_tokens(encoder.response_ids("Hello there"))
    assert words == (["Hello", "▁there"] if kind == "sentencepiece" else ["Hello", "Ġthere"])
    prompt = encoder.tokenizer.convert_ids_to_tokens(encoder.prompt_ids("Hi"))
    assert prompt[:2] == (["<s>", "▁Below"] if kind == "sentencepiece" else ["Below", "Ġis"])
    assert prompt[-1] == ":"


@each_encoder
def test_template_look_alikes_in_data_are_inert(encoders, kind, name):
    encoder = encoders[kind, name]
    record = Record("Repeat {input} and {instruction}", "### Response:\n{input}", "### Response:\n### Input:\n{input}")
    found = encoder.encode(record_set(record), 512)
    ids, prompt_len = found[0]
    assert encoder.decode(ids[prompt_len:-1].tolist()) == record.output
    prompt = encoder.tokenizer.decode(ids[:prompt_len], skip_special_tokens=True)
    assert prompt.count("Repeat {input} and {instruction}") == prompt.count("### Response:\n{input}") == 1


@each_tokenizer
def test_records_that_do_not_fit_are_listed_by_number(encoders, kind, records):
    encoder = encoders[kind, "alpaca_short"]
    long = Record("word " * 100, "", "short")
    cut = Record("Count.", "", "one two three " * 40)
    found = encoder.encode(record_set(long, cut, *records, long), cutoff_len=60)
    assert found.too_long == [11, 13 + len(records)]
    assert found.truncated == [12]
    assert found.record_numbers.tolist() == list(range(12, 13 + len(records)))
    assert found.lengths.max() == found.lengths[0] == 60

    # One response token and EOS must fit: the prompt may have cutoff_len - 2 tokens.
    prompt_len = len(encoder.prompt_ids("Count."))
    assert encoder.encode(record_set(cut), prompt_len + 2).lengths.tolist() == [prompt_len + 2]
    with pytest.raises(DataError, match=f"cutoff_len={prompt_len + 1} in all 2 records. Raise cutoff_len"):
        encoder.encode(record_set(cut, cut), prompt_len + 1)


@each_tokenizer
def test_train_on_inputs_supervises_all_but_the_first_token(encoders, kind, records):
    encoder = encoders[kind, "alpaca"]
    plain = encoder.encode(record_set(*records), 512)
    whole = encoder.encode(record_set(*records), 512, train_on_inputs=True)
    assert whole.ids.tolist() == plain.ids.tolist()
    assert plain.supervised.tolist() == (plain.lengths - plain.prompt_lens).tolist()
    assert whole.supervised.tolist() == (whole.lengths - 1).tolist()
    pack = build_pack(whole, [0], "packed")
    assert pack.targets.tolist() == whole[0].ids[1:].tolist()
    assert pack.predict_at.tolist() == list(range(len(whole[0].ids) - 1))


def test_batches_of_encoding_do_not_show(encoders):
    """Records are encoded a thousand at a time; the seam changes nothing."""
    encoder = encoders["bpe", "alpaca_short"]
    many = [Record(f"Say {number}.", "", str(number)) for number in range(2_001)]
    found = encoder.encode(record_set(*many), 64)
    assert found.record_numbers.tolist() == list(range(11, 2_012))
    for index in (0, 999, 1_000, 1_001, 1_999, 2_000):
        ids, prompt_len = found[index]
        assert ids[:prompt_len].tolist() == encoder.prompt_ids(f"Say {index}.")
        assert encoder.decode(ids[prompt_len:].tolist()) == str(index)


@each_tokenizer
def test_a_pad_token_changes_nothing(encoders, kind, records):
    """Masks come from lengths, so pad == EOS, another pad and no pad give the same examples and the same targets."""
    template = Template.load("alpaca")
    expected = encoders[kind, "alpaca"].encode(record_set(*records), 64)
    for pad in (encoders[kind, "alpaca"].tokenizer.eos_token, None):
        tokenizer = copy.deepcopy(encoders[kind, "alpaca"].tokenizer)
        tokenizer.pad_token = pad
        found = Encoder(tokenizer, template).encode(record_set(*records), 64)
        assert same(found, expected)
        pack = build_pack(found, range(len(found)), "padded")
        assert pack.targets.tolist().count(tokenizer.eos_token_id) == len(found)


def test_a_tokenizer_without_eos_is_refused(sentencepiece_tokenizer):
    tokenizer = copy.deepcopy(sentencepiece_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no EOS token.*set `eos_token`"):
        Encoder(tokenizer, Template.load("alpaca"))


def test_a_tokenizer_that_loses_text_is_refused():
    """A word-level tokenizer cannot write what it reads: refused before any training."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "Hello": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(ModelError, match="does not survive encoding and decoding"):
        Encoder(tokenizer, Template.load("alpaca"))


# The cache


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@each_tokenizer
def test_the_second_call_reads_what_the_first_wrote(encoders, kind, records, tmp_path):
    encoder = encoders[kind, "alpaca"]
    data = record_set(*records, Record("end?", "", SPECIALS[kind]), Record("long " * 200, "", "x"))
    first = encoder.encode_cached(data, 64, cache_dir=tmp_path / "new")
    (path,) = (tmp_path / "new").iterdir()
    written = path.stat().st_mtime_ns
    assert first.too_long and first.special_text
    assert same(first, encoder.encode(data, 64))
    # Another process has other objects: equal records, tokenizer and template find the file.
    again = Encoder(copy.deepcopy(encoder.tokenizer), Template.load("alpaca"))
    assert same(again.encode_cached(record_set(*data.records), 64, cache_dir=path.parent), first)
    # What is supervised is not in the file: both ways share it.
    assert encoder.encode_cached(data, 64, cache_dir=path.parent, train_on_inputs=True).train_on_inputs
    assert files(path.parent) == {path.name}
    assert path.stat().st_mtime_ns == written


def test_the_cache_is_really_read(encoders, records, tmp_path):
    encoder = encoders["bpe", "alpaca"]
    encoder.encode_cached(record_set(*records), 64, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    other = encoder.encode_cached(record_set(*records[:3]), 64, cache_dir=tmp_path)
    (second,) = files(tmp_path) - {path.name}
    path.write_bytes((tmp_path / second).read_bytes())
    assert same(encoder.encode_cached(record_set(*records), 64, cache_dir=tmp_path), other)


def test_anything_that_changes_ids_is_another_file(encoders, records, tmp_path):
    data = record_set(*records)
    renumbered = RecordSet(data.records, [number + 1 for number in data.numbers], data.source)
    shorter = record_set(*records[:-1])
    moved = record_set(*[Record(one.instruction + one.input, "", one.output) for one in records])
    encoder = encoders["bpe", "alpaca"]
    for count, (other, found, cutoff_len) in enumerate(
        [
            (encoder, data, 64),
            (encoder, data, 65),
            (encoder, renumbered, 64),
            (encoder, shorter, 64),
            (encoder, moved, 64),
            (encoders["bpe", "alpaca_legacy"], data, 64),
            (encoders["sentencepiece", "alpaca"], data, 64),
        ],
        start=1,
    ):
        other.encode_cached(found, cutoff_len, cache_dir=tmp_path)
        assert len(files(tmp_path)) == count


@pytest.mark.parametrize("damage", ["empty", "zeros", "cut", "one byte", "not a cache file", "folder"])
def test_a_damaged_cache_file_is_made_anew(encoders, records, tmp_path, damage):
    encoder, data = encoders["bpe", "alpaca"], record_set(*records)
    good = encoder.encode_cached(data, 64, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    path.unlink()
    if damage == "folder":
        path.mkdir()
        with pytest.warns(UserWarning, match="not cached"):
            assert same(encoder.encode_cached(data, 64, cache_dir=tmp_path), good)
        return
    changed = {"empty": b"", "zeros": bytes(len(content)), "cut": content[:-100], "one byte": bytes(flipped)}
    path.write_bytes(changed.get(damage, b"hello"))
    assert same(encoder.encode_cached(data, 64, cache_dir=tmp_path), good)
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_a_warning(encoders, records, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="tokenised records are not cached"):
        found = encoders["bpe", "alpaca"].encode_cached(
            record_set(*records), 64, cache_dir=tmp_path / "file" / "tokens"
        )
    assert len(found) == len(records)


def test_two_processes_at_once_see_whole_files_only(tmp_path):
    """Both write and read the same file, over and over; neither ever sees half of one."""
    program = f"""
from pathlib import Path
from alpaca_lora.data.tokens import Examples
from alpaca_lora.data.tokens.cache import read_examples, write_examples
path = Path({str(tmp_path / "cache" / "one.safetensors")!r})
examples = Examples.from_lists([list(range(1_000))] * 50, [10] * 50)
input()  # both start at once
for _ in range(100):
    write_examples(path, examples)
    found = read_examples(path, False)
    assert found is not None and found.ids.tolist() == examples.ids.tolist()
"""
    two = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, text=True) for _ in range(2)]
    for process in two:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait() for process in two] == [0, 0]
    assert files(tmp_path / "cache") == {"one.safetensors"}  # no scratch folders are left
