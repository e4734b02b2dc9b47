"""The client of OpenAI-compatible servers, against a server on loopback that behaves well and badly."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from alpaca_lora.errors import AlpacaLoraError, ConfigError
from alpaca_lora.generation.completion import Completion
from alpaca_lora.llm import client as module
from alpaca_lora.llm.budget import Budget, BudgetReached, Spending, Usage
from alpaca_lora.llm.client import RETRIES, Endpoint
from alpaca_lora.llm.endpoint_errors import retry_after_seconds

_PATH = Path(__file__).parents[1] / "selfinstruct" / "scripted_server.py"
_SPEC = importlib.util.spec_from_file_location("scripted_server", _PATH)
_server = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_server)
ScriptedServer = _server.ScriptedServer

KEY = "sk-do-not-tell-0123456789"
CAT = {"text": "A cat."}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)


def ask(server, prompt="Name a pet.", *, count=1, **settings):
    """The answers of one endpoint to the same prompt sent `count` times at once; an error is an answer, too."""
    call = {
        name: settings.pop(name) for name in ("max_new_tokens", "temperature", "stop", "on_attempt") if name in settings
    }

    async def run():
        async with Endpoint(server.url, "m", key=KEY, **settings) as made:
            asked = [made.complete(prompt, **call) for _ in range(count)]
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(run())


def problem(server, **settings):
    (error,) = ask(server, **settings)
    assert isinstance(error, AlpacaLoraError), error
    assert KEY not in "".join(traceback.format_exception(error))
    return str(error)


# Requests and answers


def test_chat_sends_messages_and_reads_the_answer():
    with ScriptedServer([CAT]) as server:
        (answer,) = ask(server, max_new_tokens=7, temperature=0.5, stop=("\n",))
    assert answer == Completion("A cat.", "stop", 3, 2)
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Name a pet."}],
        "max_tokens": 7,
        "temperature": 0.5,
        "stop": ["\n"],
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_messages_are_sent_as_they_are():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with ScriptedServer([CAT]) as server:
        ask(server, messages)
    assert server.bodies[0]["messages"] == messages


def test_completions_send_the_text_and_no_messages():
    with ScriptedServer(["truncated", CAT]) as server:
        (answer,) = ask(server, "### Task 1\nInstruction:", kind="completions")
        assert answer.finish_reason == "length" and "### Task 2" in answer.text
        assert server.bodies[0]["prompt"] == "### Task 1\nInstruction:"
        assert "takes a text, not messages" in problem(
            server, prompt=[{"role": "user", "content": "Hi"}], kind="completions"
        )


def test_a_server_that_does_not_count_is_taken_at_its_worst():
    spending = Spending()
    with ScriptedServer([CAT | {"usage": None}]) as server:
        ask(server, max_new_tokens=7, spending=spending)
    assert spending.spent == Usage(len("Name a pet.") + module.PROMPT_MARGIN, 7)


def test_the_newer_name_of_the_token_limit_is_found_out():
    refusal = {"error": {"message": "Use 'max_completion_tokens' instead.", "type": "x", "code": "x"}}
    with ScriptedServer(["400", CAT, CAT]) as server:
        server._refuse = lambda writer, status, message, headers=None: server._respond(writer, status, refusal)
        assert ask(server, count=1, max_new_tokens=7)[0].text == "A cat."
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 7]
    assert "max_tokens" not in server.bodies[1]


REFUSALS = {
    "OpenAI, limit": (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens",
    ),
    "without a hint": ("Unrecognized request argument supplied: max_tokens", None),
    "OpenAI, value": (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
        "temperature",
    ),
    "Azure": ("Unsupported parameter: 'temperature' is not supported with this model.", None),
    "Anthropic": ("`temperature` may only be set to 1 when thinking is enabled.", None),
    "more than 0": ("`temperature` must be strictly positive", None),
    "vLLM": ("[{'type': 'extra_forbidden', 'loc': ('body', 'stop'), 'msg': 'Extra inputs are not permitted'}]", None),
    "stop": ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
    "two at once": ("unknown fields: temperature, stop", None),
}


@pytest.mark.filterwarnings("ignore:.* refuses")
@pytest.mark.parametrize("status", ["400", "422"])
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_field_that_is_refused_is_renamed_or_left_out(kind, status):
    message, param = REFUSALS[kind]
    refusal = {"error": {"message": message, "param": param, "type": "invalid_request_error"}}
    gone = {name for name in ("max_tokens", "temperature", "stop") if name in message}
    with ScriptedServer([status, {"text": "A cat.\nA dog."}, {"text": "A cat.\nA dog."}]) as server:
        server._refuse = lambda writer, status, message, headers=None: server._respond(writer, status, refusal)

        async def run():
            async with Endpoint(server.url, "m", key=KEY) as made:
                return [await made.complete("Hi", max_new_tokens=7, stop=("\nA",)) for _ in range(2)]

        answers = asyncio.run(run())
    fields = {"max_tokens", "max_completion_tokens", "temperature", "stop"}
    first, *later = [body.keys() & fields for body in server.bodies]
    assert first == {"max_tokens", "temperature", "stop"}
    expected = (first - gone) | ({"max_completion_tokens"} if "max_tokens" in gone else set())
    assert later == [expected] * 2  # the second call asks without it at once
    assert [answer.sent.keys() for answer in answers] == [expected] * 2
    if "stop" in gone:
        assert [answer.text for answer in answers] == ["A cat."] * 2


@pytest.mark.filterwarnings("ignore:.* refuses")
def test_a_model_that_refuses_everything_is_asked_without_it():
    script = [*["400"] * 3, CAT]
    messages = [REFUSALS[kind] for kind in ("OpenAI, limit", "OpenAI, value", "stop")]
    with ScriptedServer(script) as server:

        def refuse(writer, status, message, headers=None):
            said, param = messages.pop(0)
            server._respond(writer, status, {"error": {"message": said, "param": param}})

        server._refuse = refuse
        (answer,) = ask(server, max_new_tokens=7, stop=("x",))
    assert answer.sent == {"max_completion_tokens": 7}


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 512. This model supports at most 256 completion tokens.",
        "temperature must be at most 2",
        "This model's maximum context length is 2048 tokens.",
    ],
)
def test_a_value_out_of_range_is_the_users_to_change(message):
    with ScriptedServer(["400"] * 9) as server:
        server._refuse = lambda writer, status, said, headers=None: server._respond(
            writer, status, {"error": {"message": message}}
        )
        assert message in problem(server, temperature=5.0)
        assert len(server.bodies) == 1


def message_of(**fields):
    return {"text": "", "choices": [{"message": fields, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": None, "reasoning_content": "Hm."}, "<think>\nHm."),
        ({"content": "", "reasoning": "Hm."}, "<think>\nHm."),
        ({"content": "A cat.", "reasoning_content": "Hm."}, "A cat."),
        ({"content": None, "refusal": "I may not."}, "I may not."),
        ({"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A cat."}]}, "A cat."),
        ({"content": None}, ""),
    ],
)
def test_thoughts_beside_the_answer_are_told_from_it(fields, text):
    with ScriptedServer([message_of(**fields)]) as server:
        assert ask(server)[0].text == text


@pytest.mark.parametrize(
    ("said", "read"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop"), (None, "stop")],
)
def test_why_an_answer_ended(said, read):
    choice = {"message": {"content": "A cat."}, "finish_reason": said}
    with ScriptedServer([{"text": "", "choices": [choice]}]) as server:
        assert ask(server)[0].finish_reason == read


@pytest.mark.parametrize("value", ["-5", "0", "1e999", "1e30", "null", '"12"', "true", "NaN"])
def test_a_count_that_cannot_be_is_taken_at_its_worst(value):
    raw = json.dumps({"choices": [{"message": {"content": "A cat."}, "finish_reason": "stop"}]})
    raw = raw[:-1] + f', "usage": {{"prompt_tokens": {value}, "completion_tokens": {value}}}}}'
    spending = Spending()
    with ScriptedServer([{"text": "", "raw": raw.encode()}]) as server:
        (answer,) = ask(server, max_new_tokens=7, spending=spending)
    assert answer.text == "A cat."
    assert spending.spent == Usage(len("Name a pet.") + module.PROMPT_MARGIN, 7) and spending.held == Usage()


# Attempts


@pytest.mark.parametrize("trouble", ["429", "500", "503", "cut", "hang"])
def test_trouble_that_passes_is_tried_again(trouble):
    seen = []
    spending = Spending()
    with ScriptedServer([trouble, CAT]) as server:
        (answer,) = ask(
            server, timeout_seconds=3.0, spending=spending, on_attempt=lambda event, worst: seen.append(event)
        )
    assert answer.text == "A cat."
    refused = trouble.isdigit()
    assert seen == (["sent", "refused", "sent"] if refused else ["sent", "sent"])
    assert (spending.lost == Usage()) == refused  # what had no answer may have been billed
    assert spending.held == Usage()
    assert spending.spent == Usage(3, 2)


def test_retry_after_is_waited_for():
    async def timed(server):
        async with Endpoint(server.url, "m") as made:
            started = asyncio.get_running_loop().time()
            await made.complete("Hi")
            return asyncio.get_running_loop().time() - started

    with ScriptedServer(["429", CAT]) as server:  # which asks for 0.3 s; otherwise it would be 0.01
        assert asyncio.run(timed(server)) >= 0.3


@pytest.mark.parametrize(
    ("value", "seconds"), [("2", 2), ("-1", 0), ("nan", 0), ("soon", 0), ("Thu, 01 Jan 1970 00:00:09 GMT", 0)]
)
def test_retry_after_is_read(value, seconds):
    assert retry_after_seconds({"retry-after": value}) == seconds


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.1)
    with ScriptedServer(["429"]) as server:
        assert "asks to wait 0 s, and at most 0.1 s are waited. Run again later." in problem(server)


def test_attempts_are_bounded():
    with ScriptedServer(["500"] * 20) as server:
        assert f"{RETRIES + 1} attempts failed, the last with HTTP 500" in problem(server)
    assert len(server.bodies) == RETRIES + 1


def test_nobody_there():
    with ScriptedServer() as server:
        pass
    spending = Spending()
    assert "attempts failed, the last with no connection" in problem(server, spending=spending)
    assert spending.lost == spending.held == Usage()  # nothing was sent


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("401", "HTTP 401. The key given is not accepted. Set the variable OPENAI_API_KEY"),
        ("403", "This key may not use model 'm'"),
        ("404", "There is no model 'm', no chat API for it, or base_url is not the API's address"),
        ("400", "HTTP 400: "),
        ("307", "HTTP 307, a redirect, which is not followed"),
    ],
)
def test_what_no_second_attempt_would_mend_is_explained_at_once(status, words):
    with ScriptedServer([status, CAT]) as server:  # which repeats the key in its messages
        assert words in problem(server)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "body", [b"{oops", b"\xff\xfe", b"[1]", b'{"choices": []}', b'{"choices": [{"message": {"content": [1]}}]}']
)
def test_another_kind_of_answer_is_explained(body, monkeypatch):
    spending = Spending()
    with ScriptedServer([{"text": "", "raw": body}]) as server:
        (error,) = ask(server, spending=spending)
    assert "not as an OpenAI-compatible server does. Check base_url" in str(error)
    assert error.this_request_only
    assert spending.lost.tokens > 0 == spending.held.tokens  # it may be billed


def test_a_used_up_quota_is_no_passing_trouble():
    refusal = {"error": {"message": "Pay first.", "type": "x", "code": "insufficient_quota"}}
    with ScriptedServer(["429", CAT]) as server:
        server._refuse = lambda writer, status, message, headers=None: server._respond(writer, status, refusal)
        assert "the quota is used up: " in problem(server)
    assert len(server.bodies) == 1


# Concurrency and budget


def test_concurrency_is_reached_and_never_exceeded():
    script = [CAT, "429", "500", CAT, "hang", "cut"] * 3 + [CAT] * 30
    with ScriptedServer(script) as server:
        answers = ask(server, count=36, concurrency=5, timeout_seconds=3.0)
    assert [answer.text for answer in answers] == ["A cat."] * 36
    assert server.most_at_once == 5


def test_a_budget_is_never_passed():
    worst = len("Name a pet.") + module.PROMPT_MARGIN + 10
    budget = Budget(token_budget=3 * worst + 20)
    spending = Spending(budget)
    with ScriptedServer([CAT, "hang", "cut"] + [CAT] * 90) as server:
        answers = ask(server, count=80, concurrency=4, timeout_seconds=3.0, max_new_tokens=10, spending=spending)
    over = [answer for answer in answers if isinstance(answer, BudgetReached)]
    assert over and "token_budget: up to " in str(over[0]) and f"one more request could take {worst}" in str(over[0])
    assert server.prompt_tokens + server.completion_tokens <= spending.spent.tokens + spending.lost.tokens
    assert spending.spent.tokens + spending.lost.tokens <= budget.token_budget
    assert spending.held == Usage()


def test_money_is_counted_and_limited():
    spending = Spending(Budget(max_cost=0.001, price_in=1, price_out=10))
    spending.hold(Usage(500, 45))
    with pytest.raises(BudgetReached, match=r"up to 0.0000 of 0.001 is spent, 0.0009 held .* could cost 0.0001"):
        spending.hold(Usage(0, 10))
    spending.settle(Usage(500, 45), Usage(400, 40))
    spending.hold(Usage(100, 10))
    spending.lose(Usage(100, 10))
    assert spending.budget.cost(spending.spent + spending.lost) == pytest.approx(0.001)
    with pytest.raises(BudgetReached):
        spending.hold(Usage(1, 0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_cost": 1}, "max_cost: 1 needs price_in and price_out"),
        ({"price_in": 1}, "give both"),
        ({"token_budget": -5}, "token_budget: -5 must be a number of at least 0"),
        ({"max_cost": float("nan"), "price_in": 1, "price_out": 1}, "max_cost: nan"),
    ],
)
def test_wrong_budgets(values, words):
    with pytest.raises(ConfigError, match=words):
        Budget(**values)


# Settings and the key


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "localhost:8000"}, "base_url: 'localhost:8000' is no address of an API"),
        ({"url": "https://me:secret@x.example/v1"}, "holds a name, a password or a query"),
        ({"key": "sk-a\n"}, "holds a space, a line break"),
        ({"kind": "chats"}, "kind: 'chats' must be chat or completions"),
        ({"concurrency": 0}, "concurrency: 0 must be from 1 to 1000"),
        ({"timeout_seconds": 0}, "timeout_seconds: 0 must be above 0"),
    ],
)
def test_wrong_settings(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Endpoint(**{"url": "http://127.0.0.1:1/v1", "model": "m", **values})
    assert "secret" not in str(caught.value) and "sk-a" not in str(caught.value)


def test_the_key_is_in_no_repr_and_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(["500", "cut", CAT]) as server:
        ask(server)
        shown = repr(Endpoint(server.url, "m", key=KEY))
    assert caplog.records  # the libraries below do log
    assert KEY not in caplog.text and KEY not in shown


def test_importing_the_client_loads_no_torch():
    program = "import sys, alpaca_lora.llm.client; print({'torch', 'transformers', 'openai'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
