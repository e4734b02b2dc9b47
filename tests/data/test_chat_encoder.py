"""Conversations to ids: those of the tokenizer's own `apply_chat_template`, whatever the template and the texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_lora.data.record import Conversation
from alpaca_lora.data.records import Record, RecordSet, load_records
from alpaca_lora.data.tokens import Encoder, encoder_for
from alpaca_lora.errors import DataError, TemplateError
from alpaca_lora.prompts import CHAT, ChatTemplate, Template
from chats import CHATS, UNUSABLE, chat_tokenizer, random_conversations

each_chat = pytest.mark.parametrize("name", CHATS)
quick = settings(deadline=None, max_examples=30)
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds <|im_end|>.", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "ü"}}}
PIECES = [
    "Hello",
    " world",
    "\n",
    "\n\n",
    "é",
    "日本",
    "😀",
    "7",
    "'s",
    " ",
    "user\n",
    "<think>\n",
    "</think>",
    "o",
    "<|",
]
SPECIAL_TEXTS = sorted(
    {text for chat in CHATS.values() for text in (*chat.specials, chat.end, chat.eos, chat.bos) if text}
)
PLAIN = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join).filter(str.strip)
ANY = st.lists(st.sampled_from(PIECES + SPECIAL_TEXTS), min_size=1, max_size=6).map("".join).filter(str.strip)


@pytest.fixture(scope="module")
def encoders(short_tokenizers) -> dict[str, Encoder]:
    return {name: encoder_for(chat_tokenizer(name, short_tokenizers), CHAT) for name in CHATS}


def turns_of(encoder: Encoder, record: Any) -> list[Any]:
    """Ids and prompt length of each sequence of a record."""
    examples = encoder.encode(RecordSet([record], [1], "<test>"), 100_000)
    return [examples[index] for index in range(len(examples))]


def applied(encoder: Encoder, messages: Any, prompt: bool, tools: Any = None) -> list[int]:
    """The tokenizer's own ids."""
    return encoder.tokenizer.apply_chat_template(
        list(messages), tools=tools, tokenize=True, add_generation_prompt=prompt, return_dict=False
    )


def specials_in(encoder: Encoder, ids: Any) -> list[int]:
    known = set(encoder._special_ids.values())
    return [int(id) for id in ids if int(id) in known]


@each_chat
def test_ids_are_those_of_apply_chat_template(encoders, name):
    encoder = encoders[name]

    @quick
    @given(random_conversations(name, PLAIN))
    def holds(record: Conversation) -> None:
        turns = turns_of(encoder, record)
        assert len(turns) == len(record.trained)
        for place, (ids, prompt_len) in zip(record.trained, turns, strict=True):
            prompt = applied(encoder, record.messages[:place], True)
            whole = applied(encoder, record.messages[: place + 1], False)
            assert ids[:prompt_len].tolist() == prompt == encoder.message_ids(record.messages[:place])
            assert ids[-1] == encoder.tokenizer.convert_tokens_to_ids(CHATS[name].end)
            if whole[: len(prompt)] == prompt:  # else the answer's first token would have merged with the prompt's last
                assert ids.tolist() == whole[: len(ids)]
            else:
                assert encoder.decode(ids[prompt_len:-1]).strip() in encoder.decode(whole)

    holds()


@each_chat
def test_special_token_text_in_data_never_becomes_a_special_token(encoders, name):
    encoder = encoders[name]

    @quick
    @given(random_conversations(name, ANY))
    def holds(record: Conversation) -> None:
        plain = Conversation(tuple({**one, "content": "x"} for one in record.messages), record.trained)
        for (ids, _), (expected, _) in zip(turns_of(encoder, record), turns_of(encoder, plain), strict=True):
            assert specials_in(encoder, ids) == specials_in(encoder, expected)

    holds()


@each_chat
def test_special_token_text_in_data_comes_back(encoders, name):
    encoder = encoders[name]
    asked, said = f"Is {CHATS[name].end} a token?", f"{CHATS[name].end} ends{CHATS[name].eos}it."
    (turn,) = turns_of(encoder, Record(asked, "", said))
    assert asked in encoder.decode(turn.ids) and said in encoder.decode(turn.ids)
    assert encoder.decode(turn.ids[turn.prompt_len :]).strip().endswith(said)


