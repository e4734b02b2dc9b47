"""Models that answer: streamed or whole, ending where they should, from new tokens only."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from alpaca_lora import finetune, generate, load, merge, stream
from alpaca_lora.data.records import Record, RecordSet
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AdapterError, ConfigError, ModelError
from alpaca_lora.generation.loading import load_local
from alpaca_lora.generation.model import LocalModel
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.generation.streaming import GrowingText
from alpaca_lora.prompts import Template
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile

KINDS = ("bpe", "sentencepiece")
LESSONS = (
    Record("Greet the world.", "", " Grüße, 世界! 😀👩‍🚀\n\n  naïve “ᚠ”"),
    Record("Name a cat.", "", "Tom"),
    Record("What follows ### Response:\n?", "### Response:\nIt is {instruction}.", "### Response:\nNothing"),
)


@pytest.fixture(scope="module")
def taught(tiny_llama, bpe_tokenizer, sentencepiece_tokenizer):
    """Tiny models of both kinds that know three answers by heart."""
    models = {}
    for kind, tokenizer in zip(KINDS, (bpe_tokenizer, sentencepiece_tokenizer), strict=True):
        model = tiny_llama(len(tokenizer))
        encoder = Encoder(tokenizer, Template.load("alpaca_short"))
        examples = encoder.encode(RecordSet(list(LESSONS), [1, 2, 3], "<lessons>"), 256)
        for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):  # large and frozen: learnt in seconds
            matrix.requires_grad_(False).mul_(20)
        layers = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(layers, lr=5e-3, weight_decay=0.0)
        losses = [math.inf]
        while max(losses) > 0.02:
            losses = []
            for index in range(len(examples)):
                ids, labels = (torch.tensor(examples[index].ids)[None].long() for _ in range(2))
                labels[:, : examples[index].prompt_len] = -100
                loss = model(input_ids=ids, labels=labels).loss
                loss.backward()
                losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
        models[kind] = LocalModel(model, encoder, [encoder.eos_id])
    return models


@pytest.fixture(scope="module")
def untaught(tiny_base, tiny_base_bpe):
    """Random models: any token may follow any other."""
    return {"bpe": load(tiny_base_bpe), "sentencepiece": load(tiny_base)}


each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("lesson", LESSONS, ids=["multi-byte", "short", "headers"])
def test_answers_are_whole_and_end_by_themselves(taught, kind, lesson):
    """The last lesson's prompt holds the response header, and so does its answer: nothing is cut at it."""
    model = taught[kind]
    assert model.generate(lesson.instruction, lesson.input) == lesson.output
    pieces = list(model.stream(lesson.instruction, lesson.input))
    assert "".join(pieces) == lesson.output
    assert "" not in pieces
    assert len(pieces) > 1 or lesson.output == "Tom"


@each_kind
def test_a_stream_never_shows_half_a_character(taught, kind):
    lesson = LESSONS[0]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in taught[kind].stream(lesson.instruction))


@each_kind
def test_an_answer_may_be_cut_inside_a_character(taught, kind):
    lesson, model = LESSONS[0], taught[kind]
    for count in range(1, 30):
        sampling = Sampling(max_new_tokens=count)
        whole = model.generate(lesson.instruction, "", sampling)
        assert "".join(model.stream(lesson.instruction, "", sampling)) == whole


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_of_random_tokens_is_what_generate_returns(untaught, kind, seed):
    sampling = Sampling(max_new_tokens=60, temperature=2.0, seed=seed)
    model = untaught[kind]
    assert "".join(model.stream("Say something.", "", sampling)) == model.generate("Say something.", "", sampling)


def test_bytes_that_turn_out_to_be_no_character_are_not_shown_too_early(sentencepiece_tokenizer):
    """SentencePiece decodes a run of bytes as a whole: `世` is a character until a stray byte follows it."""
    encoder = Encoder(sentencepiece_tokenizer, Template.load("alpaca"))
    byte = [sentencepiece_tokenizer.convert_tokens_to_ids(f"<0x{value:02X}>") for value in range(256)]
    word = [byte[0xE4], byte[0xB8], byte[0x96]]
    ids = [*encoder.response_ids("Hi "), *word, byte[0xE4], *encoder.response_ids("a"), byte[10]]
    text, shown = GrowingText(encoder), [""]
    for count in range(1, len(ids) + 1):
        text.update(ids[:count])
        assert text.certain.startswith(shown[-1])  # what was shown stays
        shown.append(text.certain)
    text.finish(ids)
    assert text.certain == encoder.decode(ids)
    assert len(set(shown)) == 4


@each_kind
def test_a_stop_that_is_ordinary_text_is_not_shown(taught, kind):
    """Some bases end answers with a token that is not special."""
    encoder = taught[kind].encoder
    answer = encoder.response_ids(LESSONS[0].output)
    stop = answer[6]
    model = LocalModel(taught[kind].model, encoder, [stop, encoder.eos_id])
    expected = encoder.decode(answer[: answer.index(stop)])
    assert model.generate(LESSONS[0].instruction) == expected
    assert "".join(model.stream(LESSONS[0].instruction)) == expected


def test_beams_answer_in_one_piece(taught):
    lesson, sampling = LESSONS[2], Sampling(num_beams=3)
    assert list(taught["bpe"].stream(lesson.instruction, lesson.input, sampling)) == [lesson.output]


