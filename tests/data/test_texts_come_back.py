"""What a tokenizer cannot give back is counted and shown; an EOS that stands for the unknown is refused."""

from __future__ import annotations

import copy
import json

import pytest
from transformers import AutoTokenizer

from alpaca_lora import finetune, load
from alpaca_lora.data.records import Record, RecordSet
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import ModelError, TemplateError
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


@pytest.mark.parametrize("special", ["<s>", "</s>", "<unk>"])
def test_a_template_with_special_tokens_in_its_own_text(short_base, tmp_path, special):
    template = {"description": "", "response_split": "[/INST]"}
    template |= {"prompt_input": f"{special}[INST] {{instruction}} {{input}} [/INST]"}
    template |= {"prompt_no_input": f"{special}[INST] {{instruction}} [/INST]"}
    path = tmp_path / "llama2.json"
    path.write_text(json.dumps(template), encoding="utf-8")
    rows = [record._asdict() for record in TEXTS]
    settings = {"base_model": short_base, "data": rows, "output_dir": tmp_path / "out", "batch_size": 2, "max_steps": 1}
    with pytest.raises(TemplateError, match=f"prompt_template: .*llama2.json' holds '{special}', a special token"):
        finetune(**settings, prompt_template=path)
    assert not (tmp_path / "out").exists()


def test_and_where_no_contract_names_the_template(short_base, tmp_path):
    template = {"description": "", "response_split": "A:", "prompt_input": "<s>{instruction} {input}"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**template, "prompt_no_input": "{instruction}"}), encoding="utf-8")
    with pytest.raises(TemplateError, match="mine.json' holds '<s>', a special token of this model"):
        load(short_base, prompt_template=str(path))


def test_special_tokens_in_data_are_no_matter_of_the_template(sentencepiece_tokenizer):
    encoder = Encoder(sentencepiece_tokenizer, Template.load("alpaca"))
    encoder.check_template()
    assert copy.copy(encoder).comes_back_as(Record("</s>", "<s>", "a </s> b")) == ""