@each_chat
def test_bos_stands_once_and_stop_ids_are_found(encoders, name):
    encoder, chat = encoders[name], CHATS[name]
    number = encoder.tokenizer.convert_tokens_to_ids
    messages = [{"role": role, "content": "Hello"} for role in ("user", "assistant", "user")]
    for ids in (encoder.message_ids(messages[:1]), encoder.message_ids(messages), encoder.prompt_ids("Hello")):
        bos = ids.count(number(chat.bos)) if chat.bos else 0
        assert bos == (
            len(messages) // 2 + 1 if name == "llama2" and ids == encoder.message_ids(messages) else bool(chat.bos)
        )
        assert not chat.bos or ids[0] == number(chat.bos)
    assert encoder.stop_ids == sorted({number(chat.end), number(chat.eos)})


@each_chat
def test_an_instruction_is_a_users_message(encoders, name):
    encoder = encoders[name]
    expected = applied(encoder, [{"role": "user", "content": "Add.\n\n2, 3"}], True)
    assert encoder.prompt_ids("Add.", "2, 3") == expected
    (turn,) = turns_of(encoder, Record("Add.", "2, 3", "5"))
    assert turn.ids[: turn.prompt_len].tolist() == expected
    assert encoder.decode(turn.ids[turn.prompt_len :]).strip().removeprefix("<think>\n\n</think>\n\n") == "5"


def test_the_demo_models_own_template(bpe_tokenizer):
    encoder = encoder_for(bpe_tokenizer, CHAT)
    messages = [
        {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Ho"), ("user", "Bye"))
    ]
    assert encoder.message_ids(messages) == applied(encoder, messages, True)
    (first, second) = turns_of(encoder, Conversation((*messages, {"role": "assistant", "content": "Bye"}), (1, 3)))
    assert second.ids[: len(first.ids)].tolist() == first.ids.tolist()
    assert encoder.stop_ids == [bpe_tokenizer.eos_token_id]


def test_a_template_that_rewrites_history_makes_sequences_that_differ(encoders):
    encoder = encoders["qwen3"]
    answers = ("<think>\nSum.\n</think>\n\n5", "<think>\nBye.\n</think>\n\nBye")
    messages = [
        {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": answers[0]},
        {"role": "user", "content": "Bye"}, {"role": "assistant", "content": answers[1]},
    ]  # fmt: skip
    first, second = turns_of(encoder, Conversation(tuple(messages), (1, 3)))
    assert encoder.decode(first.ids[first.prompt_len :]) == answers[0]
    assert encoder.decode(second.ids[second.prompt_len :]) == answers[1]
    assert "Sum." not in encoder.decode(second.ids)
    assert second.ids[: len(first.ids)].tolist() != first.ids.tolist()


@pytest.mark.parametrize("name", ["qwen3", "llama3"])
def test_tools_and_calls_are_handed_to_the_template(encoders, name):
    encoder = encoders[name]
    messages = (
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "It is 5."},
    )
    called, told = turns_of(encoder, Conversation(messages, (1, 3), tuple(TOOLS)))
    end = encoder.tokenizer.convert_tokens_to_ids(CHATS[name].end)
    assert called.ids[-1] == told.ids[-1] == end
    assert '{"name": "add", "arguments": {"a": 2, "b": "ü"}}' in encoder.decode(called.ids[called.prompt_len :])
    assert encoder.decode(told.ids[told.prompt_len :]).endswith("It is 5.")
    assert "Adds <|im_end|>." in encoder.decode(told.ids)
    assert encoder.message_ids(messages[:3], TOOLS) == told.ids[: told.prompt_len].tolist()
    plain = [{"type": "function", "function": {**TOOLS[0]["function"], "description": "Adds."}}]
    assert encoder.message_ids(messages[:3], plain) == applied(encoder, messages[:3], True, plain)


def test_replies_of_a_tree_see_their_own_path(encoders):
    encoder = encoders["chatml"]
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("assistant", "e")]
    messages = tuple({"role": role, "content": text} for role, text in said)
    tree = Conversation(messages, (1, 3, 4), parents=(-1, 0, 1, 2, 0))
    paths = [messages[:2], messages[:4], (messages[0], messages[4])]
    expected = [turns_of(encoder, Conversation(path, (len(path) - 1,)))[0] for path in paths]
    found = turns_of(encoder, tree)
    assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in expected]
    assert [one.prompt_len for one in found] == [one.prompt_len for one in expected]


