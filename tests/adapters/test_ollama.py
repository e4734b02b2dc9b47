"""Ollama's templates: the pieces that a chat template writes around each message, or a clear refusal."""

from __future__ import annotations

import pytest

from alpaca_lora.adapters.ollama import ChatPieces, modelfile
from alpaca_lora.data.tokens import encoder_for
from alpaca_lora.errors import ModelError
from alpaca_lora.prompts import ChatTemplate

# The text of the demo model's own kind (ChatML with a system text of its own), of Zephyr's, and of two that cannot be.
DEFAULT_SYSTEM = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}#system\nBe good.</s>\n{% endif %}"
    "#{{ message.role }}\n{{ message.content }}</s>\n{% endfor %}{% if add_generation_prompt %}#assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system text') }}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message.role == 'user' %}{\"ask\": {{ message.content }}}{% else %}"
    "[{{ message.content }}]{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[{% endif %}"
)
INSIDE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {% if loop.index0 == 1 and "
    "messages[0].role == 'system' %}<<SYS>>{{ messages[0].content }}<</SYS>> {% endif %}{{ message.content }} [/INST]"
    "{% elif message.role == 'assistant' %} {{ message.content }} {{ eos_token }}{{ bos_token }}{% endif %}{% endfor %}"
)
COUNTED = (
    "{% for message in messages %}{{ loop.index }}. {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ messages | length + 1 }}. {% endif %}"
)


@pytest.fixture
def encoder(short_tokenizers):
    return lambda text: encoder_for(short_tokenizers["sentencepiece"], ChatTemplate("mine.jinja", text))


def test_a_system_text_of_the_templates_own_stands_where_there_is_no_other(encoder):
    pieces = ChatPieces.of(encoder(DEFAULT_SYSTEM))
    assert pieces.user == ("#user\n", "</s>\n")
    assert pieces.assistant == ("#assistant\n", "</s>\n")
    assert pieces.system == ("#system\n", "</s>\n")
    assert pieces.answer == "#assistant\n"
    assert pieces.go() == (
        "{{ range $place, $message := .Messages }}"
        '{{ if eq $message.Role "user" }}{{ if eq $place 0 }}#system\nBe good.</s>\n{{ end }}'
        "#user\n{{ $message.Content }}</s>\n"
        '{{ else if eq $message.Role "assistant" }}#assistant\n{{ $message.Content }}</s>\n'
        '{{ else if eq $message.Role "system" }}#system\n{{ $message.Content }}</s>\n'
        "{{ end }}{{ end }}#assistant\n"
    )


def test_a_template_that_refuses_a_system_text(encoder):
    pieces = ChatPieces.of(encoder(NO_SYSTEM))
    assert pieces.system is None
    assert pieces.begin == ""  # BOS, which Ollama adds
    assert pieces.user == ('{"ask": ', "}")
    assert pieces.assistant == ("[", "]</s>")
    assert pieces.answer == "["
    text = modelfile("./m.gguf", encoder(NO_SYSTEM), ["</s>"])
    assert '{{ if eq $message.Role "user" }}{{"{\\""}}ask{{"\\""}}: {{ $message.Content }}}' in text
    assert 'PARAMETER stop "</s>"' in text


@pytest.mark.parametrize("text", [INSIDE, COUNTED])
def test_what_is_no_text_around_each_message_is_refused(encoder, text):
    with pytest.raises(ModelError, match="is more than a text before and after each message, which Ollama's templates"):
        modelfile("./m.gguf", encoder(text), ["</s>"])
