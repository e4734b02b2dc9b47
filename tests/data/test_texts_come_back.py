"""What a tokenizer cannot give back is counted and shown; an EOS that stands for the unknown is refused."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from alpaca_lora import finetune, load
from alpaca_lora.data.records import Record, RecordSet
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import ModelError
from alpaca_lora.prompts import Template

TEXTS = [
    Record("Say it.", "", "plain words"),
    Record("Indent it.", "", "def f():\n    return  1"),
    Record("Name it.", "", "na\u00efve ﬁsh"),
    Record("Mark it.", "", "a\tb"),
    Record("Loudly.", "", "Shout IT"),
]


def changed(tokenizer, folder, records=TEXTS, **backend):
    """Numbers of the records that a tokenizer with another normalizer changes."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **backend}), encoding="utf-8")
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), Template.load("alpaca_short"))
    source = RecordSet(records, list(range(1, len(records) + 1)), "mine.json")
    return encoder, encoder.encode(source, 512).changed_text


def test_real_tokenizers_give_all_of_it_back(bpe_tokenizer, sentencepiece_tokenizer):
    source = RecordSet(TEXTS, [1, 2, 3, 4, 5], "mine.json")
    for tokenizer in (bpe_tokenizer, sentencepiece_tokenizer):
        assert Encoder(tokenizer, Template.load("alpaca")).encode(source, 512).changed_text == []


def test_a_normalizer_that_folds_characters(bpe_tokenizer, tmp_path):
    encoder, found = changed(bpe_tokenizer, tmp_path, normalizer={"type": "NFKC"})
    assert found == [3]  # the ligature
    assert encoder.comes_back_as(TEXTS[2]) == "'naïve ﬁsh' comes back as 'naïve fish'"
    assert encoder.comes_back_as(TEXTS[0]) == ""


def test_a_normalizer_that_squeezes_white_space(bpe_tokenizer, tmp_path):
    squeeze = {"type": "Replace", "pattern": {"Regex": "\t| {3,}"}, "content": " "}
    _, found = changed(bpe_tokenizer, tmp_path, records=[TEXTS[0], TEXTS[1], TEXTS[3]], normalizer=squeeze)
    assert found == [2, 3]


def test_characters_without_ids(bpe_tokenizer):
    records = [TEXTS[0], Record("Say it.", "a\x04b", "c")]  # the demo model's vocabulary lacks this byte
    source = RecordSet(records, [7, 9], "mine.json")
    encoder = Encoder(bpe_tokenizer, Template.load("alpaca"))
    assert encoder.encode(source, 512).changed_text == [9]
    assert encoder.comes_back_as(records[1]).startswith("'a\\x04b' comes back as 'a")


def test_a_run_says_so_once(bpe_tokenizer, tiny_llama, tmp_path):
    base = tmp_path / "base"
    model = tiny_llama(len(bpe_tokenizer), hidden=32)
    model.config.eos_token_id, model.config.bos_token_id = bpe_tokenizer.eos_token_id, bpe_tokenizer.bos_token_id
    model.save_pretrained(base)
    bpe_tokenizer.save_pretrained(base)
    path = base / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "normalizer": {"type": "NFKC"}}), encoding="utf-8")
    rows = [record._asdict() for record in TEXTS]
    for name in ("first", "from the cache"):
        with pytest.warns(
            UserWarning, match=r"the tokenizer changes text in 1 of 5 records \(20.0%; numbers 3\): 'na.*ﬁsh'"
        ):
            finetune(base_model=base, data=rows, output_dir=tmp_path / name, batch_size=2, max_steps=2, val_set_size=1)


def test_an_eos_that_stands_for_the_unknown(sentencepiece_tokenizer, tmp_path):
    sentencepiece_tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"] |= {"byte_fallback": False, "unk_token": "</s>"}
    path.write_text(json.dumps(content), encoding="utf-8")
    kept = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "</s>", "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(ModelError, match="eos_token: '</s>' also stands for characters that the vocabulary lacks"):
        Encoder(AutoTokenizer.from_pretrained(tmp_path), Template.load("alpaca"))


def llama2_template(tmp_path, special="<s>"):
    """A JSON template that writes a special token before and after the instruction."""
    template = {"description": "", "response_split": "[/INST]"}
    template |= {"prompt_input": f"{special}[INST] {{instruction}} {{input}} [/INST]{special}"}
    template |= {"prompt_no_input": f"{special}[INST] {{instruction}} [/INST]{special}"}
    path = tmp_path / "llama2.json"
    path.write_text(json.dumps(template), encoding="utf-8")
    return path


@pytest.mark.parametrize("special", ["<s>", "</s>", "<unk>"])
def test_special_tokens_of_a_templates_own_text_are_ids(sentencepiece_tokenizer, tmp_path, special):
    tokenizer = sentencepiece_tokenizer
    encoder = Encoder(tokenizer, Template.load(llama2_template(tmp_path, special)))
    special_id = tokenizer.convert_tokens_to_ids(special)
    ids = encoder.prompt_ids("Say hello")
    assert [id for id in ids if id in tokenizer.all_special_ids] == [
        *([] if special == "<s>" else [tokenizer.bos_token_id]), special_id, special_id
    ]  # fmt: skip
    assert (
        ids == tokenizer(f"{special}[INST] Say hello [/INST]{special}", add_special_tokens=special != "<s>").input_ids
    )
    assert encoder.prompt_ids("Say", "hello") == ids
    (example,) = encoder.encode(RecordSet([Record("Say hello", "", "Hello")], [1], "<test>"), 64)
    assert example.ids[: example.prompt_len].tolist() == ids


@given(text=st.lists(st.sampled_from(["</s>", "<s>", "<unk>", " ", "a", "\n", "\U000f0000"]), max_size=6).map("".join))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_special_tokens_of_data_stay_text_inside_such_a_template(sentencepiece_tokenizer, tmp_path, text):
    encoder = Encoder(sentencepiece_tokenizer, Template.load(llama2_template(tmp_path)))
    ids = encoder.prompt_ids(text)
    specials = [id for id in ids if id in sentencepiece_tokenizer.all_special_ids]
    assert specials == [1, 1] and ids[0] == ids[-1] == 1
    shown = encoder.decode(ids)
    assert shown == f"[INST] {text} [/INST]"


def test_such_a_template_trains_and_answers_with_the_same_ids(short_base, tmp_path):
    path = llama2_template(tmp_path)
    rows = [record._asdict() for record in TEXTS]
    out = tmp_path / "out"
    finetune(base_model=short_base, data=rows, output_dir=out, batch_size=2, max_steps=1, prompt_template=path)
    trained, asked = load(str(out)).encoder, load(short_base, prompt_template=str(path)).encoder
    assert trained.prompt_ids("Hi") == asked.prompt_ids("Hi")
    assert trained.prompt_ids("Hi")[0] == 1 and trained.prompt_ids("Hi").count(1) == 2


def test_special_tokens_in_data_come_back_as_text(sentencepiece_tokenizer):
    encoder = Encoder(sentencepiece_tokenizer, Template.load("alpaca"))
    assert copy.copy(encoder).comes_back_as(Record("</s>", "<s>", "a </s> b")) == ""