def test_a_turn_that_does_not_fit_is_dropped_and_the_earlier_ones_stay(encoders):
    encoder = encoders["chatml"]
    said = [{"role": ("user", "assistant")[n % 2], "content": f"word {n}"} for n in range(6)]
    record = Conversation(tuple(said), (1, 3, 5))
    lengths = [len(turn.ids) for turn in turns_of(encoder, record)]
    prompts = [turn.prompt_len for turn in turns_of(encoder, record)]
    found = encoder.encode(RecordSet([record], [7], "<test>"), prompts[2] + 1)
    assert found.lengths.tolist() == lengths[:2] and found.too_long == [7] and found.truncated == []
    found = encoder.encode(RecordSet([record], [7], "<test>"), prompts[2] + 2)
    assert found.lengths.tolist() == [*lengths[:2], prompts[2] + 2] and found.truncated == [7]
    assert found[2].ids[-1] == encoder.eos_id
    with pytest.raises(DataError, match="no record is left: the prompt alone reaches cutoff_len=4 in all 1 record"):
        encoder.encode(RecordSet([record], [7], "<test>"), 4)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("thinks before it answers", "does not write an answer behind its generation prompt"),
        ("no generation prompt", r"has no generation prompt: it writes '<\|im_start\|>assistant\\n' before an answer"),
        ("raises", "refuses: This model is for code completion."),
        ("Python", "refuses: access to attribute '__class__' of 'str' object is unsafe."),
        ("no Jinja", "refuses: Unexpected end of template"),
        ("says nothing", "does not write an answer behind its generation prompt"),
    ],
)
def test_templates_that_nothing_can_be_trained_with(short_tokenizers, kind, message):
    tokenizer = chat_tokenizer("deepseek-r1" if "thinks" in kind else "chatml", short_tokenizers)
    with pytest.raises(TemplateError, match=f"^prompt_template: the chat template 'mine.jinja' {message}"):
        encoder_for(tokenizer, ChatTemplate("mine.jinja", UNUSABLE[kind]))


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


GOOD = {"messages": [user("Hi"), said("Ho"), user("Bye"), said("Bye")]}


@pytest.mark.parametrize(
    ("name", "turns", "message"),
    [
        ("gemma", [user("a"), user("b"), said("c")], r"refuses: Conversation roles must alternate user/assistant"),
        (
            "mistral",
            [user("a"), user("b"), said("c")],
            r"refuses: After the optional system message, conversation roles",
        ),
        (
            "gemma",
            [{"role": "system", "content": "Be kind."}, user("a"), said("b")],
            "refuses: System role not supported",
        ),
        ("mistral", [{"role": "system", "content": "Be kind."}, user("a"), said("b")], "refuses: After the optional"),
    ],
)
def test_what_a_template_refuses_is_told_in_its_words_with_the_records(encoders, name, turns, message):
    source = load_records([GOOD, {"messages": turns}, GOOD, {"messages": turns}])
    said = rf"<list>: the chat template 'chat' {message}.*: 2 of 4 records \(50.0%; numbers 2, 4\)\."
    with pytest.raises(DataError, match=said):
        encoders[name].encode(source, 1000)
    with pytest.raises(DataError, match=f"^the chat template 'chat' {message}"):
        encoders[name].message_ids(turns[:-1])


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([said("a"), user("b"), said("c")], "conversations that the assistant begins"),
        ([{"role": "system", "content": "a"}], "conversations in which nobody answers"),
        ([user("a")], "conversations in which nobody answers"),
        ([user("a"), {"role": "critic", "content": "b"}, said("c")], "conversations with turns of unknown speakers"),
    ],
)
def test_conversations_that_are_wrong_by_themselves_are_told_before(turns, message):
    with pytest.raises(DataError, match=rf"1 of 41 rows are {message}(.|\n)*first record 2"):
        load_records([GOOD, {"messages": turns}, *[GOOD] * 39])


def test_an_empty_answer_drops_its_record_and_is_counted():
    with pytest.warns(UserWarning, match=r"1 of 41 records \(2.4%; numbers 2\) have an empty output; they are dropped"):
        found = load_records([GOOD, {"messages": [*GOOD["messages"], user("a"), said(" ")]}, *[GOOD] * 39])
    assert found.dropped == {"empty output": [2]} and len(found) == 40


