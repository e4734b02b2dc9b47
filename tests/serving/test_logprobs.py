"""Log-probabilities, echoed prompts and token ids, as clients of OpenAI's protocol read them."""

from __future__ import annotations

import pytest
import torch
from loopback import chat, send, serving, streamed

from alpaca_lora import load
from alpaca_lora.generation.model import LocalModel
from alpaca_lora.generation.sampling import Sampling

openai = pytest.importorskip("openai")
TEXT = "A list of naïve cats: 🦙, one"


@pytest.fixture(scope="module", params=["tiny_base_bpe", "tiny_base"])
def model(request):
    return load(request.getfixturevalue(request.param), prompt_template="alpaca_short")


@pytest.fixture(scope="module")
def port(model):
    with serving(model) as (_, port):
        yield port


@pytest.fixture(scope="module")
def client(port):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


def plain(model, ids):
    """Log-probabilities of each token but the first, by transformers' own forward pass, and whether it is likeliest."""
    with torch.no_grad():
        log_TV = model.model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    targets = torch.tensor(ids[1:])
    return log_TV.gather(1, targets[:, None])[:, 0].tolist(), (log_TV.argmax(-1) == targets).tolist()


def ask(port, **body):
    status, reply = send(port, "POST", "/v1/completions", body)
    assert status == 200, reply
    return reply


def test_what_lm_eval_asks_and_reads(port, model):
    """`local-completions` sums `token_logprobs[context:-1]`: a list without one token more than it sent is misread."""
    encoder = model.encoder
    prompts = [encoder.text_ids(text) for text in ("Once upon a time", TEXT, "B")]
    likeliest = model._complete([prompts[0]], Sampling(max_new_tokens=1), None, 1)
    prompts.append([*prompts[0], *encoder.response_ids(likeliest[0].text)])
    asked = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True, "model": model.name}
    reply = ask(port, prompt=prompts, **asked)
    for prompt, choice in zip(prompts, sorted(reply["choices"], key=lambda one: one["index"]), strict=True):
        found = choice["logprobs"]
        assert {len(part) for part in found.values()} == {len(prompt) + 1}
        expected, greedy = plain(model, prompt)
        for context in range(1, len(prompt)):
            own, top = found["token_logprobs"][context:-1], found["top_logprobs"][context:-1]
            assert own == pytest.approx(expected[context - 1 :], abs=1e-5)
            assert [one == max(most.values()) for one, most in zip(own, top, strict=True)] == greedy[context - 1 :]
        assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
    assert reply["usage"]["prompt_tokens"] == sum(map(len, prompts))


def test_a_stop_at_once_has_an_entry(model):
    prompt = model.encoder.text_ids("Once upon")
    with serving(model) as (_, port):
        first = ask(port, prompt=prompt, max_tokens=1, logprobs=1)["choices"][0]["logprobs"]
    answer = model.begin(prompt, Sampling(max_new_tokens=1))
    batch = model.batch()
    batch.join([answer])
    with serving(LocalModel(model.model, model.encoder, [answer.ids[0]])) as (_, port):
        choice = ask(port, prompt=prompt, max_tokens=1, logprobs=1, echo=True)["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert choice["text"] == "Once upon"
        assert len(choice["logprobs"]["tokens"]) == len(prompt) + 1
        assert choice["logprobs"]["token_logprobs"][-1] == pytest.approx(first["token_logprobs"][0], abs=1e-5)
        events, _ = streamed(port, "/v1/completions", {"prompt": prompt, "max_tokens": 1, "logprobs": 1, "echo": True})
        assert joined(events) == choice["logprobs"]


def joined(events):
    """The log-probabilities of a streamed completion."""
    pieces = [choice["logprobs"] for event in events for choice in event["choices"] if choice["logprobs"]]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return {name: [one for piece in pieces for one in piece[name]] for name in names}


def test_prompts_may_be_texts_or_ids(port, model):
    text, ids = TEXT, model.encoder.text_ids(TEXT)
    asked = {"max_tokens": 5, "logprobs": 2, "echo": True}
    expected = ask(port, prompt=text, **asked)["choices"]
    assert expected[0]["text"].startswith(text)
    for prompt in ([text], ids, [ids]):
        assert ask(port, prompt=prompt, **asked)["choices"] == expected
    mixed = ask(port, prompt=[ids, "Once"], **asked)["choices"]
    assert [choice["text"][:4] for choice in mixed] == [text[:4], "Once"]
    without = ask(port, prompt=ids, max_tokens=5)["choices"][0]
    assert (text + without["text"], without["logprobs"]) == (expected[0]["text"], None)


def test_each_token_has_its_place_in_the_text(port, model):
    choice = ask(port, prompt=TEXT, max_tokens=8, logprobs=0, echo=True)["choices"][0]
    tokens, offsets = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    ends = [*offsets[1:], len(choice["text"])]
    assert offsets == sorted(offsets)
    for token, start, end in zip(tokens, offsets, ends, strict=True):
        shown = choice["text"][start:end]
        if token.startswith("bytes:"):
            assert len(shown) <= 1
        elif token not in model.encoder.specials.texts:
            assert shown in (token, token.removeprefix(" "))  # SentencePiece puts a space in front of a text
    made = ask(port, prompt=TEXT, max_tokens=8, logprobs=0)["choices"][0]["logprobs"]
    assert made["text_offset"][0] == 0
    assert made["tokens"] == tokens[-len(made["tokens"]) :]
    assert all(len(top) == 1 for top in made["top_logprobs"])


def test_no_token_is_made_where_none_is_asked(port, model):
    reply = ask(port, prompt=[TEXT, "Once"], max_tokens=0, logprobs=1, echo=True)
    assert [choice["text"] for choice in reply["choices"]] == [TEXT, "Once"]
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"length"}
    assert len(reply["choices"][1]["logprobs"]["tokens"]) == len(model.encoder.text_ids("Once"))
    assert reply["usage"]["completion_tokens"] == 0
    assert ask(port, prompt=TEXT, max_tokens=0, echo=True)["choices"][0]["text"] == TEXT


