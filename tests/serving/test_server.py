"""The server as its clients see it: the official client over loopback, and raw requests that try to get around it."""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from loopback import chat, send, serving, streamed, wait_for

import alpaca_lora
from alpaca_lora import load, serve
from alpaca_lora.errors import ConfigError
from alpaca_lora.generation.moderation import Keywords, ModerationEndpoint
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.serving.listening import listen, run, server_of
from alpaca_lora.serving.refusals import Refused

openai = pytest.importorskip("openai")
TOKEN = "a-token-of-enough-length"


@pytest.fixture(scope="module")
def model(tiny_base_bpe):
    return load(tiny_base_bpe, prompt_template="alpaca_short")


@pytest.fixture(scope="module")
def port(model):
    with serving(model) as (_, port):
        yield port


@pytest.fixture(scope="module")
def client(port):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


# What clients get


def test_models(client, model):
    names = [entry.id for entry in client.models.list()]
    assert names == [model.name]
    assert client.models.retrieve(names[0]).id == names[0]


def test_a_chat_is_the_template_of_the_last_user_turn(client, model):
    expected = model.generate("Name a cat.", "", Sampling(max_new_tokens=12))
    asked = {"model": model.name, "max_tokens": 12, "messages": [{"role": "user", "content": "Name a cat."}]}
    reply = client.chat.completions.create(**asked)
    assert reply.choices[0].message.content == expected
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.prompt_tokens == len(model.encoder.prompt_ids("Name a cat."))
    assert reply.usage.completion_tokens == 12
    streamed = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].delta.content or "" for part in streamed if part.choices) == expected
    assert [part.choices[0].finish_reason for part in streamed if part.choices][-1] == "length"
    assert streamed[-1].usage == reply.usage
    with_input = client.chat.completions.create(**asked, extra_body={"input": "Not Tom."})
    assert with_input.choices[0].message.content == model.generate(
        "Name a cat.", "Not Tom.", Sampling(max_new_tokens=12)
    )


def test_a_completion_goes_on_with_the_text_itself(client, model):
    prompts = ["Once upon", "A list: one,"]
    reply = client.completions.create(model=model.name, prompt=prompts, max_tokens=6, n=2)
    expected = [made.text for made in model.complete(prompts, Sampling(max_new_tokens=6))]
    assert [choice.text for choice in reply.choices] == [expected[0], expected[0], expected[1], expected[1]]
    parts = client.completions.create(model=model.name, prompt=prompts[0], max_tokens=6, stream=True)
    assert "".join(part.choices[0].text for part in parts) == expected[0]


