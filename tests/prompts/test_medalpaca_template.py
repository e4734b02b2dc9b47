"""medAlpaca's bytes, and the warning that a template may carry."""

import json

import pytest

from alpaca_lora.errors import TemplateError
from alpaca_lora.prompts import Template, template_names

HEAD = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\nAnswer this question truthfully"
)


def test_medalpacas_bytes():
    template = Template.load("medalpaca")
    asked = template.prompt("Answer this question truthfully", "What is triage?")
    assert asked == HEAD + "\n\n### Input:\nWhat is triage?\n\n### Response:\n"
    assert asked == Template.load("alpaca").prompt("Answer this question truthfully", "What is triage?")


def test_without_input_the_header_stays():
    """medAlpaca's handler joins primer, instruction, input and output, whether there is an input or not."""
    assert Template.load("medalpaca").prompt("Answer this question truthfully") == (
        HEAD + "\n\n### Input:\n\n\n### Response:\n"
    )


def test_the_bytes_never_change():
    assert Template.load("medalpaca").sha256 == "30482e3c4b9e6cb9f885ba87b37dcbaaa6ebdb655a58e9aaa7f7f818ebdf8c64"


def test_only_medalpaca_warns():
    warnings = {name: Template.load(name).warning for name in template_names()}
    assert "no medical device" in warnings.pop("medalpaca")
    assert set(warnings.values()) == {""}


def test_a_warning_is_kept_with_the_bytes_and_is_no_part_of_them():
    template = Template.load("medalpaca")
    stored = json.loads(json.dumps(template.to_dict()))
    assert Template.from_dict(stored, stored["name"]) == template
    quiet = Template.from_dict({key: value for key, value in stored.items() if key != "warning"})
    assert quiet.sha256 == template.sha256
    assert quiet.prompt("Add.", "1 2") == template.prompt("Add.", "1 2")
    assert set(quiet.to_dict()) == {"name", "description", "prompt_input", "prompt_no_input", "response_split"}


def test_a_warning_is_text():
    with pytest.raises(TemplateError, match="'warning' is int; it must be text"):
        Template.from_dict({**Template.load("medalpaca").to_dict(), "warning": 3})
