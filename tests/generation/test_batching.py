"""Answers made together are the ones made alone: whoever joins, leaves, is cancelled, or speaks as another adapter."""

from __future__ import annotations

import random

import pytest
import torch

from alpaca_lora import load
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import AdapterError, ConfigError, DataError
from alpaca_lora.generation.batching import Answer, Batch
from alpaca_lora.generation.key_values import bytes_per_token
from alpaca_lora.generation.model import LocalModel
from alpaca_lora.generation.prompt_format import BASE
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.prompts import Template
from alpaca_lora.runs.adapter_files import save_adapter

WORDS = ["red", "green", "blue", "one", "two", "three", "cat", "dog", "bird", "sun", "moon", "star", "sea"]


@pytest.fixture(scope="module", params=[1, 2], ids=["", "grouped-query"])
def sharp(request, tiny_llama):
    """A tiny model whose choices are far apart, so that rounding decides none."""
    model = tiny_llama(64, kv_heads=4 // request.param, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def alone(model, prompt, limit, stops=(2,)):
    """What transformers' own generate gives."""
    out = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=limit, eos_token_id=list(stops), pad_token_id=0
    )
    new = out[0, len(prompt) :].tolist()
    return new[:-1] if new[-1] in stops else new


def prompts_of(seed, count):
    draw = random.Random(seed)
    return [[draw.randrange(3, 64) for _ in range(draw.randrange(1, 40))] for _ in range(count)]


def finish(batch, *answers):
    while not all(answer.finish_reason for answer in answers):
        batch.step()


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_join_and_leave_are_what_they_are_alone(sharp, seed):
    draw = random.Random(seed)
    prompts, batch = prompts_of(seed, 12), Batch(sharp, pad_id=0)
    limits = [draw.randrange(1, 40) for _ in prompts]
    stops = (2, 7, 11)
    answers = [Answer(prompt, Sampling(max_new_tokens=n), stops) for prompt, n in zip(prompts, limits, strict=True)]
    waiting = list(answers)
    while not all(answer.finish_reason for answer in answers):
        if waiting and draw.random() < 0.5:
            joining = waiting[: draw.randrange(1, 4)]
            waiting = waiting[len(joining) :]
            batch.join(joining)
        batch.step()
    expected = [alone(sharp, prompt, n, stops) for prompt, n in zip(prompts, limits, strict=True)]
    assert [answer.ids for answer in answers] == expected
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    batch.step()
    assert not batch.answers
    assert not batch.layers


def test_logits_of_a_padded_row_are_those_of_the_row_alone(sharp):
    """Float rounding is all that differs, also after long rows have left and columns were cut off."""
    seen = {}

    class Looking(Batch):
        def _forward(self, ids, mask_BT, layers):
            logits_BV = super()._forward(ids, mask_BT, layers)
            seen[len(seen)] = (mask_BT.shape, logits_BV)
            return logits_BV

    long, short = Answer([5] * 50, Sampling(max_new_tokens=3), []), Answer([9, 8, 7], Sampling(max_new_tokens=12), [])
    batch = Looking(sharp, pad_id=0)
    batch.join([long, short])
    finish(batch, long, short)
    assert seen[0][0] == (2, 50)
    assert seen[len(seen) - 1][0] == (1, 3 + 11)  # alone again, without padding
    for step, row in ((0, 1), (1, 1), (2, 1), (3, 0), (10, 0)):
        ids = torch.tensor([[9, 8, 7, *short.ids[:step]]])
        expected = sharp(ids).logits[0, -1]
        torch.testing.assert_close(seen[step][1][row], expected, rtol=1e-5, atol=1e-4)


def test_a_cancelled_row_leaves_and_the_others_go_on(sharp):
    first, second = (Answer(prompt, Sampling(max_new_tokens=20), [2]) for prompt in prompts_of(5, 2))
    batch = Batch(sharp, pad_id=0)
    batch.join([first, second])
    batch.step()
    first.cancel()
    finish(batch, second)
    assert first.finish_reason == "cancelled"
    assert len(first.ids) <= 2
    assert second.ids == alone(sharp, second.prompt, 20)


def test_a_row_samples_the_same_in_any_company(sharp):
    sampling = Sampling(max_new_tokens=15, temperature=1.0, top_k=20, top_p=0.9, repetition_penalty=1.2, seed=4)

    def made(count):
        answers = [Answer(prompt, sampling, []) for prompt in prompts_of(6, count)]
        batch = Batch(sharp, pad_id=0)
        batch.join(answers)
        finish(batch, *answers)
        return answers[0].ids

    assert made(1) == made(5)