def test_a_stop_text_ends_an_answer_and_is_not_shown(client, model):
    whole = model.complete(["Once upon"], Sampling(max_new_tokens=20))[0].text
    stop = whole[8:11]
    reply = client.completions.create(model=model.name, prompt="Once upon", max_tokens=20, stop=stop)
    assert reply.choices[0].text == whole[: whole.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    parts = client.completions.create(model=model.name, prompt="Once upon", max_tokens=20, stop=[stop], stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole[: whole.index(stop)]


def test_a_seed_repeats_whatever_else_is_asked(client, model):
    def ask():
        reply = client.completions.create(
            model=model.name, prompt="Once", max_tokens=8, temperature=1.5, seed=7, n=2, extra_body={"top_k": 100}
        )
        return [choice.text for choice in reply.choices]

    alone = ask()
    noise = threading.Thread(target=lambda: client.completions.create(model=model.name, prompt="A", max_tokens=60))
    noise.start()
    assert ask() == alone
    noise.join()
    assert alone[0] != alone[1]


# What cannot be honoured


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("chat/completions", b"{not json", 400, "the body is not valid JSON"),
        ("chat/completions", b"\xff\xfe", 400, "the body is empty; send a JSON object."),
        ("chat/completions", b"[]", 400, "the body: Input should be an object."),
        ("chat/completions", {}, 400, "messages: Field required"),
        ("chat/completions", chat(messages=[]), 400, "messages: the last one must be a user's, with a text."),
        (
            "chat/completions",
            chat(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]),
            400,
            "messages[0]: the model was trained with a template of one instruction and one input, which has no place "
            "for a system message.",
        ),
        (
            "chat/completions",
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            400,
            "messages[0].content: part 0 is 'image_url'; this server reads parts of the type 'text' only.",
        ),
        ("chat/completions", chat(temperature="hot"), 400, "temperature: Input should be a valid number"),
        ("chat/completions", chat(temperature=-1), 400, "temperature: -1.0 must be 0, or from 0.001 to 1000."),
        (
            "chat/completions",
            chat(max_tokens=0),
            400,
            "max_tokens: 0 must be at least 1, or -1 for as much as the model reads.",
        ),
        ("chat/completions", chat(tools=[{"type": "function"}]), 400, "tools:"),
        ("chat/completions", chat(presence_penalty=1), 400, "presence_penalty: 1 is not supported by this server."),
        ("chat/completions", chat(response_format={"type": "json_object"}), 400, "response_format:"),
        ("chat/completions", chat(n=100), 400, "n: Input should be less than or equal to 8."),
        ("chat/completions", chat(temprature=1), 400, "temprature: is not known."),
        ("chat/completions", chat("word " * 3000), 400, "Shorten it."),
        ("chat/completions", chat("a\ud800"), 400, "the text holds half of a character"),
        ("completions", {"prompt": "a\ud800"}, 400, "the text holds half of a character"),
        ("chat/completions", chat(), 404, "model: 'x' is not served."),
        (
            "completions",
            {"prompt": []},
            400,
            "prompt: [] must be a text, token ids, or a list of at least one of either.",
        ),
        ("embeddings", {"input": "a"}, 404, "POST /v1/embeddings: Not Found."),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(port, model, path, body, status, message):
    if isinstance(body, dict) and body.get("model") == "x" and status == 400:
        body = {**body, "model": model.name}
    found = send(port, "POST", f"/v1/{path}", body)
    assert found[0] == status, found
    assert message in found[1]["error"]["message"]
    if isinstance(body, dict) and path != "embeddings":
        assert found[1]["error"]["param"]


def test_a_refusal_has_one_mark_at_each_end():
    problems = ["n: 9 is too many.", "topp: is not known. Did you mean 'top_p'?", "seed: x"]
    assert Refused.because(problems).message == "n: 9 is too many; topp: is not known. Did you mean 'top_p'? seed: x."
    assert Refused.because(problems[:2]).message == "n: 9 is too many; topp: is not known. Did you mean 'top_p'?"
    assert Refused.because(problems[:1]).message == "n: 9 is too many."


def test_other_methods(port):
    assert send(port, "GET", "/v1/completions")[0] == 405
    assert send(port, "GET", "/health") == (200, {"status": "ok"})


def offs(text):
    return [dict([pair]) for pair in json.loads(text).items()]


SWITCHED_OFF = offs(
    """{"min_p": 0, "top_k": -1, "top_p": 1.0, "seed": -1, "stop": [""], "functions": null, "tools": [],
    "service_tier": "auto", "reasoning_effort": "none", "logit_bias": {}, "presence_penalty": 0.0, "n": 1, "user": "me",
    "store": false, "metadata": {"a": "b"}, "parallel_tool_calls": true, "response_format": {"type": "text"},
    "stream_options": null, "logprobs": false, "top_logprobs": 0, "typical_p": 1, "mirostat": 0, "mirostat_tau": 5,
    "repeat_penalty": 1.0, "repeat_last_n": 64, "tool_choice": "auto", "max_tokens": null, "stop_sequences": [],
    "n_predict": 6, "function_call": "none", "dry_multiplier": 0, "dry_base": 1.75, "cache_prompt": true,
    "skip_special_tokens": true, "ignore_eos": false, "best_of": 1, "grammar": "", "some_new_option": null}"""
)


@pytest.mark.parametrize("off", SWITCHED_OFF, ids=lambda off: next(iter(off)))
def test_what_changes_nothing_is_accepted(port, model, off):
    asked = {**chat("Name a cat.", max_tokens=6), "model": model.name}
    _, plain = send(port, "POST", "/v1/chat/completions", asked)
    if "max_tokens" in off:
        off = {**off, "max_completion_tokens": 6}
    status, body = send(port, "POST", "/v1/chat/completions", {**asked, **off})
    assert status == 200, body
    assert body["choices"] == plain["choices"]


@pytest.mark.parametrize(
    ("on", "param", "message"),
    [
        ({"logprobs": 0}, "logprobs", "logprobs: 0 must be true, with top_logprobs: 0."),
        ({"top_logprobs": 2}, "top_logprobs", "top_logprobs: goes with logprobs: true."),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "21 must be a number from 0 to 20."),
        ({"echo": True}, "echo", "echo: true belongs to /v1/completions. Leave it out, or send false."),
        (
            {"tool_choice": "required"},
            "tool_choice",
            'tool_choice: "required" is not supported by this server. Leave it out, or send "none" or "auto".',
        ),
        ({"functions": [{"name": "f"}]}, "functions", "is not supported"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "is not supported"),
        ({"min_p": 0.1}, "min_p", "min_p: 0.1 is not supported by this server. Leave it out, or send 0."),
        ({"repeat_last_n": 64, "repetition_penalty": 1.2}, "repeat_last_n", "64 is not supported"),
        (
            {"max_tokens": None, "max_completion_tokens": 0},
            "max_completion_tokens",
            "max_completion_tokens: 0 must be at least 1, or -1 for as much as the model reads.",
        ),
        (
            {"max_tokens": None, "n_predict": -3},
            "n_predict",
            "n_predict: -3 must be at least 1, or -1 for as much as the model reads.",
        ),
        ({"max_new_tokens": 5}, "max_new_tokens", "max_new_tokens: 5 contradicts max_tokens: 4."),
        ({"stop_sequences": "a", "max_tokens": "x"}, "max_tokens", "max_tokens: Input should be a valid integer."),
        ({"min_p": 1, "topp": 1}, "min_p", "; topp: is not known. Did you mean 'top_p'?"),
        ({"seed": -2}, "seed", "seed: -2 must be a whole number from 0"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages", "messages: the prompt has"),
        ({"a\ud800": 1}, "a\\ud800", "is not known."),
        ({"logprobs": 3}, "logprobs", "logprobs: 3 must be true, with top_logprobs: 3."),
        ({"logprobs": 3, "top_logprobs": 3}, "logprobs", "logprobs: 3 must be true, with top_logprobs: 3."),
        ({"logprobs": 2.5}, "logprobs", "logprobs: 2.5 must be true, with top_logprobs: a number from 0 to 20."),
        ({"top_logprobs": True, "logprobs": True}, "top_logprobs", "top_logprobs: true must be a number from 0 to 20."),
        ({"n_probs": 4}, "n_probs", "n_probs: 4 is not read. Send logprobs: true, with top_logprobs: 4."),
        (
            {"repeat_penalty": 1.2},
            "repeat_penalty",
            "repeat_penalty: 1.2 is not read. Send repetition_penalty, which looks at the whole text.",
        ),
        ({"stop": [1]}, "stop", "stop: 1 at [0] must be a text."),
        ({"stop": ["a", None]}, "stop", "stop: null at [1] must be a text."),
        (
            {"stop_sequences": {"a": 1}},
            "stop_sequences",
            'stop_sequences: {"a": 1} must be a text, or a list of texts.',
        ),
        ({"stream_options": 4}, "stream_options", "stream_options: Input should be an object."),
        ({"messages": ["Hi"]}, "messages[0]", "messages[0]: Input should be an object."),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            "messages[0].content: 5 must be a text, or a list of parts of the type 'text'.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content",
            'messages[0].content: part 0 has no text: {"type": "text"}.',
        ),
        ({"temprature": 1}, "temprature", "temprature: is not known. Did you mean 'temperature'?"),
        (
            {"topp": 1, "stop": 5},
            "topp",
            "topp: is not known. Did you mean 'top_p'? stop: 5 must be a text, or a list of texts.",
        ),
        ({"promt": 1}, "promt", "promt: is not known. Did you mean 'prompt'?"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_the_clients_own_name(port, model, on, param, message):
    status, body = send(port, "POST", "/v1/chat/completions", {**chat(), "model": model.name, **on})
    assert status == 400
    assert body["error"]["param"] == param
    assert message in body["error"]["message"]


MESSAGES = [{"role": "user", "content": "Hi"}]
TO_COMPLETIONS = "prompt: belongs to /v1/completions. This address, /v1/chat/completions, reads messages"
TO_CHATS = "messages: belongs to /v1/chat/completions. This address, /v1/completions, reads a prompt"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("chat/completions", {"prompt": "Hi"}, f"{TO_COMPLETIONS}."),
        ("chat/completions", {"prompt": "Hi", "messages": MESSAGES}, f"{TO_COMPLETIONS}."),
        ("chat/completions", {"prompt": "Hi", "stop": [1]}, f"{TO_COMPLETIONS}; stop: 1 at [0] must be a text."),
        ("chat/completions", {"prompt": None}, "messages: Field required."),
        ("completions", {"messages": MESSAGES}, f"{TO_CHATS}."),
        ("completions", {"messages": MESSAGES, "prompt": "Hi"}, f"{TO_CHATS}."),
        (
            "completions",
            {"input": "a", "prompt": "Hi"},
            "input: belongs to /v1/chat/completions. Write it into prompt.",
        ),
    ],
)
def test_what_belongs_to_the_other_address_is_sent_there(port, path, body, message):
    status, reply = send(port, "POST", f"/v1/{path}", body)
    assert (status, reply["error"]["message"]) == (400, message)


def test_no_limit_is_as_much_as_the_model_reads(client, model):
    prompt = len(model.encoder.prompt_ids("Name a cat."))
    messages = [{"role": "user", "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "a cat."}]}]
    reply = client.chat.completions.create(model=model.name, messages=messages, max_completion_tokens=-1)
    assert reply.usage.prompt_tokens == prompt
    assert reply.usage.total_tokens == 2048 or reply.choices[0].finish_reason == "stop"


def test_more_rows_than_may_ever_wait_are_no_matter_of_waiting(model):
    with serving(model, max_rows=2, max_waiting=3) as (_, port):
        for body, param in (({"prompt": ["a"] * 4}, "prompt"), ({"prompt": "a", "n": 4}, "n")):
            status, reply = send(port, "POST", "/v1/completions", {**body, "max_tokens": 1})
            assert (status, reply["error"]["param"]) == (400, param)
            assert "4 answers at once are more than may wait here, 3." in reply["error"]["message"]


# Streams


def test_a_stream_opens_with_the_role_and_says_it_once(port, client, model):
    expected = model.generate("Name a cat.", "", Sampling(max_new_tokens=12))
    asked = {**chat("Name a cat.", max_tokens=12, n=2), "model": model.name, "stream_options": {"include_usage": True}}
    events, last = streamed(port, "/v1/chat/completions", asked)
    assert last == "data: [DONE]"
    *parts, whole = events
    assert (whole["choices"], whole["usage"]["completion_tokens"]) == ([], 24)
    assert all(part["usage"] is None for part in parts)
    for index in (0, 1):
        choices = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        opening, *pieces, end = choices
        assert opening["delta"] == {"role": "assistant", "content": ""}
        assert all(set(piece["delta"]) == {"content"} and piece["delta"]["content"] for piece in pieces)
        assert "".join(piece["delta"]["content"] for piece in pieces) == expected
        assert (end["delta"], end["finish_reason"]) == ({}, "length")
        assert all(choice["finish_reason"] is None for choice in choices[:-1])
    stop = expected[-3:]  # the helper takes an answer that was cut off for an error
    expected = expected[: expected.index(stop)]
    helped = {"model": model.name, "messages": asked["messages"], "max_tokens": 12, "stop": stop}
    with client.chat.completions.stream(**helped) as stream:
        message = stream.get_final_completion().choices[0].message
    assert (message.role, message.content) == ("assistant", expected)


def test_an_empty_answer_has_a_role_too(port, model):
    first = model.generate("Name a cat.", "", Sampling(max_new_tokens=1))
    asked = {**chat("Name a cat."), "model": model.name, "stop": first}
    events, _ = streamed(port, "/v1/chat/completions", asked)
    assert [event["choices"][0]["delta"] for event in events] == [{"role": "assistant", "content": ""}, {}]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_streamed_completion_is_text_only(port, model):
    events, last = streamed(port, "/v1/completions", {"prompt": ["Once", "A list"], "max_tokens": 5})
    assert last == "data: [DONE]"
    expected = [made.text for made in model.complete(["Once", "A list"], Sampling(max_new_tokens=5))]
    choices = [event["choices"][0] for event in events]
    assert ["".join(one["text"] for one in choices if one["index"] == index) for index in (0, 1)] == expected
    assert "usage" not in events[0]


def test_a_character_of_several_tokens_comes_whole_and_in_ascii(port, model, monkeypatch):
    text = "naïve 日本 \u2028 🦙"
    ids = iter([*model.encoder.response_ids(text), model.encoder.eos_id])
    assert len(model.encoder.response_ids("🦙")) > 1
    monkeypatch.setattr("alpaca_lora.generation.sampler.Sampler.plain", False)
    monkeypatch.setattr("alpaca_lora.generation.sampler.Sampler.choose", lambda *_: next(ids))
    events, _ = streamed(port, "/v1/chat/completions", {**chat(max_tokens=50), "model": model.name})
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == text


def test_an_error_within_a_stream_ends_it_without_calling_it_done(model, monkeypatch):
    with serving(model) as (engine, port):

        def broken(*arguments):
            raise MemoryError("no memory")

        monkeypatch.setattr(engine._scheduler, "join", broken)
        events, last = streamed(port, "/v1/chat/completions", {**chat(), "model": model.name})
        assert last != "data: [DONE]"
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        assert "no memory" in events[-1]["error"]["message"]
        with (
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client,
            pytest.raises(openai.APIError, match="no memory"),
        ):
            list(client.chat.completions.create(**{**chat(), "model": model.name}, stream=True))


# Who may ask


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_pages_of_other_sites_are_refused(port, headers):
    status, body = send(port, "POST", "/v1/completions", {"prompt": "a"}, **headers)
    assert status == 403
    assert "refused" in body["error"]["type"]


def test_the_servers_own_page_may_ask(port, model):
    own = f"http://127.0.0.1:{port}"
    assert send(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, Origin=own)[0] == 200
    assert send(port, "GET", "/v1/models", Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (
            {"Host": "box.example"},
            "Host: 'box.example' is not this server's own name, so the request is refused. If it is",
        ),
        ({"Host": "Box.example:9000"}, "start the server with --allow_host box.example."),
        ({"Host": "["}, "Host: '[' is not this server's own name"),
        ({"Host": "localhost@box.example"}, "is not this server's own name"),
        (
            {"Origin": "https://a.example"},
            "Origin: 'https://a.example' is another site's page, so the request is refused.",
        ),
        ({"Origin": "http://["}, "Origin: 'http://['"),
        ({"Origin": "null"}, "Origin: 'null'"),
        ({"Origin": "file://"}, "Origin: 'file://'"),
        (
            {"Host": "localhost:9000", "Origin": "http://localhost:9001"},
            "start the server with --allow_host localhost:9001.",
        ),
    ],
)
def test_a_refusal_says_whom_and_what_would_allow_it(port, headers, message):
    status, body = send(port, "POST", "/v1/completions", {"prompt": "a"}, **headers)
    assert status == 403
    assert message in body["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:9000", "Origin": "http://localhost:9000"},  # ssh -L 9000:localhost:8000
        {"Host": "127.0.0.1"},
        {"Host": "[::1]:9000", "Origin": "http://[::1]:9000"},
        {"Host": "box.example", "Origin": "https://box.example"},
        {"Host": "Box.example:443", "Origin": "https://box.example"},
        {"Host": "localhost:8000", "Origin": "https://box.example"},  # a proxy that writes its own Host
        {"Host": "a.example:81"},
    ],
)
def test_tunnels_and_allowed_names(model, headers):
    with serving(model, allow_host=["box.example", "a.example:81"]) as (_, port):
        assert send(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, **headers)[0] == 200
        for host in ("a.example:82", "b.box.example", "box.example.evil"):
            forged = {"X_Forwarded_Host": "box.example", "X_Forwarded_For": "127.0.0.1"}
            assert send(port, "GET", "/v1/models", Host=host, **forged)[0] == 403
            assert send(port, "GET", "/v1/models", Origin=f"https://{host}")[0] == 403


