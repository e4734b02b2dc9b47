"""The server as its clients see it: the official client over loopback, and raw requests that try to get around it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from alpaca_lora import load, serve
from alpaca_lora.errors import ConfigError
from alpaca_lora.inference.engine import Engine
from alpaca_lora.inference.guard import Guard
from alpaca_lora.inference.moderation import Keywords
from alpaca_lora.inference.sampling import Sampling
from alpaca_lora.inference.serve import listen, serve_model
from alpaca_lora.inference.server import make_app

openai = pytest.importorskip("openai")
TOKEN = "a-token-of-enough-length"


@contextmanager
def serving(model, *, token=None, moderation=None, **limits):
    """A server in a thread; yields its engine and port."""
    engine = Engine(model, **limits)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    app = Guard(make_app(engine, moderation), host, port, token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield engine, port
    finally:
        engine.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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


def send(port, method, path, body=None, **headers):
    """A raw request; status and the JSON of the reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, content, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, dict(response.getheaders())


def chat(text="Hello", **rest):
    return {"model": "x", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **rest}


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
        ("chat/completions", b"\xff\xfe", 400, "the body is not valid JSON"),
        ("chat/completions", b"[]", 400, "the body: Input should be"),
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
            "messages.0.content",
        ),
        ("chat/completions", chat(temperature="hot"), 400, "temperature: Input should be a valid number"),
        ("chat/completions", chat(temperature=-1), 400, "temperature: -1.0 must be 0, or from 0.001 to 1000."),
        ("chat/completions", chat(max_tokens=-1), 400, "max_new_tokens: -1 must be at least 1."),
        ("chat/completions", chat(tools=[{"type": "function"}]), 400, "tools:"),
        ("chat/completions", chat(presence_penalty=1), 400, "presence_penalty: 1.0 is not supported by this server."),
        ("chat/completions", chat(response_format={"type": "json_object"}), 400, "response_format:"),
        ("chat/completions", chat(n=100), 400, "n: Input should be less than or equal to 8."),
        ("chat/completions", chat(temprature=1), 400, "temprature: is not known."),
        ("chat/completions", chat("word " * 3000), 400, "Shorten it."),
        ("chat/completions", chat("a\ud800"), 400, "the text holds half of a character"),
        ("completions", {"prompt": "a\ud800"}, 400, "the text holds half of a character"),
        ("chat/completions", chat(), 404, "model: 'x' is not served."),
        ("completions", {"prompt": [[1, 2, 3]]}, 400, "prompt"),
        ("completions", {"prompt": []}, 400, "prompt: must be a text, or a list of at least one."),
        ("completions", {"prompt": "a", "echo": True}, 400, "echo: True is not supported by this server."),
        ("embeddings", {"input": "a"}, 404, "POST /v1/embeddings: Not Found."),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(port, model, path, body, status, message):
    if isinstance(body, dict) and body.get("model") == "x" and status == 400:
        body = {**body, "model": model.name}
    found = send(port, "POST", f"/v1/{path}", body)
    assert found[0] == status, found
    assert message in found[1]["error"]["message"]


def test_other_methods(port):
    assert send(port, "GET", "/v1/completions")[0] == 405
    assert send(port, "GET", "/health") == (200, {"status": "ok"})


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


def test_a_large_body_is_refused(port):
    assert send(port, "POST", "/v1/completions", {"prompt": "a" * (1 << 20)})[0] == 413
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:  # no length told, and no end
        raw.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
        raw.sendall(b"Transfer-Encoding: chunked\r\n\r\n10000\r\n")
        assert b" 411 " in raw.recv(1000).split(b"\r\n")[0]


def test_a_token(model):
    with serving(model, token=TOKEN) as (_, port):
        assert send(port, "GET", "/v1/models")[0] == 401
        assert send(port, "GET", "/v1/models", Authorization="Bearer another-token-of-length")[0] == 401
        assert send(port, "GET", "/v1/models", Authorization=f"Bearer {TOKEN}")[0] == 200
        status, headers = send(port, "GET", f"/v1/models?token={TOKEN}&x=1")
        assert status == 303
        assert headers["location"] == "/v1/models?x=1"
        assert "HttpOnly; SameSite=Lax" in headers["set-cookie"]
        assert send(port, "GET", "/v1/models", Cookie=headers["set-cookie"].partition(";")[0])[0] == 200


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
    def never():
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port: {port} on 127.0.0.1 cannot be used .*0 takes one that is free"):
            serve_model(
                never,
                host="127.0.0.1",
                port=port,
                token=None,
                web=False,
                max_rows=1,
                max_waiting=1,
                moderation=None,
                ready=print,
            )


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


def test_closing_ends_answers(model):
    found = []
    with serving(model) as (engine, port):
        body = {"prompt": "a", "max_tokens": 1900}
        thread = threading.Thread(target=lambda: found.append(send(port, "POST", "/v1/completions", body)))
        thread.start()
        wait_for(lambda: engine._going)
    thread.join(20)
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


@pytest.mark.parametrize("name", ["max_rows", "max_waiting"])
def test_no_room_at_all_is_refused_before_anything_else(model, name):
    limits = {"max_rows": 1, "max_waiting": 1, name: 0}
    with pytest.raises(ConfigError, match=f"{name}: 0 must be at least 1."):
        serve(model, port=0, **limits)