def test_memory_of_a_token_is_that_of_its_keys_and_values(sharp):
    answer, batch = Answer([5] * 10, Sampling(max_new_tokens=1), []), Batch(sharp, pad_id=0)
    batch.join([answer])
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in batch.layers)
    assert held == 10 * bytes_per_token(sharp)


def test_room_is_bounded_by_rows_and_by_memory(sharp, bpe_tokenizer):
    local = LocalModel(sharp, Encoder(bpe_tokenizer, Template.load("alpaca")), [2])
    scheduler = local.scheduler(max_rows=4)
    answers = [Answer([5] * 10, Sampling(max_new_tokens=10), [2]) for _ in range(9)]
    assert scheduler.has_room(answers) == 4
    scheduler.cache_tokens = 50
    assert scheduler.has_room(answers) == 2
    scheduler.cache_tokens = 1
    assert scheduler.has_room(answers) == 1  # the first one always may
    scheduler.join("model", answers[:1])
    assert scheduler.has_room(answers[1:]) == 0


# Many instructions


@pytest.fixture(scope="module")
def local(tiny_base):
    return load(tiny_base, prompt_template="alpaca_short")


def requests_of(count):
    draw = random.Random(1)
    return [
        (" ".join(draw.choices(WORDS, k=draw.randrange(1, 30))), draw.choice(["", "some input"])) for _ in range(count)
    ]


def test_answers_come_in_the_order_of_the_requests(local):
    requests, sampling = requests_of(20), Sampling(max_new_tokens=12)
    together = local.answers(requests, sampling, max_rows=6)
    assert together == [local.generate(*request, sampling) for request in requests]
    assert local.answers([], sampling) == []


def test_a_prompt_longer_than_the_model_reads(local):
    with pytest.raises(DataError, match=r"the prompt has \d+ tokens; the model reads from 1 to 2047\. Shorten it\."):
        local.generate("word " * 3000)
    prompt = local.encoder.text_ids("word " * 1000)
    limit = 2048 - len(prompt)
    assert local.begin(prompt, Sampling(max_new_tokens=4000)).sampling.max_new_tokens == limit


# Several adapters


@pytest.fixture(scope="module")
def adapters(tiny_base, tmp_path_factory):
    """Folders of two adapters of one base, untrained but far from zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed, (name, r) in enumerate((("first", 4), ("second", 8))):
        torch.manual_seed(seed)
        targets = ["q_proj", "v_proj", "up_proj"]
        config = LoraConfig(
            r=r, lora_alpha=64, target_modules=targets, init_lora_weights=False, use_dora=name == "second"
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config)
        folders.append(tmp_path_factory.mktemp(name) / name)
        save_adapter(model, folders[-1])
    return folders


@pytest.mark.filterwarnings("ignore:.*has no alpaca_lora.json")
def test_adapters_on_one_base_answer_as_each_does_alone(adapters, tiny_base):
    requests, sampling = requests_of(4), Sampling(max_new_tokens=8)
    expected = {path.name: load(path).answers(requests, sampling) for path in adapters}
    expected[BASE] = load(tiny_base).answers(requests, sampling)
    assert len({tuple(answers) for answers in expected.values()}) == 3
    both = load(adapters[0], also=[adapters[1]])
    assert set(both.prompt_formats) == {"first", BASE, "second"}
    for name in ("second", "first", BASE, "second", BASE, "first"):
        assert both.answers(requests, sampling, name) == expected[name]
        assert "".join(both.stream(*requests[0], sampling, name)) == expected[name][0]
    # all at once, switched between tokens
    scheduler, prompts = both.scheduler(), [both.encoder.prompt_ids(*request) for request in requests]
    going = {name: [both.begin(prompt, sampling, name) for prompt in prompts] for name in expected}
    for name, answers in going.items():
        scheduler.join(name, answers)
    while len(scheduler):
        scheduler.step()
    for name, answers in going.items():
        assert [both.encoder.decode(answer.ids) for answer in answers] == expected[name]
    with pytest.raises(
        ConfigError, match=r"adapter: 'frist' is not loaded\. Did you mean 'first'\? Loaded: first, base"
    ):
        both.generate("Hi", adapter="frist")


@pytest.mark.filterwarnings("ignore:.*has no alpaca_lora.json")
def test_what_cannot_stand_beside_an_adapter(adapters, tiny_base):
    with pytest.raises(AdapterError, match="is no adapter, so no other adapters can stand beside it"):
        load(tiny_base, also=adapters)
    with pytest.raises(AdapterError, match="the name 'first' is taken by another adapter; rename the folder"):
        load(adapters[0], also=[adapters[0]])
    with pytest.raises(AdapterError, match="is not an adapter folder .*: a whole model, not an adapter"):
        load(adapters[0], also=[tiny_base])