def test_a_stream_is_the_whole_in_pieces(port):
    body = {"prompt": [TEXT, "Once"], "max_tokens": 12, "logprobs": 3, "echo": True, "n": 2, "seed": 1}
    whole = ask(port, **body, temperature=1)["choices"]
    events, last = streamed(port, "/v1/completions", {**body, "temperature": 1})
    assert last == "data: [DONE]"
    for index, expected in enumerate(whole):
        mine = [event for event in events if event["choices"][0]["index"] == index]
        assert "".join(event["choices"][0]["text"] for event in mine) == expected["text"]
        found = joined(mine)
        assert (found["tokens"], found["text_offset"]) == (
            expected["logprobs"]["tokens"],
            expected["logprobs"]["text_offset"],
        )
        assert found["token_logprobs"][1:] == pytest.approx(expected["logprobs"]["token_logprobs"][1:], abs=1e-4)


def test_nothing_is_told_of_what_a_stop_text_cuts_off(port):
    asked = {"prompt": "Once upon", "max_tokens": 20, "logprobs": 1}
    whole = ask(port, **asked)["choices"][0]
    stop = whole["text"][-3:]
    cut = ask(port, **asked, stop=stop)["choices"][0]
    length = whole["text"].index(stop)
    assert cut["text"] == whole["text"][:length]
    assert all(offset < length for offset in cut["logprobs"]["text_offset"])
    count = len(cut["logprobs"]["tokens"])
    assert cut["logprobs"]["tokens"] == whole["logprobs"]["tokens"][:count]
    assert [*whole["logprobs"]["text_offset"], length][count] >= length
    events, _ = streamed(port, "/v1/completions", {**asked, "stop": stop})
    assert joined(events)["tokens"] == cut["logprobs"]["tokens"]


