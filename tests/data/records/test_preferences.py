"""Preferences: every usual form gives the same two answers to one prompt, and what cannot be used is told."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alpaca_lora import inspect, lint, load_records
from alpaca_lora.data.record import Conversation, Preference, content_of
from alpaca_lora.data.records import Record, split_records
from alpaca_lora.errors import ConfigError, DataError

ASKED, GOOD, BAD = "Name a heron.", "The grey heron.", "A stork."
PAIR = Preference(Record(ASKED, "", GOOD), Record(ASKED, "", BAD))


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def load(rows, **more):
    return load_records(rows, objective="dpo", **more)


def only(row, **more):
    (record,) = load([row], **more).records
    return record


SINGLE = {
    "TRL, standard": {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    "TRL, conversational": {"prompt": [user(ASKED)], "chosen": [said(GOOD)], "rejected": [said(BAD)]},
    "TRL, implicit prompt": {"chosen": [user(ASKED), said(GOOD)], "rejected": [user(ASKED), said(BAD)]},
    "UltraFeedback, binarised": {
        "prompt": ASKED,
        "prompt_id": "f0e37e9f7800261167ce91143f98f511f768847236f133f2d0aed60b444ebe57",
        "chosen": [user(ASKED), said(GOOD)],
        "rejected": [user(ASKED), said(BAD)],
        "messages": [user(ASKED), said(GOOD)],
        "score_chosen": 8.5,
        "score_rejected": 3.0,
    },
    "LLaMA-Factory, alpaca": {"instruction": ASKED, "input": "", "chosen": GOOD, "rejected": BAD},
    "LLaMA-Factory, sharegpt": {
        "conversations": [{"from": "human", "value": ASKED}],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
    "HH": {
        "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
    },
    "HH, prompt apart": {
        "prompt": f"\n\nHuman: {ASKED}\n\nAssistant:",
        "chosen": f" {GOOD}",
        "rejected": f" {BAD}",
    },
    "HH, prompt apart and repeated": {
        "prompt": f"\n\nHuman: {ASKED}\n\nAssistant:",
        "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
    },
    "messages and texts": {"messages": [user(ASKED)], "chosen": GOOD, "rejected": BAD},
    "prompt as a text, answers as messages": {"prompt": ASKED, "chosen": [said(GOOD)], "rejected": [said(BAD)]},
}


@pytest.mark.parametrize("form", SINGLE)
def test_each_form_gives_the_prompt_and_both_answers(form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no key of it is missed
        assert load([SINGLE[form]] * 20).records == [PAIR] * 20


@pytest.mark.parametrize("form", SINGLE)
def test_tables_give_the_same(form, tmp_path):
    """What the hub holds: Parquet, where messages lack no key."""
    table = datasets.Dataset.from_list([SINGLE[form]] * 3)
    table.to_parquet(tmp_path / "pairs.parquet")
    for data in (table, tmp_path / "pairs.parquet"):
        assert load(data).records == [PAIR] * 3


def test_a_call_of_a_tool_is_compared_with_a_text():
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "look_up"}}]}
    found = only({"prompt": [user("Hi")], "chosen": [call], "rejected": [said("I do not know.")]})
    assert found.chosen.messages[-1]["tool_calls"] and found.rejected.messages[-1] == said("I do not know.")


def test_answers_that_hold_their_prompt_are_told():
    rows = [
        {"prompt": f"{ASKED} {n}", "chosen": f"{ASKED} {n} {GOOD}", "rejected": f"{ASKED} {n} {BAD}"} for n in "123"
    ]
    with pytest.raises(
        DataError, match="both answers begin with the prompt in 3 of 3 rows, where it would stand twice"
    ):
        load(rows)
    assert len(load([rows[0], *[SINGLE["TRL, standard"]] * 2])) == 3


def test_instruction_and_input_stay_apart():
    row = {"instruction": "Add.", "input": "2, 3", "chosen": "5", "rejected": "6"}
    assert only(row) == Preference(Record("Add.", "2, 3", "5"), Record("Add.", "2, 3", "6"))


def test_an_implicit_prompt_of_texts_ends_before_the_first_word_that_differs():
    found = only({"chosen": "The sky is blue.", "rejected": "The sky is blank."})
    assert found == Preference(Record("The sky is", "", "blue."), Record("The sky is", "", "blank."))


TURNS = [{"role": "system", "content": "Be brief."}, user("Hi"), said("Ho"), user("And?")]
LONG = [
    {"prompt": TURNS, "chosen": [said("Now.")], "rejected": [said("Never.")]},
    {"chosen": [*TURNS, said("Now.")], "rejected": [*TURNS, said("Never.")]},
    {"prompt": "And?", "chosen": [*TURNS, said("Now.")], "rejected": [*TURNS, said("Never.")]},
    {"system": "Be brief.", "messages": TURNS[1:], "chosen": "Now.", "rejected": "Never."},
    {"system": "Be brief.", "history": [["Hi", "Ho"]], "instruction": "And?", "chosen": "Now.", "rejected": "Never."},
    {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}, user("And?")],
        "chosen": {"from": "gpt", "value": "Now."},
        "rejected": {"from": "gpt", "value": "Never."},
    },
]


@pytest.mark.parametrize("row", LONG)
def test_conversations_are_compared_in_their_last_answer(row):
    expected = [Conversation((*TURNS, said(text)), (4,)) for text in ("Now.", "Never.")]
    assert only(row) == Preference(*expected)


def test_a_dialogue_of_hh_keeps_its_turns():
    before = "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: And?\n\nAssistant:"
    found = only({"chosen": f"{before} Now.", "rejected": f"{before} Never.\n\nAt all."})
    assert found.answers == ("Now.", "Never.\n\nAt all.")
    assert found.chosen == Conversation((user("Hi"), said("Ho"), user("And?"), said("Now.")), (3,))


def test_tools_stand_in_both_prompts():
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    found = only({"tools": tools, "prompt": [user("Hi")], "chosen": [said("Ho")], "rejected": [said("No.")]})
    assert found.chosen.tools == found.rejected.tools == tuple(tools)


def test_columns_name_other_keys():
    row = {"question": ASKED, "better": GOOD, "worse": BAD, "notes": "seen"}
    columns = {"instruction": "question", "chosen": "better", "rejected": "worse"}
    assert only(row, columns=columns) == PAIR
    with pytest.raises(DataError, match=r"preference pairs under other names") as caught:
        load([row] * 3)
    assert str(caught.value).endswith(f"Pass columns={columns}.")
    with pytest.raises(ConfigError, match="'output' is no field of a preference. It is one for objective=sft"):
        load([row], columns={"output": "better"})
    with pytest.raises(ConfigError, match="'chosen' is no field of a record. It is one for objective=dpo or orpo"):
        load_records([row], columns={"chosen": "better"})


DROPPED = [
    ({"prompt": "Hi", "chosen": "Ho", "rejected": "Ho "}, "the same answer twice"),
    ({"prompt": "Hi", "chosen": "Ho", "rejected": ""}, "an empty answer"),
    ({"prompt": "Hi", "chosen": None, "rejected": [said("Ho")]}, "an empty answer"),
    (
        {"chosen": [user("Hi"), said("Ho"), user("So?"), said("Yes")], "rejected": [user("Hi"), said("No")]},
        "two answers to different prompts",
    ),
]


@pytest.mark.parametrize(("row", "what"), DROPPED)
def test_pairs_of_which_nothing_can_be_learned_are_dropped_up_to_5_percent(row, what):
    good = [{"prompt": f"Name heron {n}.", "chosen": GOOD, "rejected": BAD} for n in range(19)]
    with pytest.warns(UserWarning, match=rf"1 of 20 records \(5.0%; numbers 20\) have {what}.*; they are dropped"):
        found = load([*good, row])
    assert len(found) == 19 and [*found.dropped.values()] == [[20]]
    with pytest.raises(DataError, match=rf"2 of 20 records \(10.0%; numbers 19, 20\) have {what}.*at most 5%"):
        load([*good[:-1], row, row])


BAD_ROWS = [
    (
        {"prompt": "Hi", "chosen": json.dumps([user("Hi"), said("Ho")]), "rejected": str([user("Hi"), said("No")])},
        "'chosen' holds messages written as text",
    ),
    ({"prompt": "Hi", "chosen": "Ho"}, "the key 'rejected' is missing"),
    ({"prompt": "Hi", "chosen": "Ho", "rejected": 7}, "'rejected' is an int, neither a text nor messages"),
    ({"prompt": "Hi", "chosen": ["Ho"], "rejected": "No"}, "'chosen' is a list, neither a text nor messages"),
    ({"prompt": "Hi", "chosen": "Ho", "rejected": [said("No")]}, "one of 'chosen' and 'rejected' is a text"),
    ({"prompt": "Hi", "chosen": [user("Ho")], "rejected": [said("No")]}, "the last message is not the assistant's"),
    ({"chosen": "Ho ho", "rejected": "No no"}, "there is no prompt"),
    ({"chosen": [said("Ho")], "rejected": [said("No")]}, "there is no prompt"),
    ({"prompt": "Why?", "chosen": [user("Hi"), said("Ho")], "rejected": [user("Hi"), said("No")]}, "the prompt is not"),
    ({"prompt": 5, "chosen": "Ho", "rejected": "No"}, "'prompt' is an int, not a string"),
]


@pytest.mark.parametrize(("row", "what"), BAD_ROWS)
def test_rows_that_are_no_preferences_are_counted_with_the_first(row, what):
    good = [{"prompt": f"Name heron {n}.", "chosen": GOOD, "rejected": BAD} for n in range(8)]
    with pytest.raises(DataError) as caught:
        load([*good, row, row])
    assert "2 of 10 rows are no records" in str(caught.value)
    assert f"2 rows: {what}" in str(caught.value) and "first record 9" in str(caught.value)


KINDS = [
    ({"instruction": "Hi", "input": "", "output": "Ho"}, "records with one answer each", "objective at sft."),
    ({"messages": [user("Hi"), said("Ho")]}, "records with one answer each", "objective at sft."),
    ({"prompt": "Hi", "completion": "Ho", "label": True}, "answers marked good or bad", "make such a row."),
    ({"prompt": "Hi", "response_0": "Ho", "response_1": "No"}, "two answers to each prompt", "as 'rejected'."),
    ({"instruction": "Hi"}, "prompts without answers", "OUT.json."),
]


@pytest.mark.parametrize(("row", "what", "last"), KINDS)
def test_rows_of_another_kind_are_called_by_it_with_what_is_needed(row, what, last):
    with pytest.raises(DataError) as caught:
        load([row] * 3)
    assert str(caught.value).startswith(f"<list>: these are {what}")
    assert str(caught.value).endswith(last)


def test_annotations_of_alpaca_eval_become_pairs_by_the_expression_of_the_message():
    both = {"instruction": ASKED, "output_1": BAD, "output_2": GOOD}
    rows = [{**both, "preference": 2}, {**both, "preference": 1.5}, {**both, "preference": 1}]
    with pytest.raises(DataError, match="annotations of AlpacaEval") as caught:
        load(rows)
    made = eval(str(caught.value).partition("rows = ")[2], {"rows": rows})
    assert load(made).records == [PAIR, PAIR.turned()]


def test_sft_points_to_preference_training():
    for row in SINGLE.values():
        with pytest.raises(DataError, match="set objective=dpo, or orpo"):
            load_records([row] * 3)


def test_the_fingerprint_knows_both_answers_and_their_order():
    pairs = [PAIR, PAIR.turned(), Preference(PAIR.chosen, Record(ASKED, "", "A crane."))]
    assert len({content_of(pair) for pair in pairs}) == 3
    rows = [SINGLE["TRL, standard"], {**SINGLE["TRL, standard"], "rejected": "A crane."}]
    assert load(rows[:1]).fingerprint != load(rows[1:]).fingerprint
    assert load(rows[:1]).fingerprint == load([SINGLE["HH"]]).fingerprint


def test_pairs_on_one_prompt_stand_on_one_side():
    rows = [{"prompt": f"Name heron {n % 20}.", "chosen": GOOD, "rejected": f"Stork {n}."} for n in range(60)]
    records = load(rows)
    train, validation = split_records(records, 0.1, seed=3)
    assert (len(train), len(validation)) == (54, 6)
    assert not {one.prompt for one in train.records} & {one.prompt for one in validation.records}
    _, larger = split_records(records, 10, seed=3)
    assert len(larger) == 12 and {*validation.numbers} < {*larger.numbers}
    with pytest.raises(ConfigError, match="preferences on 1 prompt in <list>; those on one stand on one side"):
        split_records(load([{**row, "prompt": ASKED} for row in rows]), 0.1, seed=3)


def test_a_text_of_its_own_under_another_key_is_told():
    passage = "The grey heron stands in the shallow water for hours and waits."
    rows = [{**SINGLE["TRL, standard"], "context": f"{passage} {n}"} for n in range(20)]
    with pytest.raises(DataError, match="'context' is not read"):
        load(rows)
    columns = {"input": "context"}
    assert load(rows, columns=columns).records[3].chosen.input == f"{passage} 3"


QUESTIONS = [f"What is {n} + {n}?" for n in range(3)]


@pytest.mark.parametrize("key", ["input", "question", "context", "Prompt", "post_of_a_user"])
@pytest.mark.parametrize("begin", ["Sure, ", ""])
def test_a_question_under_another_key_is_told_and_not_replaced_by_words_that_answers_share(key, begin):
    rows = [
        {"system": "", key: q, "chosen": f"{begin}yes, {n}", "rejected": f"{begin}no"} for n, q in enumerate(QUESTIONS)
    ]
    columns = {"instruction": key}
    with pytest.raises(DataError, match=f"there is no prompt, and '{key}' may be it") as caught:
        load(rows)
    assert f"Pass columns={columns};" in str(caught.value)
    assert [one.chosen.instruction for one in load(rows, columns=columns)] == QUESTIONS
    if begin:
        assert {one.chosen.instruction for one in load(rows, columns={key: None})} == {"Sure,"}


def test_rows_with_and_without_shared_words_get_one_advice():
    """Orca's pairs, of which a few begin alike."""
    rows = [
        {
            "system": "Be brief.",
            "question": f"Name heron {n}.",
            "chosen": f"{'The' if n > 9 else n} one",
            "rejected": "The x",
        }
        for n in range(11)
    ]
    with pytest.raises(DataError) as caught:
        load(rows)
    assert "11 rows: there is no prompt, and 'question' may be it, first record 1" in str(caught.value)
    assert "columns={'instruction': 'question'}" in str(caught.value) and "'input'" not in str(caught.value)
    record = load(rows, columns={"instruction": "question"})[10]
    assert [one["content"] for one in record.chosen.messages] == ["Be brief.", "Name heron 10.", "The one"]


