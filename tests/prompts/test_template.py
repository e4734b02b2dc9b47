import json
import os

import pytest

from alpaca_lora.errors import TemplateError
from alpaca_lora.prompts import Template, template_names

GOOD = {
    "description": "d",
    "prompt_input": "Q: {instruction}\nC: {input}\nA: ",
    "prompt_no_input": "Q: {instruction}\nA: ",
    "response_split": "A: ",
}


def test_packaged_templates_hold_the_published_bytes():
    assert template_names() == ["alpaca", "alpaca_legacy", "alpaca_short", "medalpaca"]
    modern, legacy = Template.load("alpaca"), Template.load("alpaca_legacy")
    assert legacy.prompt("Add.", "1 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"
    )
    assert modern.prompt("Add.", "1 2") == legacy.prompt("Add.", "1 2") + "\n"
    assert modern.prompt("Sing.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nSing.\n\n### Response:\n"
    )


def test_record_text_is_inert():
    template = Template.load("alpaca_short")
    prompt = template.prompt("Explain {input} and {0.__class__}", "### Response:\n{instruction} {{x}}")
    assert prompt == (
        "### Instruction:\nExplain {input} and {0.__class__}\n\n### Input:\n### Response:\n{instruction} {{x}}"
        "\n\n### Response:\n"
    )


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "mine.json").write_text('{"prompt_input": "é"}', encoding="latin-1")
    with pytest.raises(
        TemplateError, match=r"mine.json: damaged: not UTF-8 text: byte 19 is 0xe9. Give a text file in UTF-8"
    ):
        Template.load(tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt_input": "a", "prompt_input": "b"}', "the key 'prompt_input' stands twice"),
        (b'{"x": ' + b"[" * 100_000, "nested too deep. A template is one object"),
        (b'{"x": ' + b'{"a": ' * 100_000, "nested too deep"),
        (json.dumps(GOOD)[:-1].encode() + b', "description": "", "x": 9}', "'description' stands"),
        (json.dumps({**GOOD, "warning": 0})[:-2].encode() + b"9" * 5_000 + b"}", "Exceeds the limit"),
        (json.dumps({**GOOD, "prompt_input": "\ud800"}).encode(), "prompt_input holds half of a character"),
        (b" " * 1_000_001, "mine.json: has 1,000,001 bytes; at most 1,000,000 are read"),
        (json.dumps(GOOD).encode("utf-16"), "mine.json: damaged: not UTF-8 text: byte 1 is 0xff"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(TemplateError, match=message):
        Template.load(path)


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert Template.load(tmp_path / "mine.json").prompt("Why?") == "Q: Why?\nA: "


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero", "x" * 5_000):
        with pytest.raises(TemplateError, match="is neither a packaged template nor a file"):
            Template.load(name)


def test_a_file_in_alpaca_loras_format_loads_unchanged(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    template = Template.load(path)
    assert template.prompt("Why?", "sky") == "Q: Why?\nC: sky\nA: "
    assert Template.from_dict(template.to_dict()).sha256 == template.sha256


def test_doubled_braces_are_literal_braces():
    template = Template.from_dict({**GOOD, "prompt_no_input": '{{"q": "{instruction}"}}'})
    assert template.prompt("Why?") == '{"q": "Why?"}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_no_input": "{instruction.__class__}"}, r"field \{instruction.__class__\} is not allowed"),
        ({"prompt_no_input": "{instruction[0]}"}, r"field \{instruction\[0\]\} is not allowed"),
        ({"prompt_no_input": "{instruction!r}"}, r"field \{instruction!r\} is not allowed"),
        ({"prompt_no_input": "{instruction:>9}"}, r"field \{instruction:>9\} is not allowed"),
        ({"prompt_no_input": "{instruction} {}"}, r"field \{\} is not allowed"),
        ({"prompt_no_input": "{instruction} {input}"}, r"field \{input\} is not allowed"),
        ({"prompt_no_input": "nothing"}, r"\{instruction\} stands 0 times"),
        ({"prompt_input": "{instruction} {input} {input}"}, r"\{input\} stands 2 times"),
        ({"prompt_no_input": "{instruction} }"}, "A brace of the template's own is written twice: '{{' or '}}'"),
        ({"prompt_no_input": '{"q": "{instruction}"}'}, "is not allowed; .* is written twice"),
        ({"prompt_no_input": "{instrution}"}, r"only the bare \{instruction\} are. Did you mean 'instruction'\?"),
        ({"prompt_no_input": "{" + "x" * 5_000 + "}"}, r"field \{x{79}\.\.\. is not allowed"),
        ({"prompt_no_input": 3}, "is int; it must be text"),
    ],
)
def test_only_bare_fields_once(change, message):
    with pytest.raises(TemplateError, match=message):
        Template.from_dict({**GOOD, **change})


def test_unknown_name_and_missing_key_say_what_to_do(tmp_path):
    with pytest.raises(TemplateError, match="Did you mean 'alpaca_legacy'"):
        Template.load("alpaca_legcy")
    with pytest.raises(TemplateError, match="'prompt_no_input' is missing. Did you mean 'prompt_noinput'"):
        Template.from_dict({("prompt_noinput" if k == "prompt_no_input" else k): v for k, v in GOOD.items()})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(
        TemplateError, match="bad.json: damaged: not JSON .line 1, column 2: .* A template is one object"
    ):
        Template.load(tmp_path / "bad.json")
