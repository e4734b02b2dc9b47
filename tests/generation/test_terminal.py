"""The terminal chat: commands, history, single-turn prompts, moderation."""

from __future__ import annotations

import pytest

from alpaca_lora import load
from alpaca_lora.generation.moderation import Keywords, moderation_from
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.generation.terminal import chat

SHORT = Sampling(max_new_tokens=5)


@pytest.fixture(scope="module")
def model(tiny_base_bpe):
    return load(tiny_base_bpe, prompt_template="alpaca_short")


def talk(model, *lines, **rest):
    """Types the lines; what was shown, and at which prompts."""
    typed, shown, prompts = iter(lines), [], []

    def read(prompt):
        prompts.append(prompt)
        line = next(typed, None)
        if line is None:
            raise EOFError
        if isinstance(line, BaseException):
            raise line
        return line

    def write(text="", end="\n", flush=False):
        shown.append(text + end)

    chat(model, SHORT, read=read, write=write, **rest)
    return "".join(shown), prompts


def test_each_instruction_stands_alone(model):
    shown, prompts = talk(model, "Name a cat.", "", "Name a cat.")
    answer = model.generate("Name a cat.", "", SHORT)
    assert shown.count(answer + "\n") == 2  # the first answer did not change the second
    assert "Template alpaca_short" in shown
    assert prompts == [f"\n{model.name}> "] * 4


def test_a_system_text_is_refused_where_the_template_has_none_and_the_chat_goes_on(model):
    shown, _ = talk(model, "/system Be brief.", "Name a cat.")
    assert "The template 'alpaca_short' has no system text" in shown and "Begun anew" not in shown
    assert model.generate("Name a cat.", "", SHORT) + "\n" in shown


def test_a_templates_warning_comes_first(tiny_base_bpe):
    shown, _ = talk(load(tiny_base_bpe, prompt_template="medalpaca"), "/quit")
    assert "Warning: This is no medical device" in shown


def test_an_input_belongs_to_the_next_instruction_only(model):
    shown, prompts = talk(
        model, "/input", "Tom", "Felix", "", "Choose one.", "Choose one.", "/history", "/input Tom", "A?"
    )
    assert model.generate("A?", "Tom", SHORT) + "\n" in shown
    with_input = model.generate("Choose one.", "Tom\nFelix", SHORT)
    assert with_input + "\n" in shown
    assert model.generate("Choose one.", "", SHORT) + "\n" in shown
    assert f"{model.name}> Choose one.\nTom\nFelix\n{with_input}\n" in shown
    assert prompts.count("input> ") == 3


def test_commands(model):
    shown, _ = talk(model, "/help", "/clear", "/history", "/nonsense", "/adapter other", "/quit", "never read")
    assert shown.count("leave (Ctrl-D does, too)") == 2
    assert "/nonsense is no command." in shown
    assert "adapter: 'other' is not loaded." in shown


def test_ctrl_c_at_the_prompt_leaves(model):
    assert talk(model, KeyboardInterrupt())[0].endswith("\n")


def test_ctrl_c_ends_an_answer_and_not_the_chat(model, monkeypatch):
    def interrupted(*arguments):
        yield "Half"
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "stream", interrupted)
    assert "Half [stopped]\n" in talk(model, "Name a cat.", "/history")[0]


def test_a_prompt_that_is_too_long_is_told(model):
    assert "Shorten it." in talk(model, "word " * 3000)[0]


def test_a_byte_order_mark_hides_no_word_of_a_moderation(tmp_path):
    (tmp_path / "words.txt").write_text("bomb\nhow to steal\n", encoding="utf-8-sig")
    assert moderation_from(str(tmp_path / "words.txt"))("A bomb.")


def test_moderation(model, tmp_path):
    (tmp_path / "words.txt").write_text("bomb\n\nhow to steal\n", encoding="utf-8")
    shown, _ = talk(
        model, "How do I build a Bomb?", "Name a cat.", moderation=moderation_from(str(tmp_path / "words.txt"))
    )
    assert "(not answered: it contains 'bomb')" in shown
    assert model.generate("Name a cat.", "", SHORT) + "\n" in shown
    answer = model.generate("Name a cat.", "", SHORT)
    shown, _ = talk(model, "Name a cat.", moderation=lambda text: "no" if text == answer else None)
    assert "(not shown: no)" in shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("HOW TO STEAL a car", "it contains 'how to steal'"),
        ("bombs and bombast", None),
        ("a bomb.", "it contains 'bomb'"),
    ],
)
def test_keywords_are_whole_words(text, reason):
    assert Keywords(["bomb", "how to steal"])(text) == reason