def test_conversations_need_a_chat_template_and_are_told_so(bpe_tokenizer):
    encoder = Encoder(bpe_tokenizer, Template.load("alpaca"))
    with pytest.raises(DataError, match=r"Choose prompt_template=chat, or a .jinja file: 1 of 2 records .*numbers 2"):
        encoder.encode(load_records([{"instruction": "a", "output": "b"}, GOOD]), 1000)
    with pytest.raises(DataError, match="has a place for one user's message; this conversation has user, assistant"):
        encoder.message_ids(GOOD["messages"][:3])


def test_a_base_without_a_template_and_files(short_tokenizers, tmp_path):
    tokenizer = chat_tokenizer("chatml", short_tokenizers)
    (tmp_path / "mine.jinja").write_text(CHATS["chatml"].template, encoding="utf-8")
    own, file = encoder_for(tokenizer, CHAT), encoder_for(tokenizer, str(tmp_path / "mine.jinja"))
    assert own.prompt_ids("Hi") == file.prompt_ids("Hi")
    tokenizer.chat_template = None
    with pytest.raises(TemplateError, match="the base's tokenizer has no chat template. Give one as a .jinja file"):
        encoder_for(tokenizer, CHAT)
    with pytest.raises(TemplateError, match="nowhere.jinja"):
        encoder_for(tokenizer, str(tmp_path / "nowhere.jinja"))


def test_private_characters_in_data_stay_themselves(encoders):
    encoder = encoders["chatml"]
    text = "\U000f0000<|im_end|>\U000f0001"
    (turn,) = turns_of(encoder, Record(text, "", text))
    assert encoder.decode(turn.ids).count(text) == 2
    both = "<|im_end|>\U000f0000\U00100000"
    with pytest.raises(DataError, match=r"special tokens beside private characters of both planes.*numbers 1\)"):
        turns_of(encoder, Record(both, "", "x"))


DROPS = (
    "{{ bos_token }}{% for message in messages if message.role not in ('system', 'tool') %}[{{ message.role }}] "
    "{{ message.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
BARE_CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "add"}}]}
FIVE = {"role": "assistant", "content": "5"}
CALLS = (
    "{% for message in messages %}[{{ message.role }}] "
    "{{ message.content if message.role != 'tool' else message.content | tojson }}"
    "{{ message.tool_calls | default('') | tojson }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SYSTEM_TURN = {"role": "system", "content": "Be brief."}
BARE_QUESTION = {"role": "user", "content": "Add 2 and 3."}


@pytest.mark.parametrize(
    ("messages", "tools", "what"),
    [
        ((BARE_QUESTION, BARE_CALL), (), "the calls of tools"),
        (
            ({"role": "system", "content": "Be brief."}, BARE_QUESTION, {**BARE_CALL, "content": "5"}),
            (),
            "the system text",
        ),
        ((BARE_QUESTION, {"role": "assistant", "content": "5"}), ({"name": "add"},), "the tools"),
        ((BARE_QUESTION, {"role": "tool", "content": "7"}, FIVE), (), "what a tool gave"),
        ((BARE_QUESTION, BARE_CALL, BARE_QUESTION, FIVE), (), "the calls of tools"),
        ((BARE_QUESTION, {**FIVE, "reasoning_content": "3 + 2"}), (), "the answer's 'reasoning_content'"),
    ],
)
def test_what_a_template_leaves_out_is_an_error(encoders, messages, tools, what):
    encoder = encoder_for(encoders["chatml"].tokenizer, ChatTemplate("mine.jinja", DROPS))
    with pytest.raises(DataError, match=f"'mine.jinja' leaves out {what}.*numbers 1"):
        turns_of(encoder, Conversation(messages, (len(messages) - 1,), tools))
    if messages[-1] != BARE_CALL and "reasoning_content" not in messages[-1]:
        with pytest.raises(DataError, match=f"'mine.jinja' leaves out {what}"):  # nor is a model asked with it
            encoder.message_ids([*messages, BARE_QUESTION], tools)


def test_what_a_template_writes_as_json_is_there(encoders):
    encoder = encoder_for(encoders["chatml"].tokenizer, ChatTemplate("json.jinja", CALLS))
    result = {"role": "tool", "content": 'a "quoted"\nline é'}
    ids = encoder.message_ids([BARE_QUESTION, BARE_CALL, result])
    assert "quoted" in encoder.decode(ids)
