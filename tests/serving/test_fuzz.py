"""What no client should send, by seeded mutation: each gets an answer or an error of the protocol, and soon."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from contextlib import contextmanager

import pytest

from alpaca_lora import load
from alpaca_lora.serving.engine import Engine
from alpaca_lora.serving.listening import listen, server_of
from alpaca_lora.serving.server import make_app

pytest.importorskip("fastapi")
TOKEN = "a-token-of-enough-length"
CHAT = {
    "model": "",
    "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}],
    "max_tokens": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "seed": 1,
    "stop": ["x"],
    "n": 1,
    "stream": False,
    "stream_options": {"include_usage": True},
    "logit_bias": {},
    "tools": [],
    "response_format": {"type": "text"},
    "input": "",
    "user": "me",
    "logprobs": True,
    "top_logprobs": 2,
}
_CHAT_ONLY = ("messages", "input", "logprobs", "top_logprobs")
COMPLETION = {
    **{key: value for key, value in CHAT.items() if key not in _CHAT_ONLY},
    "prompt": ["Once", [5, 6]],
    "logprobs": 1,
    "echo": True,
}
ODD = (
    *("null", "true", "0", "-1", "1.5", '""', '"text"', "[]", "{}", "NaN", "-Infinity", "1e999", "-0.0", "1e308"),
    *("9" * 5_000, "9" * 400, "1" + "0" * 25, '"\\ud800"', '"\\u0000\\u202e"', '"' + "x" * 10_000 + '"'),
    *('{"a": {"b": {"c": []}}}', "[[[[[]]]]]", "[" * 900 + "]" * 900, "[" * 90_000 + "]" * 90_000),
    *('{"type": "json_object"}', "[1, 2]", '[{"type": "image_url"}]', '[{"type": "text"}]', '[["a"]]', '"assistant"'),
)


@pytest.fixture(scope="module")
def model(tiny_base_bpe):
    return load(tiny_base_bpe, prompt_template="alpaca_short")


@contextmanager
def serving(model, token=None):
    engine = Engine(model, max_waiting=8)
    listening = listen("127.0.0.1", 0, token)
    server = server_of(make_app(engine), listening, token)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        engine.close()
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()


def said(port, request):
    """Status, headers and body of the reply to a request as it is; None where the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(request)
        reply = bytearray()
        while piece := connection.recv(1 << 16):
            reply += piece
    head, _, body = bytes(reply).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, body


def request(body, path="/v1/chat/completions", method="POST", **headers):
    headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": len(body), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return f"{method} {path} HTTP/1.1\r\n".encode() + "\r\n".join([*lines, "connection: close", "", ""]).encode() + body


def written(value, rng, at):
    """JSON text of a value, in which one place, the `at`-th of a walk, says something odd."""
    count = -1

    def walk(part):
        nonlocal count
        count += 1
        if count == at:
            return rng.choice(ODD)
        if isinstance(part, dict):
            return "{" + ", ".join(f"{json.dumps(key)}: {walk(own)}" for key, own in part.items()) + "}"
        if isinstance(part, list):
            return "[" + ", ".join(map(walk, part)) + "]"
        return json.dumps(part)

    return walk(value), count + 1


def check(reply, shown):
    status, headers, body = reply
    assert status == 200 or 400 <= status < 500, (status, body, shown)
    if status >= 400:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], shown
    elif headers["content-type"].startswith("text/event-stream"):
        assert body.rstrip().endswith(b"0") or b"[DONE]" in body, shown
    else:
        assert json.loads(body)["choices"], shown


@pytest.fixture(scope="module")
def port(model):
    with serving(model) as port:
        yield port


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)])
def test_bodies(port, path, body):
    rng = random.Random(path)
    _, places = written(body, rng, -1)
    for _ in range(75):
        text, _ = written(body, rng, rng.randrange(places))
        check(said(port, request(text.encode(), path)), text[:300])
    whole = json.dumps(body).encode()
    for _ in range(25):  # cut, doubled, or with a byte of its own
        at = rng.randrange(1, len(whole))
        torn = rng.choice((whole[:at], whole + whole[:at], whole[:at] + bytes([rng.randrange(256)]) + whole[at:]))
        check(said(port, request(torn, path)), torn)