def test_leaving_a_stream_early_ends_it(taught):
    model = LocalModel(taught["bpe"].model, taught["bpe"].encoder, [5])  # never comes: it would run to the limit
    steps = []
    hook = model.model.register_forward_hook(lambda *_: steps.append(1))
    pieces = model.stream("Greet the world.", "", Sampling(max_new_tokens=1500))
    next(pieces)
    next(pieces)
    pieces.close()
    hook.remove()
    assert 2 <= len(steps) < 20


def test_an_error_reaches_the_reader(tiny_llama, sentencepiece_tokenizer):
    """Here: a vocabulary that is too small for the tokenizer."""
    encoder = Encoder(sentencepiece_tokenizer, Template.load("alpaca"))
    with pytest.raises(ModelError, match="the tokenizer gives id .*, and the model knows 50 ids only"):
        list(LocalModel(tiny_llama(50), encoder, [2]).stream("Hello"))


# Sampling


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: 0 must be at least 1."),
        ({"temperature": -0.5}, "temperature: -0.5 must be 0, or from 0.001 to 1000."),
        ({"temperature": float("nan")}, "temperature: nan must be 0, or from 0.001 to 1000."),
        ({"top_p": 0.0}, "top_p: 0.0 must be above 0 and at most 1."),
        ({"top_p": 1.5}, "top_p: 1.5 must be above 0 and at most 1."),
        ({"top_k": -1}, "top_k: -1 must be at least 0."),
        ({"repetition_penalty": 0.0}, "repetition_penalty: 0.0 must be from 0.01 to 100."),
        ({"temperature": 1e-40}, "temperature: 1e-40 must be 0, or from 0.001 to 1000."),
        ({"repetition_penalty": 1e-40}, "repetition_penalty: 1e-40 must be from 0.01 to 100."),
        ({"seed": 2**70}, f"seed: {2**70} must be a whole number from 0 to 2^63 - 1."),
        pytest.param({"top_k": -(10**5_000)}, "top_k: a number of 5,001 digits must be at least 0.", id="digits"),
        ({"stop": ("",)}, "stop: ('',) must be texts of at least one character."),
        ({"num_beams": 0}, "num_beams: 0 must be from 1 to 64."),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(ConfigError) as caught:
        Sampling(**values)
    assert str(caught.value) == message


def test_every_wrong_value_is_reported():
    with pytest.raises(ConfigError) as caught:
        Sampling(max_new_tokens=0, top_p=2, num_beams=0)
    assert len(caught.value.problems) == 3


def test_a_seed_repeats_the_answer(untaught):
    model = untaught["bpe"]

    def answer(seed):
        return model.generate("Say something.", "", Sampling(max_new_tokens=20, temperature=1.0, seed=seed))

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


def test_greedy_answers_are_the_same_each_time(untaught):
    sampling = Sampling(max_new_tokens=20)
    assert untaught["bpe"].generate("Hi", "", sampling) == untaught["bpe"].generate("Hi", "", sampling)


def test_top_k_1_is_greedy(untaught):
    model = untaught["sentencepiece"]
    sampled = Sampling(max_new_tokens=12, temperature=1.0, top_k=1)
    assert model.generate("Hi", "", sampled) == model.generate("Hi", "", Sampling(max_new_tokens=12))


def test_a_repetition_penalty_changes_the_answer(taught):
    lesson, sampling = LESSONS[0], Sampling(repetition_penalty=30.0, max_new_tokens=40)
    assert taught["bpe"].generate(lesson.instruction, "", sampling) != lesson.output


# What can be loaded


def test_adapter_merged_folder_and_base_all_answer(tiny_base, records, tmp_path):
    rows = [record._asdict() for record in records]
    quick = {"val_set_size": 0, "batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "dtype": "float32"}
    quick["prompt_template"] = "alpaca_short"
    run = finetune(base_model=tiny_base, data=rows, output_dir=tmp_path / "run", **quick)
    merged = merge(run.adapter_dir, tmp_path / "merged")
    asked = {"instruction": "Name a cat.", "input": "Not Tom.", "max_new_tokens": 6}
    answers = [generate(path, **asked) for path in (run.adapter_dir, str(run.adapter_dir), merged)]
    answers += [run.generate(**asked), "".join(stream(merged, **asked)), generate(load(merged), **asked)]
    assert len(set(answers)) == 1
    assert isinstance(generate(tiny_base, **asked), str)
    assert load(tiny_base).contract is None
    assert load(tiny_base).encoder.template.name == "alpaca"
    assert load(tiny_base, prompt_template="alpaca_legacy").encoder.template.name == "alpaca_legacy"


def test_an_unfinished_run_is_no_model(tiny_base, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelError, match="has no config.json, so it is not a transformers model folder"):
        load(tmp_path)


def test_a_base_also_stops_where_its_own_settings_say(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}', encoding="utf-8")
    assert load(folder).stop_ids == [2, 7]


def test_the_demo_models_answers_end_by_themselves(demo_base):
    model = load(demo_base)
    calls = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    for instruction, word in (("What is the capital of France?", "Paris"), ("What is two plus three?", "")):
        calls.clear()
        answer = model.generate(instruction, "", Sampling(max_new_tokens=64))
        assert word in answer
        assert "<|" not in answer
        assert 1 < len(calls) < 64


def test_a_run_that_has_not_ended_has_nothing_to_use(tmp_path):
    contract = Contract("base", "-", {}, "-", prefix_ids=[1], eos_id=2, stop_ids=[2], pad_id=None)
    RunFile(contract, finished=False).write(tmp_path)
    with pytest.raises(AdapterError, match="holds a run that has not ended.*Continue it with the same command and"):
        load_local(tmp_path)
