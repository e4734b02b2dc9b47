"""A server on this machine, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import contextmanager

from alpaca_lora.serving.engine import Engine
from alpaca_lora.serving.listening import listen, server_of
from alpaca_lora.serving.server import make_app


@contextmanager
def serving(model, *, token=None, moderation=None, allow_host=(), **limits):
    """A server in a thread; yields its engine and port."""
    engine = Engine(model, **limits)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = server_of(make_app(engine, moderation), listening, token, allow_host=allow_host)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield engine, port
    finally:
        engine.close()
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()


def wait_for(condition):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def send(port, method, path, body=None, **headers):
    """A raw request; status and the JSON of the reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
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


def streamed(port, path, body):
    """A stream's raw bytes, and its events."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
    raw = connection.getresponse().read()
    connection.close()
    assert raw.endswith(b"\n\n")
    lines = raw.decode("ascii").split("\n\n")[:-1]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"], lines[-1]