def many(count, part):
    return b", ".join([part] * count)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' stands twice in one object"),
        (b'{"prompt": "a", "stream_options": {"a": 1, "a": 1}}', "the key 'a' stands twice in one object"),
        (b'{"prompt": ' + b"[" * 101 + b"]" * 101 + b"}", "the body: it is nested deeper than 100 levels"),
        (b'{"prompt": "a", "x": ' + b'{"a": ' * 100_000, "the body: it is nested deeper than 100 levels"),
        (b'{"prompt": ' + b"9" * 5_000 + b"}", "the body is not valid JSON|There was an error parsing the body"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature: nan must be|temperature: Input should be"),
        (b'{"prompt": "\\ud800", "max_tokens": 1}', "prompt: the text holds half of a character"),
        (b'{"prompt": [' + many(200_000, b'"a"') + b"]}", "200,000 answers at once are more than may wait here, 8"),
        (b'{"prompt": "a", "stop": [' + many(65, b'"a"') + b"]}", "stop: 65 texts are more than the 64"),
        (
            b"{" + b", ".join(b'"k%d": 1' % number for number in range(60_000)) + b', "prompt": "a"}',
            "the body: 59,992 more names are not known",
        ),
        (b'{"prompt": "' + b"{" * 900_000 + b'", "max_tokens": 1}', "prompt: the prompt has [0-9]+ tokens"),
    ],
)
def test_what_would_be_misread_or_take_long_is_refused(port, body, message):
    status, _, reply = said(port, request(body, "/v1/completions"))
    assert status == 400
    assert re.search(message, json.loads(reply)["error"]["message"])


@pytest.mark.parametrize("token", [None, TOKEN])
def test_heads(model, token):
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}).encode()
    origins = ("http://[", "http://[::1", "null", "http://127.0.0.1:99999", "://", "[", "http://" + "a" * 5_000)
    heads = [request(body, origin=origin) for origin in origins]
    heads += [request(body, host=host) for host in ("[", "", "127.0.0.1:abc", "127.0.0.1:99999999", "a b", "a@b")]
    heads += [request(body, content_type=kind) for kind in ("", "text/plain", "/", "multipart/form-data", "a/+json;;")]
    heads += [request(body, cookie=cookie) for cookie in ("a=" + "x" * 50_000, "=;;;=", "alpaca_lora_token=")]
    heads += [request(body, authorization=value) for value in ("Bearer", "Bearer  ", "Basic x", f"bearer {TOKEN}x")]
    paths = ("//", "/%00", "/%ff", "/..%2f..", "/v1/models/%ff", "*", "/?token=%C3%A9", f"/v1?token={TOKEN}x")
    heads += [request(body, path, method) for path in paths for method in ("GET", "POST", "DELETE", "OPTIONS", "FOO")]
    heads += [request(b"x" * 900_000)]
    with serving(model, token) as port:
        for head in heads:
            check(said(port, head), head[:200])
        # Whoever has the token stays on this server, and no line of its own comes into the reply.
        for path in (
            "//evil.example/",
            "/%2f%2fevil.example",
            "/\\evil.example",
            "http://evil.example/",
            "/%0d%0aX:%20y",
        ):
            status, headers, _ = said(port, request(b"", f"{path}?token={TOKEN}", "GET"))
            assert status == (303 if token else 404)
            assert "x" not in headers
            assert not token or re.fullmatch(r"/([^/\\].*)?", headers["location"])


def test_other_programs_cookies_lock_nobody_out(model):
    """Programs on 127.0.0.1 share their cookies, whatever their ports."""
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}).encode()
    with serving(model, TOKEN) as port:
        own = f"alpaca_lora_token_{port}={TOKEN}"
        for others in (
            "alpaca_lora_token=other",
            "alpaca_lora_token_1=other",
            'x="a;b',
            "bad cookie; =; \xff",
            own[:-1],
        ):
            for cookie in (f"{others}; {own}", f"{own}; {others}"):
                sent = request(body, cookie="COOKIE").replace(b"COOKIE", cookie.encode("latin-1"))
                status, _, _ = said(port, sent)
                assert status == 200, cookie
            assert said(port, request(body, cookie="C").replace(b"C", others.encode("latin-1")))[0] in (400, 401)


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "+5", "9" * 30, "3, 5"])
def test_what_is_no_http_is_refused(port, length):
    sent = request(b"{}", content_length=length)
    assert said(port, sent)[0] == 400
    check(said(port, request(b'{"prompt": "a", "max_tokens": 1}', "/v1/completions")), "the next")
