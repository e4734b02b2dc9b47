"""The page as a person sees it: a real browser, a real server, tiny models."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from alpaca_lora import finetune, load
from alpaca_lora.data.records import Record, RecordSet
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.errors import DataError
from alpaca_lora.generation.model import BASE, LocalModel
from alpaca_lora.generation.moderation import Keywords
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.prompts import Template
from alpaca_lora.serving.engine import Engine
from alpaca_lora.serving.listening import listen, server_of
from alpaca_lora.serving.server import make_app

pytest.importorskip("gradio")
from alpaca_lora.serving.page import _Page, _turns, add_page

TOKEN = "a-token-of-enough-length"
SCRIPT = "<script>document.title = 'taken'</script> <b>no</b> **stars** [x](javascript:alert(1))"
WARNING = "<b>Cats</b> may ![scratch](http://127.0.0.1:1/x.png)."
LESSONS = (Record("Say a script.", "", SCRIPT), Record("Name a cat.", "", "Tom"))


@contextmanager
def serving(model, *, token=None, moderation=None, **limits):
    """A server with the page, in a thread; yields its engine and port."""
    engine = Engine(model, **limits)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = add_page(make_app(engine, moderation), engine, moderation)
    server = server_of(app, listening, token)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield engine, port
    finally:
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()
        assert not engine._thread.is_alive()


@contextmanager
def opened(browser, port, path="/"):
    """The page in a new window, of which it is recorded what it asks for and complains about."""
    page = browser.new_page()
    asked, complaints, own = [], [], f"http://127.0.0.1:{port}/"
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(300_000)
    page.goto(own.removesuffix("/") + path)
    page.wait_for_selector("#ask")
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []
    assert complaints == []


def ask(page, instruction, most_tokens=None):
    if most_tokens is not None:
        page.fill("#tokens input[type=number]", str(most_tokens))
    page.fill("#instruction textarea", instruction)
    page.keyboard.press("Control+Enter")


def status(page, *parts):
    """Wait until the status has all of these; returns it."""
    page.wait_for_function(
        "parts => parts.every(part => document.querySelector('#status textarea').value.includes(part))", arg=parts
    )
    return page.input_value("#status textarea")


def text(page, field="answer"):
    return page.input_value(f"#{field} textarea")


def growing(page):
    status(page, "Generating.")
    page.wait_for_function("document.querySelector('#answer textarea').value.length > 400")


def wait_for(condition):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def crowd(port, count):
    """Others whose answers take long; they leave at the end."""
    body = json.dumps({"prompt": "a", "max_tokens": 1900, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(count):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            raw.sendall(head.encode() + body)
        yield


def idle(engine):
    return not engine._going and not engine._waiting


@pytest.fixture(scope="module")
def adapters(short_base_bpe, records, tmp_path_factory):
    """Folders of two trained adapters of one base."""
    rows = [record._asdict() for record in records]
    quick = {"val_set_size": 0, "batch_size": 4, "max_steps": 2, "learning_rate": 5e-2, "dtype": "float32"}
    first = tmp_path_factory.mktemp("adapters") / "first"
    finetune(base_model=short_base_bpe, data=rows, output_dir=first, prompt_template="alpaca_short", **quick)
    second = shutil.copytree(first, first.with_name("second"))
    return first, second


@pytest.fixture(scope="module")
def taught(tiny_llama, short_tokenizers):
    """A tiny model that knows two answers by heart, one of them full of markup."""
    tokenizer = short_tokenizers["bpe"]
    template = replace(Template.load("alpaca_short"), warning=WARNING)
    model, encoder = tiny_llama(len(tokenizer)), Encoder(tokenizer, template)
    examples = encoder.encode(RecordSet(list(LESSONS), [1, 2], "<lessons>"), 256)
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
    return LocalModel(model.eval(), encoder, [encoder.eos_id], name="taught")


def test_adapters(browser, adapters):
    """Streaming, stopping, comparing, and choosing an adapter."""
    model, sampling = load(adapters[0], also=[adapters[1]]), Sampling(max_new_tokens=300)
    expected = {name: model.generate("Name a cat.", "", sampling, name) for name in ("first", BASE)}
    assert expected["first"] != expected[BASE]
    with serving(model, max_rows=2, max_waiting=2) as (engine, port), opened(browser, port) as page:
        assert "makes up facts" in page.inner_text("#limits")
        assert page.input_value("label:has-text('Prompt template') >> textarea") == "alpaca_short"
        assert "Generated text, by first" in page.inner_text("#answer")
        # it grows, and ends
        page.evaluate(
            "() => { window.seen = []; const field = document.querySelector('#answer textarea');"
            "setInterval(() => { if (field.value !== seen.at(-1)) seen.push(field.value) }, 5) }"
        )
        ask(page, "Name a cat.", 300)
        assert status(page, "first: 300 tokens") == "first: 300 tokens, cut off at the limit of new tokens."
        assert text(page) == expected["first"]
        seen = [part for part in page.evaluate("() => seen") if part]
        assert len(seen) > 2
        assert all(expected["first"].startswith(part) for part in seen)
        # stop one midway
        ask(page, "Name a cat.", 1900)
        growing(page)
        assert not idle(engine)
        assert page.is_disabled("#ask")
        page.click("#stop")
        made = int(status(page, "first: ", " tokens, stopped.").split()[1])
        assert 40 < made < 1900
        wait_for(lambda: idle(engine))
        assert page.is_disabled("#stop")
        # beside the base
        assert not page.is_visible("#base-answer")
        page.check("#compare input")
        page.wait_for_selector("#base-answer")
        ask(page, "Name a cat.", 300)
        status(page, "first: 300 tokens", "base: 300 tokens")
        assert (text(page), text(page, "base-answer")) == (expected["first"], expected[BASE])
        # another adapter
        page.click("#adapter input")
        page.click("text=second")
        page.wait_for_function("document.querySelector('#answer').innerText.includes('by second')")
        ask(page, "Name a cat.", 3)
        status(page, "second: 3 tokens", "base: 3 tokens")
        # too many others
        with crowd(port, 2):
            wait_for(lambda: len(engine._going) == 2)
            with crowd(port, 2):
                wait_for(lambda: len(engine._waiting) == 2)
                ask(page, "Name a cat.")
                status(page, "No answer: 2 requests wait already; try again in a moment.")
        wait_for(lambda: idle(engine))
        # who leaves, leaves
        ask(page, "Name a cat.", 1900)
        growing(page)
        page.close()
        wait_for(lambda: idle(engine))


def test_text_that_looks_like_markup_is_text(browser, taught):
    assert taught.generate("Say a script.") == SCRIPT
    with serving(taught) as (_, port), opened(browser, port) as page:
        assert "No comparison with a base" in page.inner_text("body")
        assert not page.is_visible("#compare")
        assert page.input_value("#warning textarea") == WARNING
        title = page.title()
        ask(page, "Say a script.")
        assert "ended by itself" in status(page, "taught: ")
        assert text(page) == SCRIPT
        assert page.locator("#answer script, #answer b, #answer strong, #answer a").count() == 0
        assert page.title() == title
        assert page.locator("footer").count() == 0 or not page.inner_text("footer").strip()


def test_why_there_is_no_answer(browser, taught):
    words = Keywords(["forbidden", "Tom"])
    with serving(taught, token=TOKEN, moderation=words) as (_, port), opened(browser, port, f"/?token={TOKEN}") as page:
        for instruction, expected in (
            (" ", "No answer: write an instruction first."),
            ("A forbidden thing", "No answer: the instruction is refused by this server's moderation: it contains"),
            ("word " * 3000, "tokens; the model reads from 1 to 2047. Shorten it."),
            ("Name a cat.", "taught: not shown, this server's moderation refuses it: it contains 'Tom'."),
        ):
            ask(page, instruction)
            status(page, expected)
            assert text(page) == ""
        page.fill("#seed textarea", "one")
        ask(page, "Name a dog.", 4)
        status(page, "No answer: seed: 'one' must be a whole number, or empty.")
        page.fill("#seed textarea", "1")
        ask(page, "Say a script.", 4)
        status(page, "taught: 4 tokens, cut off at the limit of new tokens.")


def test_answers_grow_and_end_without_a_browser(taught):
    """What the buttons call, with the engine that the server has."""
    moderation = Keywords(["forbidden"])
    engine = Engine(taught)

    async def updates(page, instruction, *sampling):
        name = engine.model.name
        never_drawn = None  # which is what a browser sends of a hidden field
        answers = page.answers(
            SimpleNamespace(session_hash="one"), instruction, "", name, False, never_drawn, [], *sampling
        )
        return [update async for update in answers]

    def run(making):  # in a thread of its own: a browser's loop may run in this one
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, making).result()

    try:
        for page in (_Page(engine, None), _Page(engine, moderation)):
            page.drawn()
            made = run(updates(page, "Name a cat.", 16, 0, 1, 0, 1, ""))
            assert made[0][page.status] == "Waiting for its turn."
            assert made[-1][page.answer] == "Tom" and "tokens, ended by itself." in made[-1][page.status]
            shown = {update[page.answer] for update in made[1:-1]}
            assert shown == {""} if page.answering.moderation else all("Tom".startswith(text) for text in shown)
            for words, why in (
                (("", 16, 0, 1, 0, 1, ""), "No answer: write an instruction first."),
                (("Hi.", 16, 0, 1, 0, 1, "x"), "No answer: seed: 'x' must be a whole number, or empty."),
                (("Hi.", None, 0, 1, 0, 1, ""), "No answer: fill in each number beside the answer"),
            ):
                assert run(updates(page, *words))[-1][page.status].startswith(why)
        sent = [["What is forbidden?", "Nothing."]]  # by a browser, as if it had been answered
        asked = page.answering.queued("Hi.", "", [engine.model.name], Sampling(), "", _turns(sent))
        with pytest.raises(DataError, match="is refused by this server's moderation"):
            run(asked)
        refused = run(updates(page, "A forbidden word.", 16, 0, 1, 0, 1, ""))[-1]
        assert "the instruction is refused by this server's moderation" in refused[page.status]
    finally:
        engine.close()


def test_only_what_the_page_uses_is_reachable(taught):
    def get(path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request(method, path, b"{}" if method == "POST" else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response

    with serving(taught) as (_, port):
        assert "default-src 'self'" in get("/").headers["content-security-policy"]
        assert get("/v1/models").status == 200
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/hostname", "/gradio_api/proxy=http://a/"):
            assert get(path).status == 404
        for path in ("/gradio_api/upload", "/gradio_api/call/answers", "/gradio_api/run/answers"):
            assert get(path, "POST").status == 404


CHAT = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def test_several_turns(browser, tiny_base_bpe, tmp_path):
    """The model is told what was said before, until a new conversation begins."""
    (tmp_path / "mine.jinja").write_text(CHAT, encoding="utf-8")
    model = load(tiny_base_bpe, prompt_template=str(tmp_path / "mine.jinja"))
    short = Sampling(max_new_tokens=5)
    first = model.generate("Who are you?", sampling=short)
    assert first
    turns = [
        *({"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": first}),
        {"role": "user", "content": "And then?"},
    ]
    with serving(model) as (_, port), opened(browser, port) as page:
        ask(page, "Who are you?", most_tokens=5)
        status(page, "5 tokens, cut off")
        assert text(page) == first
        page.wait_for_function("document.querySelector('#history textarea').value.includes('Who are you?')")
        ask(page, "And then?")
        page.wait_for_function("document.querySelector('#history textarea').value.includes('And then?')")
        assert text(page) == model.generate(turns, sampling=short)
        page.click("#anew")
        page.wait_for_function("document.querySelector('#history textarea').value == ''")
        page.fill("#system textarea", "Be brief.")
        ask(page, "And then?")
        page.wait_for_function("document.querySelector('#history textarea').value.includes('And then?')")
        system = [{"role": "system", "content": "Be brief."}, turns[2]]
        assert text(page) == model.generate(system, sampling=short)
