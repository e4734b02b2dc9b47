"""Programs that people point at the server: LangChain itself, and the requests of Open WebUI and SillyTavern."""

from __future__ import annotations

import pytest
from loopback import send, serving, streamed

from alpaca_lora import load
from alpaca_lora.generation.sampling import Sampling

CHAT = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "I am 3."},
    {"role": "user", "content": "And then?"},
]


@pytest.fixture(scope="module")
def model(tiny_base_bpe, tmp_path_factory):
    """With a chat template: these programs send whole conversations."""
    path = tmp_path_factory.mktemp("template") / "mine.jinja"
    path.write_text(CHAT, encoding="utf-8")
    return load(tiny_base_bpe, prompt_template=str(path))


@pytest.fixture(scope="module")
def port(model):
    with serving(model) as (_, port):
        yield port


# LangChain


@pytest.fixture(scope="module")
def chat_openai(port, model):
    langchain = pytest.importorskip("langchain_openai")

    def make(**settings):
        where = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key": "none", "model": model.name, "max_retries": 0}
        return langchain.ChatOpenAI(**where, **settings)

    return make


def test_langchain_asks_and_streams(chat_openai, model):
    expected = model.generate(TURNS, sampling=Sampling(max_new_tokens=12))
    chat = chat_openai(max_tokens=12, temperature=0)
    whole = chat.invoke(TURNS)
    assert whole.content == expected
    assert whole.usage_metadata["output_tokens"] == 12
    assert whole.response_metadata["finish_reason"] == "length"
    pieces = list(chat_openai(max_tokens=12, temperature=0, stream_usage=True).stream(TURNS))
    assert "".join(piece.content for piece in pieces) == expected
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata) == 12
    assert [one.content for one in chat.batch([TURNS, TURNS])] == [expected, expected]


def test_langchain_reads_logprobs_stops_and_choices(chat_openai, model):
    sampled = {"max_tokens": 6, "temperature": 1.0, "seed": 4}
    told = chat_openai(**sampled, logprobs=True, top_logprobs=3).invoke(TURNS).response_metadata["logprobs"]["content"]
    assert 1 <= len(told) <= 6
    assert all(len(one["top_logprobs"]) == 3 for one in told)
    turns = pytest.importorskip("langchain_core.messages").convert_to_messages(TURNS)
    both = chat_openai(**sampled, n=2).generate([turns]).generations[0]
    assert both[0].text != both[1].text
    whole = model.generate(TURNS, sampling=Sampling(max_new_tokens=12))
    assert (
        chat_openai(max_tokens=12, temperature=0, stop=[whole[-3:]]).invoke(TURNS).content
        == whole[: whole.index(whole[-3:])]
    )


def test_langchain_is_told_what_is_refused(chat_openai):
    openai = pytest.importorskip("openai")
    chat = chat_openai(max_tokens=6)
    with pytest.raises(openai.BadRequestError, match="response_format: .* is not supported by this server"):
        chat.with_structured_output({"title": "a", "type": "object", "properties": {}}, method="json_schema").invoke(
            "a"
        )
    with pytest.raises(openai.BadRequestError, match="tools: .* is not supported by this server"):
        chat.bind_tools([{"type": "function", "function": {"name": "f", "parameters": {}}}]).invoke("a")


# Requests as other programs send them (read in their sources, November 2026)


def test_open_webui(port, model):
    """Its chats, and the titles it asks for behind them; it adds parameters of its own settings, off until set."""
    assert model.name in [one["id"] for one in send(port, "GET", "/v1/models", Authorization="Bearer x")[1]["data"]]
    asked = {"stream": True, "model": model.name, "messages": TURNS, "stream_options": {"include_usage": True}}
    events, last = streamed(port, "/v1/chat/completions", {**asked, "max_tokens": 6})
    assert last == "data: [DONE]"
    text = "".join(part["delta"].get("content", "") for event in events for part in event["choices"])
    assert text == model.generate(TURNS, sampling=Sampling(max_new_tokens=6))
    assert events[-1]["usage"]["completion_tokens"] == 6
    title = {"model": model.name, "messages": [{"role": "user", "content": "### Task:\nA title."}], "stream": False}
    status, reply = send(port, "POST", "/v1/chat/completions", {**title, "max_tokens": 7})
    assert (status, reply["usage"]["completion_tokens"]) == (200, 7)
    for off in ({"min_p": 0.0}, {"frequency_penalty": 0.0}, {"logit_bias": {}}, {"seed": 3}, {"top_k": 40}):
        assert send(port, "POST", "/v1/chat/completions", {**title, "max_tokens": 2, **off})[0] == 200


# What SillyTavern's "Custom (OpenAI-compatible)" sends, with "Request token probabilities" on.
SILLYTAVERN = {
    "temperature": 1,
    "max_tokens": 8,
    "stream": True,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_p": 1,
    "top_k": 0,
    "stop": ["\nUser:"],
    "seed": -1,
    "n": 1,
    "logprobs": True,
    "top_logprobs": 5,
}


def test_sillytavern_chat(port, model):
    said = [
        {"role": "system", "content": "Write a reply in a fictional chat."},
        {"role": "system", "content": "[Start a new Chat]"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "name": "User", "content": "Hello"},
    ]
    events, last = streamed(port, "/v1/chat/completions", {**SILLYTAVERN, "model": model.name, "messages": said})
    assert last == "data: [DONE]"
    told = [one for event in events if (kept := event["choices"][0]["logprobs"]) for one in kept["content"]]
    assert 1 <= len(told) <= 8
    assert all(len(one["top_logprobs"]) == 5 for one in told)
    status, reply = send(
        port,
        "POST",
        "/v1/chat/completions",
        {**SILLYTAVERN, "model": model.name, "messages": said, "tools": [{"a": 1}]},
    )
    assert (status, reply["error"]["param"]) == (400, "tools")


def test_sillytavern_text(port, model):
    """Its "Text completion", of the type "Default" or "Generic"."""
    asked = {
        "model": model.name,
        "prompt": "User: Hello\nBot:",
        "max_tokens": 8,
        "temperature": 0.7,
        "top_p": 0.9,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "stop": ["\nUser:"],
        "logprobs": 10,
        "n": 1,
        "best_of": 1,
        "stream": True,
    }
    events, last = streamed(port, "/v1/completions", asked)
    assert last == "data: [DONE]"
    tops = [top for event in events if (kept := event["choices"][0]["logprobs"]) for top in kept["top_logprobs"]]
    assert 1 <= len(tops) <= 9
    assert all(len(top) + 1 >= 10 for top in tops)