def test_an_allowed_name_without_a_token_is_warned_of():
    with pytest.warns(UserWarning, match="whoever reaches box.example can use this server"):
        listen("127.0.0.1", 0, None, ["box.example"]).close()
    with pytest.raises(ConfigError, match="allow_host: 'https://box.example' is no host. Give a name such as"):
        listen("127.0.0.1", 0, None, ["https://box.example"])


# What a body may be


def speak(port, text, *more):
    """What a raw client gets: sent in one piece, then the rest; its replies, split into status and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as raw:
        raw.sendall(text.replace("HOST", f"Host: 127.0.0.1:{port}").replace("\n", "\r\n").encode())
        for part in more:
            raw.sendall(part)
        reply = http.client.HTTPResponse(raw)
        reply.begin()
        return reply.status, json.loads(reply.read())


ASKED = b'{"prompt": "a", "max_tokens": 2}'
HEAD = "POST /v1/completions HTTP/1.1\nHOST\nContent-Type: application/json\n"


def chunks(content, size=7):
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


@pytest.mark.parametrize(
    ("head", "body"),
    [
        # what Java's HttpClient sends
        (
            "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAEAAEAAAAIAAAAB\nContent-Length: 32",
            ASKED,
        ),
        ("Connection: Upgrade\nUpgrade: websocket\nContent-Length: 32", ASKED),
        ("Connection: Upgrade\nUpgrade: h2c\nTransfer-Encoding: chunked", chunks(ASKED)),
        ("Transfer-Encoding: chunked", chunks(ASKED)),
        ("Transfer-Encoding: chunked", chunks(ASKED, 1)),
        ("Content-Encoding: identity\nContent-Length: 32", ASKED),
        ("Accept: text/plain\nContent-Length: 32", ASKED),
    ],
)
def test_bodies_arrive_however_they_are_sent(port, head, body):
    for parts in ([body], [body[:9], body[9:]]):
        status, reply = speak(port, f"{HEAD}{head}\n\n", *parts)
        assert status == 200, reply
        assert reply["usage"]["completion_tokens"] == 2


def test_httptools_beside_uvicorn_changes_nothing():
    with listen("127.0.0.1", 0) as listening:
        config = server_of(lambda *_: None, listening).config
        config.load()
    assert config.http_protocol_class.__module__ == "uvicorn.protocols.http.h11_impl"
    assert config.ws_protocol_class is None


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"\xef\xbb\xbf" + ASKED, {}, 200, None),
        (ASKED.decode().encode("utf-16"), {}, 200, None),
        (ASKED, {"Content-Type": "application/json; charset=utf-8"}, 200, None),
        (ASKED, {"Content-Type": "application/vnd.api+json"}, 200, None),
        (ASKED, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "Send 'Content-Type: application/json'."),
        (ASKED, {"Content-Type": "text/plain"}, 415, "Content-Type: 'text/plain' is not read by this server."),
        (gzip.compress(ASKED, mtime=0), {"Content-Encoding": "gzip"}, 415, "Content-Encoding: 'gzip' is not read"),
        (b'{"prompt": "\xe9"}', {}, 400, "the body: byte 13 (0xe9) is not valid UTF-8. Send JSON in UTF-8."),
        (b"", {}, 400, "the body is empty; send a JSON object."),
        (b"{" * 50_000, {}, 400, "JSON"),
    ],
)
def test_encodings_of_bodies(port, content, headers, status, message):
    found, body = send(port, "POST", "/v1/completions", content, **headers)
    assert found == status, body
    assert message is None or message in body["error"]["message"]


def test_without_a_content_type_a_body_is_json(port):
    assert speak(port, "POST /v1/completions HTTP/1.1\nHOST\nContent-Length: 32\n\n", ASKED)[0] == 200


def test_a_large_body_is_refused(port):
    assert send(port, "POST", "/v1/completions", {"prompt": "a" * (1 << 20)})[0] == 413
    # no length told, and no end
    status, body = speak(
        port, f"{HEAD}Transfer-Encoding: chunked\n\n", b"100000\r\n" + b" " * (1 << 20) + b"\r\n1\r\n \r\n"
    )
    assert (status, body["error"]["message"]) == (413, "a request may have at most 1048576 bytes.")
    limit = ASKED + b" " * ((1 << 20) - len(ASKED))
    assert speak(port, f"{HEAD}Transfer-Encoding: chunked\n\n", chunks(limit, 60_000))[0] == 200


def test_a_client_that_waits_to_go_on_is_told_to(port):
    with socket.create_connection(("127.0.0.1", port), timeout=300) as raw:
        head = f"{HEAD}Expect: 100-continue\nContent-Length: 32\n\n".replace("HOST", f"Host: 127.0.0.1:{port}")
        raw.sendall(head.replace("\n", "\r\n").encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")
        raw.sendall(ASKED)
        assert b" 200 " in raw.recv(1000).split(b"\r\n")[0]
    assert speak(port, f"{HEAD}Expect: 100-continue\nContent-Length: 9999999\n\n")[0] == 413


def test_a_connection_goes_on_after_an_error(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    for content, status in (
        (b"{", 400),
        (b" " * ((1 << 20) + 1), 413),
        (gzip.compress(ASKED, mtime=0), 400),
        (ASKED, 200),
    ):
        connection.request("POST", "/v1/completions", content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_head_is_get_without_a_body(port):
    assert send(port, "HEAD", "/health")[0] == 200
    assert send(port, "HEAD", "/v1/models")[0] == 200
    assert send(port, "OPTIONS", "/v1/models")[0] == 405


def test_a_token(model):
    with serving(model, token=TOKEN) as (_, port):
        assert send(port, "GET", "/v1/models")[0] == 401
        assert send(port, "GET", "/v1/models", Authorization="Bearer another-token-of-length")[0] == 401
        assert send(port, "GET", "/v1/models", Authorization=f"Bearer {TOKEN}")[0] == 200
        status, headers = send(port, "GET", f"/v1/models?token={TOKEN}&x=1")
        assert status == 303
        assert headers["location"] == "/v1/models?x=1"
        assert "HttpOnly; SameSite=Lax" in headers["set-cookie"]
        cookie = headers["set-cookie"].partition(";")[0]
        for others in (
            cookie,
            f"a[b]=1; {cookie}",
            f'c={{"x": "y"}}; @; {cookie}',
            f"{cookie.partition('=')[0]}=old; {cookie}",
        ):
            assert send(port, "GET", "/v1/models", Cookie=others)[0] == 200
        assert send(port, "GET", "/v1/models", Cookie=f"other={TOKEN}")[0] == 401
        for path, place in (
            (f"/a%0d%0aX:%201?token={TOKEN}", "/a%0D%0AX%3A%201"),
            (f"/%e6%97%a5?x=%ff&token={TOKEN}&y=", "/%E6%97%A5?x=%ff&y="),
            (f"//box.example/?token={TOKEN}", "/"),
            (f"http://box.example/?token={TOKEN}", "/"),
            (f"/\\\\box.example?token={TOKEN}", "/%5C%5Cbox.example"),
        ):
            status, headers = send(port, "GET", path, Host=f"127.0.0.1:{port}")
            assert (status, headers["location"]) == (303, place)


@pytest.mark.parametrize(
    ("host", "token", "message"),
    [
        ("0.0.0.0", None, "host: '0.0.0.0' can be reached from other machines, so a token is needed"),
        ("0.0.0.0", "short", "token: must have at least 16 characters"),
        ("::", None, "so a token is needed"),
    ],
)
def test_another_machine_needs_a_token(host, token, message):
    with pytest.raises(ConfigError, match=message):
        listen(host, 0, token)


def test_a_taken_port_is_told_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port: {port} on 127.0.0.1 cannot be used .*0 takes one that is free"):
            alpaca_lora.serve("nowhere", port=port)  # there is no such model


# Many at once


def test_a_full_queue_is_told_and_nothing_else_fails(model):
    with serving(model, max_rows=2, max_waiting=2) as (_, port):
        statuses, body = [], {"prompt": "a", "max_tokens": 200}
        threads = [
            threading.Thread(target=lambda: statuses.append(send(port, "POST", "/v1/completions", body)[0]))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 2  # those that may wait; more if the engine has taken some by then


def test_clients_that_leave_free_their_places(model):
    with serving(model, max_rows=2, max_waiting=8) as (engine, port):
        body = json.dumps({"prompt": "a", "max_tokens": 1900, "stream": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
        for stream in (True, False):
            content = body if stream else body.replace(b"true", b"null")
            request = (head + "Content-Type: application/json\r\n\r\n").encode() + content
            sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
            for raw in sockets:
                raw.sendall(request)
            wait_for(lambda: len(engine._going) + len(engine._waiting) == 3)
            for raw in sockets:
                raw.close()
            wait_for(lambda: not engine._going and not engine._waiting)
        assert send(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200


def test_others_are_answered_while_a_long_prompt_is_tokenised(model, monkeypatch):
    text_ids, going_on = model.encoder.text_ids, threading.Event()

    def slow(text):
        if text == "long":
            assert going_on.wait(20)
        return text_ids(text)

    monkeypatch.setattr(model.encoder, "text_ids", slow)
    with serving(model) as (_, port):
        found = []
        body = {"prompt": "long", "max_tokens": 1}
        thread = threading.Thread(target=lambda: found.append(send(port, "POST", "/v1/completions", body)[0]))
        thread.start()
        assert send(port, "POST", "/v1/completions", {"prompt": "short", "max_tokens": 2})[0] == 200
        assert found == []
        going_on.set()
        thread.join(300)
        assert found == [200]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_answers_without_a_traceback(tiny_base_bpe):
    command = [sys.executable, "-m", "alpaca_lora", "serve", str(tiny_base_bpe), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline().split(":")[2].split("/")[0])
            asked = json.dumps({"prompt": ["a"] * 32, "max_tokens": -1, "stream": True})
            with socket.create_connection(("127.0.0.1", port), timeout=600) as raw:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n"
                raw.sendall(head.encode() + asked.encode())
                assert b"data: " in raw.recv(4000) + raw.recv(4000)
                server.send_signal(signal.SIGINT)
                time.sleep(0.3)
                server.send_signal(signal.SIGINT)
                raw.settimeout(300)
                stream = b""
                while part := raw.recv(1 << 16):
                    stream += part
            assert b"the server is shutting down" in stream
            _, complaints = server.communicate(timeout=600)
        finally:
            server.kill()
    assert (server.returncode, "Traceback" in complaints) == (0, False), complaints


def test_closing_ends_answers(model):
    found = []
    with serving(model) as (engine, port):
        body = {"prompt": "a", "max_tokens": 1900}
        thread = threading.Thread(target=lambda: found.append(send(port, "POST", "/v1/completions", body)))
        thread.start()
        wait_for(lambda: engine._going)
    thread.join(300)
    assert found[0][0] == 500
    assert found[0][1]["error"]["message"] == "no answer: the server is shutting down"


def test_an_answer_that_fails_is_told_and_the_next_works(model, monkeypatch):
    with serving(model) as (engine, port):
        join = engine._scheduler.join

        def broken(*arguments):
            monkeypatch.setattr(engine._scheduler, "join", join)
            raise MemoryError("no memory")

        monkeypatch.setattr(engine._scheduler, "join", broken)
        status, body = send(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})
        assert (status, body["error"]["type"]) == (500, "server_error")
        assert "no memory" in body["error"]["message"]
        assert send(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200


# Moderation


def test_moderation_looks_before_and_after(model):
    answer = model.generate("Name a cat.", "", Sampling(max_new_tokens=12))
    words = Keywords(["forbidden"])
    with serving(model, moderation=lambda text: "no" if text == answer else words(text)) as (_, port):
        status, body = send(port, "POST", "/v1/chat/completions", {**chat("A FORBIDDEN thing"), "model": None})
        assert status == 400
        assert "moderation: it contains 'forbidden'" in body["error"]["message"]
        asked = {**chat("Name a cat.", max_tokens=12), "model": None}
        status, body = send(port, "POST", "/v1/chat/completions", asked)
        assert body["choices"][0]["finish_reason"] == "content_filter"
        assert body["choices"][0]["message"]["content"] == ""
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
            parts = list(client.chat.completions.create(**{**asked, "model": model.name}, stream=True))
        assert all(not part.choices[0].delta.content for part in parts)
        assert parts[-1].choices[0].finish_reason == "content_filter"


def test_a_moderation_that_fails_refuses(model):
    def broken(text):
        raise RuntimeError("a secret reason")

    with serving(model, moderation=broken) as (_, port):
        status, body = send(port, "POST", "/v1/completions", {"prompt": "a"})
        assert status == 400
        assert "moderation: the moderation failed." in body["error"]["message"]


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        ({"results": [{"flagged": False, "categories": {}}]}, 200, None),
        ({"results": [{"flagged": True, "categories": {"hate": True, "spam": False}}]}, 200, "it was flagged: hate"),
        ({"results": [{"flagged": False}, {"flagged": True}]}, 200, "it was flagged"),
        ({"results": [{"flagged": None}]}, 200, "not understood"),
        ({"results": [{"flagged": "no"}]}, 200, "not understood"),
        ({"results": [{}]}, 200, "not understood"),
        ({"results": []}, 200, "not understood"),
        ([], 200, "not understood"),
        ("<html>Log in</html>", 200, "not understood"),
        ({}, 307, "does not answer"),
        ({}, 404, "does not answer"),
    ],
)
def test_a_moderation_endpoint_lets_through_only_what_it_says_is_harmless(answer, status, expected):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if status == 307 and len(asked) == 1:
                self.send_header("Location", "/elsewhere")
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = ModerationEndpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")("text")
        server.shutdown()
    assert found is None if expected is None else expected in found
    assert set(asked) == {"/v1/moderations"}


@pytest.mark.parametrize("name", ["max_rows", "max_waiting"])
def test_no_room_at_all_is_refused_before_anything_else(model, name):
    limits = {"max_rows": 1, "max_waiting": 1, name: 0}
    with pytest.raises(ConfigError, match=f"{name}: 0 must be at least 1."):
        serve(model, port=0, **limits)


def test_sigterm_before_the_server_listens_for_it_stops_it_too(monkeypatch):
    uvicorn = pytest.importorskip("uvicorn")
    plain, before = uvicorn.Server.run, signal.getsignal(signal.SIGTERM)

    def told_early(self, sockets):
        signal.raise_signal(signal.SIGTERM)
        plain(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", told_early)

    async def app(scope, receive, send):
        raise AssertionError

    with listen("127.0.0.1", 0) as listening:
        run(app, listening)
    assert signal.getsignal(signal.SIGTERM) == before == signal.SIG_DFL


CHAT = (
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('a user speaks first') }}{% endif %}{{ bos_token }}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
TURNS = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "I am 3."},
    {"role": "user", "content": "And then?"},
]


def test_a_chat_template_gets_all_messages(tiny_base_bpe, tmp_path):
    (tmp_path / "mine.jinja").write_text(CHAT, encoding="utf-8")
    model, short = load(tiny_base_bpe, prompt_template=str(tmp_path / "mine.jinja")), Sampling(max_new_tokens=6)
    with (
        serving(model) as (_, port),
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client,
    ):
        made = client.chat.completions.with_raw_response.create(model=model.name, messages=TURNS, max_tokens=6)
        assert made.parse().choices[0].message.content == model.generate(TURNS, sampling=short)
        assert "x-alpaca-lora-note" not in made.headers
        system = [{"role": "system", "content": "Be brief."}, *TURNS]
        pieces = client.chat.completions.create(model=model.name, messages=system, max_tokens=6, stream=True)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == model.generate(system, sampling=short)
        with pytest.raises(openai.BadRequestError, match="refuses: a user speaks first"):
            client.chat.completions.create(model=model.name, messages=TURNS[1:], max_tokens=6)
        with pytest.raises(openai.BadRequestError, match="the last one must be a user's, with a text"):
            client.chat.completions.create(model=model.name, messages=TURNS[:2], max_tokens=6)