def test_a_question_beside_answers_as_messages_is_named():
    row = {"question": ASKED, "chosen": [said(GOOD)], "rejected": [said(BAD)]}
    with pytest.raises(DataError, match=r"Pass columns={'instruction': 'question'}"):
        load([row])
    assert only(row, columns={"instruction": "question"}) == PAIR


@pytest.mark.parametrize("more", [{"id": "a7"}, {"source": "Open Assistant"}, {"score_chosen": 3.5}, {"system": ""}])
def test_what_could_be_no_prompt_leaves_an_implicit_one(more):
    found = only({"chosen": "The sky is blue.", "rejected": "The sky is green.", **more})
    assert found.chosen == Record("The sky is", "", "blue.")


def test_a_system_text_stands_before_an_implicit_prompt():
    found = only({"system": "Be brief.", "chosen": "The sky is blue.", "rejected": "The sky is green."})
    assert [one["content"] for one in found.chosen.messages] == ["Be brief.", "The sky is", "blue."]


def test_an_empty_prompt_is_not_replaced_by_words_that_answers_share():
    row = {"prompt": "", "chosen": "Sure, 5", "rejected": "Sure, 6"}
    with pytest.raises(DataError, match="'prompt' is empty, so nothing is asked"):
        load([row])
    with pytest.raises(DataError, match="columns={'instruction': 'question'}"):
        load([{**row, "question": "2 + 3?"}])


