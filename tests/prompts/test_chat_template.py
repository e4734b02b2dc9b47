"""Chat templates: where they come from, how they are kept, and that they render in a sandbox."""

from __future__ import annotations

import pytest

from alpaca_lora.errors import TemplateError
from alpaca_lora.prompts import CHAT, ChatTemplate, template_from
from chats import CHATS, chat_tokenizer

ASKED = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("name", CHATS)
def test_it_renders_as_the_tokenizer_does(short_tokenizers, name):
    tokenizer = chat_tokenizer(name, short_tokenizers)
    template = ChatTemplate.of(tokenizer)
    assert (template.name, template.text) == (CHAT, CHATS[name].template)
    for prompt in (True, False):
        expected = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=prompt)
        assert template.render(tokenizer, ASKED, add_generation_prompt=prompt) == expected


def test_of_several_templates_the_default_is_taken(short_tokenizers):
    tokenizer = chat_tokenizer("chatml", short_tokenizers)
    tokenizer.chat_template = {"tool_use": "x", "default": "y"}
    assert ChatTemplate.of(tokenizer).text == "y"
    tokenizer.chat_template = {"tool_use": "x"}
    with pytest.raises(TemplateError, match="has no chat template. Give one as a .jinja file"):
        ChatTemplate.of(tokenizer)


def test_a_contract_gives_it_back(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(CHATS["zephyr"].template, encoding="utf-8")
    template = ChatTemplate.load(path)
    assert template_from(template.to_dict(), "contract") == template
    assert template.sha256 != ChatTemplate(template.name, template.text + " ").sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ raise_exception('Two\n users') }}", "refuses: Two users"),
        (
            "{{ messages[0].content.__class__.__mro__ }}",
            "refuses: access to attribute '__class__' of 'str' object is unsafe",
        ),
        ("{% import 'os' as os %}{{ os.system('id') }}", "refuses: "),
        ("{{ messages.append(1) }}", "refuses: "),
        ("{% for n in range(1000000000) %}x{% endfor %}", "refuses: Range too big"),
        ("{{ messages[0].content + 1 }}", "refuses: can only concatenate str"),
        ("{% if %}", "refuses: "),
    ],
)
def test_what_a_strangers_template_may_not_do(short_tokenizers, text, message):
    tokenizer = chat_tokenizer("chatml", short_tokenizers)
    with pytest.raises(TemplateError, match=f"the chat template 'x.jinja' {message}"):
        ChatTemplate("x.jinja", text).render(tokenizer, ASKED, add_generation_prompt=True)


def test_files_that_are_no_templates(tmp_path):
    (tmp_path / "binary.jinja").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.jinja", "nowhere.jinja"):
        with pytest.raises(TemplateError, match=name):
            ChatTemplate.load(tmp_path / name)
