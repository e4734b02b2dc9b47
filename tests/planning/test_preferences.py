"""From files of preferences to token ids: two sequences a record, the better answer first, one prompt."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alpaca_lora import inspect, load_records
from alpaca_lora.config import FinetuneConfig
from alpaca_lora.data.preview import DataReport
from alpaca_lora.data.tokens import cache, encoder_for
from alpaca_lora.errors import DataError
from alpaca_lora.planning.preparation import prepare, report_dropped
from chats import chat_tokenizer

ROWS = [
    {"prompt": f"Name heron number {n}.", "chosen": f"Heron {n}, of course.", "rejected": f"I will not say {n}."}
    for n in range(40)
]
ROWS[3] = {"instruction": "Add.", "input": "2, 3", "chosen": "5", "rejected": "It is 6, or perhaps 7."}


def prepared(base, rows, **settings):
    config = FinetuneConfig(base_model=base, data=rows, output_dir="unused", objective="dpo", **settings)
    return config, prepare(config, base)


def test_each_record_is_two_sequences_the_better_answer_first(short_base, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for _ in range(2):  # encoded, and read from the cache
        _, data = prepared(short_base, str(path), val_set_size=4)
        for part, count in ((data.train, 36), (data.validation, 4)):
            assert part.records == count and len(part) == 2 * count
            assert (np.diff(part.record_starts) == 2).all()
            assert (part.prompt_lens[::2] == part.prompt_lens[1::2]).all()
        encoder = data.encoder
        for place in range(data.train.records):
            chosen, rejected = (data.train[index] for index in data.train.sequences_of(np.array([place])))
            number = int(data.train.record_numbers[2 * place])
            row = ROWS[number - 1]
            prompt = encoder.prompt_ids(row.get("prompt") or row["instruction"], row.get("input", ""))
            for example, text in ((chosen, row["chosen"]), (rejected, row["rejected"])):
                assert example.prompt_len == len(prompt)
                assert example.ids.tolist() == [*prompt, *encoder.response_ids(text), encoder.eos_id]
    assert (
        data.described.train_records == 36
        and data.described.fingerprint == load_records(path, objective="dpo").fingerprint
    )
    assert data.eval_records is not None and len(data.eval_records.records) == 4


def test_a_long_prompt_drops_the_pair_and_a_long_answer_is_cut(short_base):
    long = {"prompt": "Why? " * 200, "chosen": "So.", "rejected": "No."}
    cut = {"prompt": "Go on.", "chosen": "On. " * 200, "rejected": "No."}
    alike = {"prompt": "Go on.", "chosen": "On. " * 200 + "A", "rejected": "On. " * 200 + "B"}
    config, data = prepared(short_base, [*ROWS, long, cut, alike], cutoff_len=200, val_set_size=0)
    assert data.train.records == 41 and (data.train.dropped, data.train.truncated, data.train.same) == (
        [41],
        [42],
        [43],
    )
    longest = data.train[int(data.train.lengths.argmax())]
    assert len(longest.ids) == 200 and longest.ids[-1] == data.encoder.eos_id
    assert data.described.dropped == {"prompt reaches cutoff_len": 1, "both answers have the same tokens": 1}
    with pytest.warns(UserWarning) as told:
        report_dropped(config, data)
    texts = [str(one.message) for one in told]
    assert any("the prompt alone reaches cutoff_len=200 in 1 of 43 records" in text for text in texts)
    assert any("both answers have the same tokens within cutoff_len=200 in 1 of 43 records" in text for text in texts)
    assert any("the response is cut to fit cutoff_len=200 in 1 of 43 records" in text for text in texts)
    config, data = prepared(short_base, [*ROWS, *[long] * 3], cutoff_len=200, val_set_size=0)
    with pytest.raises(DataError, match=r"in 3 of 43 records \(7.0%; numbers 41, 42, 43\)"):
        report_dropped(config, data)
    with pytest.raises(DataError, match="no record is left: the prompt alone reaches cutoff_len=200 in all 2 records"):
        prepared(short_base, [long] * 2, cutoff_len=200, val_set_size=0)
    with pytest.raises(DataError, match="and both answers have the same tokens in 1 more"):
        prepared(short_base, [long, alike], cutoff_len=200, val_set_size=0)


@pytest.mark.parametrize("name", ["chatml", "llama2", "qwen3", "phi"])
def test_conversations_share_their_prompt_whatever_an_answer_holds(short_tokenizers, name):
    """The text of a special token in one answer hides it there, and changes nothing in the prompt."""
    tokenizer = chat_tokenizer(name, short_tokenizers)
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    before.append({"role": "user", "content": "What ends a turn?"})
    special = f"It is {tokenizer.eos_token} here."
    answers = [{"role": "assistant", "content": text} for text in (special, "Nothing.")]
    rows = [{"prompt": before, "chosen": answers[:1], "rejected": answers[1:]}]
    rows += [{"prompt": before, "chosen": answers[1:], "rejected": answers[:1]}]
    encoder = encoder_for(tokenizer, "chat")
    examples = encoder.encode(load_records(rows, objective="dpo"), 1000)
    prompt = encoder.message_ids(before)
    assert len(examples) == 4 and set(examples.prompt_lens.tolist()) == {len(prompt)}
    assert all(examples[index].ids[: len(prompt)].tolist() == prompt for index in range(4))
    assert examples[0].ids.tolist() == examples[3].ids.tolist() and examples[1].ids.tolist() == examples[2].ids.tolist()
    assert np.isin(examples.ids[examples.ends - 1], encoder.stop_ids).all()
    assert examples.special_text == [1, 2]


def test_a_prompt_template_has_no_place_for_several_turns(short_base):
    talk = [{"role": role, "content": "Hi"} for role in ("user", "assistant", "user")]
    row = {"prompt": talk, "chosen": "Ho", "rejected": "No"}
    with pytest.raises(DataError, match="a conversation does not fit the template 'alpaca'.*prompt_template=chat"):
        prepared(short_base, [row] * 3, val_set_size=0)


def test_mixed_sources_and_validation_of_its_own(short_base, tmp_path):
    for name, rows in (("a", ROWS[:20]), ("b", ROWS[20:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    sources = [{"path": str(tmp_path / "a.json"), "weight": 3}, {"path": str(tmp_path / "b.json"), "weight": 1}]
    _, data = prepared(short_base, sources, val_set_size=0)
    assert data.mixture.counts(40) == [30, 10]
    _, data = prepared(short_base, str(tmp_path / "a.json"), val_data=str(tmp_path / "b.json"))
    assert (data.train.records, data.validation.records) == (20, 20)
    with pytest.warns(UserWarning, match="val_data: 1 of 1 record"):
        prepared(short_base, ROWS, val_data=[{**ROWS[5], "rejected": "Not I."}])


def test_inspect_shows_both_answers_and_how_long_they_are(short_base):
    report = inspect(ROWS, short_base, objective="dpo")
    rows = report.rows
    assert rows["records"] == "40 from <list>" and rows["examples"] == "80"
    lengths = (report.examples.lengths - report.examples.prompt_lens).reshape(-1, 2)
    longer = np.mean(lengths[:, 0] > lengths[:, 1])
    assert rows["chosen is longer"].startswith(f"in {longer:.1%} of the pairs")
    tokens = {name: int(value.split()[0].replace(",", "")) for name, value in report.computed.items()}
    once = int(report.examples.lengths.sum() - report.examples.prompt_lens[::2].sum())
    assert rows["tokens"].endswith(f", {once:,} with each prompt once)")
    assert tokens["computed, tree"] < tokens["computed, packed"] == int(report.examples.lengths.sum()) - 80
    chosen, rejected = report.examples_shown(1)
    assert chosen.plain.startswith("record 1, chosen: ") and "Name heron number 0." in chosen.plain
    assert rejected.plain == "record 1, rejected: I will not say 0.</s>"
    styles = {str(span.style) for span in rejected.spans}
    assert {"red", "bright_red", "reverse red"} <= styles
    assert "dim" in {str(span.style) for span in chosen.spans}


def test_no_difference_is_minus_zero(short_base):
    rows = [{"prompt": "Hi", "chosen": "Ho", "rejected": "Ho!"}, {"prompt": "So", "chosen": "7", "rejected": "8"}]
    report = inspect(rows, short_base, objective="dpo")
    answers = (report.examples.lengths - report.examples.prompt_lens).reshape(-1, 2)
    assert np.median(answers[:, 0] - answers[:, 1]) == -0.5
    assert report.rows["chosen is longer"].endswith("median difference +0 tokens")


def test_a_layout_that_computes_more_than_rows_of_8_saves_nothing(short_base):
    """Five pairs are one padded pack, as long as the one long answer; of rows of 8 only the one that has it is."""
    rows = [{"prompt": f"Say {n}", "chosen": "word " * (8 if n == 3 else 1), "rejected": "no"} for n in range(5)]
    computed = inspect(rows, short_base, objective="dpo").computed
    counts = {name: int(value.split()[0].replace(",", "")) for name, value in computed.items()}
    assert counts["computed, padded"] > counts["computed, rows of 8"] > counts["computed, packed"]
    assert computed["computed, padded"] == f"{counts['computed, padded']:,}"
    saved = counts["computed, rows of 8"] / counts["computed, packed"]
    assert computed["computed, packed"].endswith(f" ({saved:.2f}x fewer)")


def test_what_is_dropped_is_told_by_inspect(short_base):
    rows = [*ROWS, {"prompt": "Hi", "chosen": "Ho", "rejected": "Ho"}]
    with pytest.warns(UserWarning, match="the same answer twice"):
        report = inspect(rows, short_base, objective="orpo")
    assert report.rows["dropped, chosen and rejected are the same"] == "1 (record 41)"
    assert isinstance(report, DataReport) and report.compared


def test_a_cache_of_an_earlier_version_is_read(short_base, tmp_path, monkeypatch):
    """It has no list of pairs with the same answers."""
    _, data = prepared(short_base, ROWS, val_set_size=0)
    with monkeypatch.context() as earlier:
        earlier.setattr(cache, "_LISTS", tuple(name for name in cache._LISTS if name != "same"))
        cache.write_examples(tmp_path / "old.safetensors", data.train)
    found = cache.read_examples(tmp_path / "old.safetensors", train_on_inputs=False)
    assert found is not None and found.same == [] and found.ids.tolist() == data.train.ids.tolist()