TWICE = [
    ({"prompt": "Name a duck.", "instruction": ASKED, "chosen": GOOD, "rejected": BAD}, "prompt"),
    ({"prompt": f"{ASKED} In French.", "instruction": ASKED, "chosen": GOOD, "rejected": BAD}, "prompt"),
    ({"messages": [user("Name a duck.")], "prompt": ASKED, "chosen": GOOD, "rejected": BAD}, "messages"),
    ({"messages": [user(ASKED)], "conversations": [user("No")], "chosen": GOOD, "rejected": BAD}, "messages"),
    ({"messages": [user(ASKED)], "input": "In French", "chosen": GOOD, "rejected": BAD}, "input"),
    ({"messages": [user(ASKED)], "history": [["Hi", "Ho"]], "chosen": GOOD, "rejected": BAD}, "history"),
    ({**SINGLE["HH"], "input": "In French"}, "input"),
    ({**SINGLE["TRL, implicit prompt"], "history": [["Hi", "Ho"]]}, "history"),
    ({**SINGLE["UltraFeedback, binarised"], "messages": [user(ASKED), said("A crane.")]}, "messages"),
]


@pytest.mark.parametrize(("row", "key"), TWICE)
def test_a_second_prompt_that_says_something_else_is_an_error_with_its_count(row, key):
    good = [{"prompt": f"Name heron {n}.", "chosen": GOOD, "rejected": BAD} for n in range(8)]
    with pytest.raises(DataError, match="2 of 10 rows are no records") as caught:
        load([*good, row, row])
    assert f"2 rows: {key!r} says something else than the prompt" in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert only(row, columns={key: None}).answers == (GOOD, BAD)


