"""Log-probabilities are those of a plain forward pass, whoever else is answered and however tokens are chosen."""

from __future__ import annotations

import pytest
import torch

from alpaca_lora import load
from alpaca_lora.errors import ModelError
from alpaca_lora.generation import logprobs as module
from alpaca_lora.generation.batching import Answer, Batch
from alpaca_lora.generation.logprobs import LEAST, Logprobs
from alpaca_lora.generation.prompt_format import BASE
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.models.predictions import plain_head
from alpaca_lora.runs.adapter_files import save_adapter

GREEDY = Sampling(max_new_tokens=5)


@pytest.fixture(scope="module")
def model(tiny_llama):
    return tiny_llama(64, kv_heads=2, seed=3)


@pytest.fixture
def few_rows(monkeypatch):
    """Heads in chunks of three rows; a list of the rows each had."""
    seen, read_off = [], module._read_off

    def looking(logits_MV, *rest):
        seen.append(len(logits_MV))
        return read_off(logits_MV, *rest)

    monkeypatch.setattr(module, "logit_rows", lambda *_, **__: 3)
    monkeypatch.setattr(module, "_read_off", looking)
    return seen


def finish(batch):
    while batch.answers:
        batch.step()


def check(model, answer, made):
    """An answer's log-probabilities against transformers' own forward pass over all of it."""
    ids = [*answer.prompt, *made]
    with torch.no_grad():
        log_TV = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    kept, top = [*answer.logprobs.prompt, *answer.logprobs.chosen], answer.logprobs.top
    assert [one.token for one in kept] == ids[-len(kept) :]
    for place, one in zip(range(len(ids) - len(kept), len(ids)), kept, strict=True):
        if place == 0:
            assert one[1:] == (None, [])
            continue
        at_V = log_TV[place - 1]
        assert one.logprob == pytest.approx(at_V[one.token].item(), abs=1e-5)
        assert [value for _, value in one.top] == pytest.approx(at_V.topk(top).values.tolist(), abs=1e-5)
        assert all(value == pytest.approx(at_V[id].item(), abs=1e-5) for id, value in one.top)
        assert all(value == one.logprob for id, value in one.top if id == one.token)


@pytest.mark.parametrize("plain", [True, False])
def test_prompts_and_answers_of_any_length_together(model, few_rows, plain):
    batch = Batch(model, 0, lambda: plain_head(model) if plain else None)
    prompts = [[9, 8, 7], [5, *range(3, 40)], [4], [6, 6]]
    answers = [Answer(prompt, GREEDY, [], None, Logprobs(top, True)) for top, prompt in enumerate(prompts)]
    silent = Answer([7, 7, 7, 7], GREEDY, [])
    batch.join([answers[0], silent])
    batch.step()
    batch.join(answers[1:])  # between two tokens of others
    assert (max(few_rows) <= 3) is plain
    finish(batch)
    for answer in answers:
        assert len(answer.logprobs.chosen) == 5
        check(model, answer, answer.ids)
    assert silent.logprobs is None


def test_they_are_the_model_s_own_whatever_the_sampling(model):
    sampling = Sampling(max_new_tokens=8, temperature=3, top_k=30, top_p=0.9, repetition_penalty=2, seed=1)
    answer = Answer([9, 8, 7], sampling, [], None, Logprobs(2))
    batch = Batch(model, 0, lambda: pytest.fail("no prompt is asked for"))
    batch.join([answer])
    finish(batch)
    assert answer.logprobs.prompt == []
    check(model, answer, answer.ids)


def test_the_token_an_answer_stops_at_has_one(model):
    first = Answer([9, 8, 7], GREEDY, [])
    batch = Batch(model, 0)
    batch.join([first])
    stop = first.ids[0]
    answer = Answer([9, 8, 7], GREEDY, [stop], None, Logprobs(1))
    batch.join([answer])
    assert (answer.finish_reason, answer.ids) == ("stop", [])
    check(model, answer, [stop])


def test_an_answer_of_a_prompt_only_makes_no_token(model):
    answer = Answer([9, 8, 7], GREEDY, [], None, Logprobs(1, True), prompt_only=True)
    batch = Batch(model, 0)
    batch.join([answer])
    assert (answer.finish_reason, answer.ids, answer.logprobs.chosen) == ("length", [], [])
    check(model, answer, [])


def test_what_is_impossible_has_a_number_and_what_is_none_is_an_error(model, tiny_llama):
    found = module._read_off(torch.tensor([[0.0, float("-inf")]]), [1], 2)
    assert found[0].logprob == LEAST
    assert [id for id, _ in found[0].top] == [0, 1]
    broken = tiny_llama(64, seed=3)
    with torch.no_grad():
        broken.lm_head.weight[5] = torch.nan
    batch = Batch(broken, 0, lambda: None)
    with pytest.raises(ModelError, match="NaN or Inf"):
        batch.join([Answer([9, 8, 7], GREEDY, [], None, Logprobs(1, True))])


@pytest.mark.filterwarnings("ignore:.*has no alpaca_lora.json")
def test_an_adapter_has_its_own(tiny_base, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=64, target_modules=["v_proj"], init_lora_weights=False)
    save_adapter(get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config), tmp_path / "mine")
    local = load(tmp_path / "mine")
    prompt, scheduler = local.encoder.text_ids("Once upon a time"), local.scheduler()
    answers = {name: local.begin(prompt, GREEDY, name, logprobs=Logprobs(2, True)) for name in ("mine", BASE)}
    for name, answer in answers.items():
        scheduler.join(name, [answer])
    while len(scheduler):
        scheduler.step()
    for name, answer in answers.items():
        local.select(name)
        check(local.model, answer, answer.ids[: len(answer.logprobs.chosen)])
    own, base = (answers[name].logprobs.prompt[1].logprob for name in ("mine", BASE))
    assert own != pytest.approx(base, abs=1e-3)