def test_a_chat_s_content_token_by_token(client, model):
    asked = {"model": model.name, "messages": chat()["messages"], "max_tokens": 12, "temperature": 1, "seed": 3}
    choice = client.chat.completions.create(**asked, logprobs=True, top_logprobs=4).choices[0]
    content = choice.logprobs.content
    assert len(content) == 12
    assert b"".join(bytes(one.bytes) for one in content).decode(errors="replace") == choice.message.content
    ids = model.encoder.prompt_ids("Hello")
    with torch.no_grad():
        first_V = model.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
    expected = first_V.topk(4).values.tolist()
    assert [one.logprob for one in content[0].top_logprobs] == pytest.approx(expected, abs=1e-5)
    for one in content:
        assert len(one.top_logprobs) == 4
        values = [top.logprob for top in one.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert one.token.startswith("bytes:") or one.token.encode() == bytes(one.bytes)
    bare = client.chat.completions.create(**asked, logprobs=True).choices[0].logprobs.content
    assert [one.top_logprobs for one in bare] == [[]] * 12
    assert client.chat.completions.create(**asked).choices[0].logprobs is None
    parts = list(client.chat.completions.create(**asked, stream=True, logprobs=True, top_logprobs=4))
    pieces = [one for part in parts if part.choices[0].logprobs for one in part.choices[0].logprobs.content]
    assert [one.token for one in pieces] == [one.token for one in content]
    assert [len(one.top_logprobs) for one in pieces] == [4] * 12


def test_the_stream_helper_gathers_them(client, model, monkeypatch):
    text = "naïve 日本 🦙, it said"
    made = model.encoder.response_ids(text)
    ids = iter([*made, model.encoder.eos_id])
    monkeypatch.setattr("alpaca_lora.generation.sampler.Sampler.plain", False)
    monkeypatch.setattr("alpaca_lora.generation.sampler.Sampler.choose", lambda *_: next(ids))
    asked = {"model": model.name, "messages": chat()["messages"], "max_tokens": 50}
    with client.chat.completions.stream(**asked, logprobs=True, top_logprobs=1) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    told = [one for event in events if event.type == "logprobs.content.delta" for one in event.content]
    (done,) = [event for event in events if event.type == "logprobs.content.done"]
    assert final.message.content == text
    assert len(told) == len(made)
    for content in (told, done.content, final.logprobs.content):
        assert b"".join(bytes(one.bytes) for one in content) == text.encode()


def test_what_moderation_keeps_back_has_none(model):
    answer = model.generate("Hello", "", Sampling(max_new_tokens=6))
    with serving(model, moderation=lambda text: "no" if answer in text or "forbidden" in text else None) as (_, port):
        asked = {**chat(max_tokens=6), "model": None, "logprobs": True, "top_logprobs": 3}
        _, reply = send(port, "POST", "/v1/chat/completions", asked)
        assert reply["choices"][0]["finish_reason"] == "content_filter"
        assert reply["choices"][0]["logprobs"] is None
        events, _ = streamed(port, "/v1/chat/completions", asked)
        assert all(event["choices"][0]["logprobs"] is None for event in events)
        # ids are looked at as the text they stand for
        ids = model.encoder.text_ids("a forbidden thing")
        status, reply = send(port, "POST", "/v1/completions", {"prompt": [ids], "max_tokens": 0, "echo": True})
        assert (status, reply["error"]["code"]) == (400, "content_filter")
        shown = ask(port, prompt="Something", max_tokens=2, logprobs=1, echo=True)["choices"][0]
        assert len(shown["logprobs"]["tokens"]) == len(model.encoder.text_ids("Something")) + 2


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"prompt": [[]]}, "prompt", "prompt: [] at [0] must be a text, or a list of at least one token id."),
        ({"prompt": [1, "a"]}, "prompt", 'prompt: "a" at [1] must be a token id, a whole number from 0.'),
        ({"prompt": [1, -1]}, "prompt", "prompt: -1 at [1] must be a token id, a whole number from 0."),
        ({"prompt": ["a", [1, -1]]}, "prompt", "prompt: -1 at [1][1] must be a token id, a whole number from 0."),
        ({"prompt": ["a", 5]}, "prompt", "prompt: 5 at [1] must be a text, or a list of at least one token id."),
        (
            {"prompt": [True]},
            "prompt",
            "prompt: true at [0] must be a text, a token id, or a list of at least one token id.",
        ),
        ({"prompt": [[1, 2.0]]}, "prompt", "prompt: 2.0 at [0][1] must be a token id, a whole number from 0."),
        (
            {"prompt": ""},
            "prompt",
            'prompt: "" must be a text of at least one character, token ids, or a list of at least one of either.',
        ),
        ({"prompt": {"a": 1}}, "prompt", 'prompt: {"a": 1} must be a text, token ids, or a list'),
        ({"prompt": [5, 10**30]}, "prompt", "prompt: the token id 10000000000000000000 is beyond the"),
        ({"prompt": [5] * 3000}, "prompt", "prompt: the prompt has 3000 tokens; the model reads from 1 to 2047"),
        (
            {"prompt": [[5] * 2000] * 60, "logprobs": 20, "echo": True},
            "logprobs",
            "120,000 tokens of prompts with 21 each",
        ),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "21 must be a number from 0 to 20."),
        ({"prompt": "a", "logprobs": True}, "logprobs", "true must be a number from 0 to 20."),
        ({"prompt": "a", "echo": 1}, "echo", "should be a valid boolean"),
        (
            {"prompt": "a", "max_tokens": 0},
            "max_tokens",
            "max_tokens: 0 needs echo: true. Without it, send at least 1, or -1 for as much as the model reads.",
        ),
        (
            {"prompt": "a", "max_tokens": -2},
            "max_tokens",
            "max_tokens: -2 must be at least 1, or -1 for as much as the model reads.",
        ),
        (
            {"prompt": "a", "max_tokens": -2, "echo": True},
            "max_tokens",
            "max_tokens: -2 must be at least 1, or -1 for as much as the model reads.",
        ),
        (
            {"prompt": "a", "top_logprobs": 2},
            "top_logprobs",
            "top_logprobs: 2 belongs to /v1/chat/completions. Send logprobs: 2.",
        ),
        ({"prompt": "a", "top_logprobs": True}, "top_logprobs", "Send logprobs: a number from 0 to 20."),
        ({"prompt": "a", "n_probs": 2}, "n_probs", "n_probs: 2 is not read. Send logprobs: 2."),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(port, body, param, message):
    status, reply = send(port, "POST", "/v1/completions", body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert message in reply["error"]["message"]