def test_a_prompt_that_is_said_twice_is_read_once():
    rows = [
        {"prompt": f" {ASKED}\n", "instruction": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": None, "instruction": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED, "instruction": "", "chosen": GOOD, "rejected": BAD},
        {"prompt": f"\n\nHuman: {ASKED}\n\nAssistant:", "instruction": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED, "messages": [user(ASKED)], "chosen": GOOD, "rejected": BAD},
        {"prompt": None, "messages": [user(ASKED)], "chosen": GOOD, "rejected": BAD},
    ]
    assert [*load(rows)] == [PAIR] * 6
    row = {"prompt": "Add.\n\n2, 3", "instruction": "Add.", "input": "2, 3", "chosen": "5", "rejected": "6"}
    assert only(row).chosen == Record("Add.", "2, 3", "5")
    assert only({**row, "prompt": ASKED}, columns={"instruction": "prompt"}).chosen.instruction == ASKED


def test_two_system_texts_that_differ_are_an_error_and_that_of_the_prompt_is_kept():
    row = {"prompt": TURNS[:2], "chosen": [user("Hi"), said("Ho")], "rejected": [user("Hi"), said("No")]}
    assert only(row).chosen.messages == (*TURNS[:2], said("Ho"))
    with pytest.raises(DataError, match=r"two system texts differ: 'Be kind.' and 'Be brief.'"):
        load([{"system": "Be kind.", **row}])


@pytest.mark.parametrize("key", ["output", "response", "answer", "completion"])
def test_a_third_answer_is_told_with_its_count(key):
    rows = [{**SINGLE["TRL, standard"], key: text} for text in (GOOD, BAD, "A crane.", "Egrets.")]
    with pytest.warns(
        UserWarning, match=rf"'{key}' is not read, and holds text of its own \(2 of 4 rows, first record 3"
    ):
        assert [*load(rows)] == [PAIR] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(rows, columns={key: None})
        load(rows[:2])


@pytest.mark.parametrize("objective", ["kto", "DPO", "ipo", None, "", ["dpo"]])
def test_an_unknown_objective_is_an_error_with_the_choices(objective):
    for read in (load_records, lint, lambda data, objective: inspect(data, "demo", objective=objective)):
        with pytest.raises(ConfigError, match=r"objective: .* must be sft, dpo or orpo"):
            read([SINGLE["TRL, standard"]], objective=objective)


SIMPLE = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["Hi", "\n\nHuman: Hi"])
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "critic"]) | SIMPLE,
        "content": SIMPLE | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": SIMPLE}), max_size=2),
        "tool_calls": st.lists(SIMPLE, max_size=1),
        "train": SIMPLE,
    },
)
VALUE = SIMPLE | TURN | st.lists(TURN, max_size=4) | st.lists(SIMPLE, max_size=2)
KEYS = (
    "prompt",
    "instruction",
    "input",
    "messages",
    "conversations",
    "system",
    "tools",
    "history",
    "chosen",
    "rejected",
)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, VALUE)) | SIMPLE, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore")
def test_whatever_rows_hold_they_are_read_or_told(rows):
    try:
        found = load(rows)
    except DataError as error:
        assert str(error)
    else:
        for one in found.records:
            assert isinstance(one, Preference) and one.prompt == one.turned().prompt
            assert isinstance(one.chosen, Record) == isinstance(one.rejected, Record)
    with suppress(DataError):
        lint(rows, objective="dpo")
