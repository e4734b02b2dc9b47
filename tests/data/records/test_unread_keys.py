"""Keys that nobody reads: what is lost is refused or told, once and with all rows; bookkeeping is silent."""

from __future__ import annotations

import warnings

import pytest

from alpaca_lora import lint
from alpaca_lora.data.columns import suggest
from alpaca_lora.data.records import Record, load_records
from alpaca_lora.errors import ConfigError, DataError

PASSAGE = "The ferry of line {} crossed the sound at noon and was met by a crowd of people on the quay."


def rows(count=40, **keys):
    """Records, every second with an input; each of `keys` is made from the row's number."""
    return [
        {
            "instruction": f"Tell me about the ferry of line {number}.",
            "input": f"line {number}" if number % 2 else "",
            "output": f"It runs {number} times a day.",
            **{key: make(number) for key, make in keys.items()},
        }
        for number in range(count)
    ]


def dolly(count=30):
    return [
        {
            "instruction": f"When did line {number} start?",
            "context": PASSAGE.format(number) if number % 3 == 0 else "",
            "response": f"In {1900 + number}.",
            "category": "closed_qa",
        }
        for number in range(count)
    ]


def test_dolly_is_told_its_columns_and_half_of_them_are_refused():
    whole = "columns={'input': 'context', 'output': 'response'}"
    with pytest.raises(DataError) as caught:
        load_records(dolly())
    assert str(caught.value).endswith(f"pass {whole}.")
    with pytest.raises(DataError) as caught:
        load_records(dolly(), columns={"output": "response"})
    assert "'context' is not read, and holds text, beside no input (10 of 30 rows, first record 1)" in str(caught.value)
    assert f"Pass {whole}, or leave it out on purpose with columns={{'output': 'response', 'context': None}}" in str(
        caught.value
    )
    found = load_records(dolly(), columns={"input": "context", "output": "response"})
    assert found.records[3] == Record("When did line 3 start?", PASSAGE.format(3), "In 1903.")
    assert found.unread == {"category": 30}
    assert not any(
        record.input for record in load_records(dolly(), columns={"output": "response", "context": None}).records
    )


@pytest.mark.parametrize("key", ["输入", "context", "question", "passage", "Kontext", "inputs_of_ours"])
def test_an_input_under_another_name_is_refused(key):
    text = PASSAGE if key == "inputs_of_ours" else "{}, 3"
    bare = [{"instruction": f"Add {number}.", key: text.format(number), "output": "x"} for number in range(20)]
    with pytest.raises(DataError, match=rf"'{key}' is not read.*20 of 20 rows.*columns=\{{'input': '{key}'\}}"):
        load_records(bare)
    assert load_records(bare, columns={"input": key}).records[7].input == text.format(7)
    assert load_records(bare, columns={key: None}).records[7].input == ""


@pytest.mark.parametrize("key", ["bad_output", "gpt4_answer", "worse_reply"])
def test_another_answer_is_never_advised_as_the_input(key):
    with_two = [{**row, "input": "", key: PASSAGE.format(number)} for number, row in enumerate(rows())]
    with pytest.raises(DataError, match=f"'{key}' is not read") as caught:
        load_records(with_two)
    assert "'input'" not in str(caught.value)
    assert f"columns={{'{key}': None}}" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "make", "count"),
    [
        ("preprompt", lambda n: "Be kind." if n < 3 else "", 3),
        ("system_prompt", lambda n: "You are a pirate.", 40),
        ("past_turns", lambda n: [["Hi", "Hello"]] if n < 4 else [], 4),
        ("label", lambda n: n > 4, 5),
        ("label", lambda n: "False" if n < 5 else "True", 5),
        ("kto_tag", lambda n: int(n > 5), 6),
        ("weight", lambda n: 0 if n < 2 else 1, 2),
        ("loss_weight", lambda n: 0.5 if n < 2 else 1.0, 2),
        ("train", lambda n: n != 3, 1),
        ("masked", lambda n: n == 3, 1),
        ("functions", lambda n: '[{"name": "search"}]' if n == 0 else "[]", 1),
        ("function_call", lambda n: {"name": "f"} if n == 0 else None, 1),
        ("tool_calls", lambda n: [{"name": "f"}] if n == 0 else [], 1),
        ("images", lambda n: ["a.png"] if n == 0 else [], 1),
        ("chosen", lambda n: n > 6, 7),
        ("rejected", lambda n: "True" if n < 2 else "False", 2),
        ("is_good", lambda n: int(n > 2), 3),
        ("quality", lambda n: "bad" if n < 2 else "good", 2),
        ("is_test", lambda n: n < 4, 4),
        ("split", lambda n: "test" if n < 8 else "train", 8),
        ("Split", lambda n: ["Validation", "held-out", "train"][min(n, 2)], 2),
        ("subset", lambda n: "dev_2", 40),
        ("context", lambda n: PASSAGE.format(n), 40),
        *((key, lambda n: "You are a pirate.", 40) for key in ("systemPrompt", "system_message", "persona")),
        ("System Message", lambda n: f"{PASSAGE} You are pirate {n}.", 40),
        *((key, lambda n: [["Hi", "Hello"]], 40) for key in ("chat_history", "previousMessages")),
        ("conversation-history", lambda n: "Hi. Hello." if n < 3 else "", 3),
        ("messages", lambda n: [{"role": "user", "content": f"So {n}?"}] * 3, 40),
        ("status", lambda n: "rejected" if n < 4 else "approved", 4),
        ("status", lambda n: ["Rejected", "pending"][n % 2], 20),
        ("feedback", lambda n: "thumbs-down" if n < 3 else "thumbs-up", 3),
        ("feedback", lambda n: ["thumbs_down", "thumbs_up", ""][n % 3], 14),
        *((key, lambda n: n != 3, 1) for key in ("use", "keep", "isGood")),
        *((key, lambda n: n == 3, 1) for key in ("toxic", "hallucinated", "flagged", "isFlagged")),
        *((key, lambda n: f"cat{n}", 40) for key in ("word", "code", "review", "passage", "sentence")),
        *((key, lambda n: [f"cat{n}"], 40) for key in ("retrieved", "contexts", "documents")),
        ("table", lambda n: [[1, 2], [3, 4]], 40),
        ("choices", lambda n: ["pear", "apple"], 40),
        ("options", lambda n: [n, 7], 40),
        ("option_a", lambda n: "pear", 40),
    ],
)
def test_keys_that_change_what_is_learnt_are_refused(key, make, count):
    with pytest.raises(DataError) as caught:
        load_records(rows(**{key: make}))
    message = str(caught.value)
    assert f"{key!r} is not read" in message and f"({count} of 40 rows, first record" in message
    assert f"columns={{{key!r}: None}}" in message
    assert len(load_records(rows(**{key: make}), columns={key: None})) == 40


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("system", lambda n: ""),
        ("history", lambda n: []),
        ("history", lambda n: None),
        ("label", lambda n: True),
        ("label", lambda n: n % 3),
        ("label", lambda n: "sports"),
        ("weight", lambda n: 1.0),
        ("weight", lambda n: 2),
        ("train", lambda n: True),
        ("tools", lambda n: "[]"),
        ("system", lambda n: float("nan")),
        ("id", lambda n: f"alpaca-{n}"),
        ("url", lambda n: f"https://example.org/a/folder/with/a/long/name/and/another/one/{n}.html"),
        ("source", lambda n: "leetcode"),
        ("license", lambda n: "Creative Commons Attribution-ShareAlike 4.0 International, see the file LICENSE"),
        ("meta", lambda n: [{"note": PASSAGE.format(n)}]),
        ("instances", lambda n: [{"input": PASSAGE.format(n), "output": "x"}]),
        ("score", lambda n: n / 7),
        ("score", lambda n: 0),
        ("rating", lambda n: n + 1),
        ("quality", lambda n: "high"),
        ("rating", lambda n: float("nan") if n else 3),
        ("chosen", lambda n: True),
        ("rejected", lambda n: False),
        ("split", lambda n: "train"),
        ("fold", lambda n: n % 5),
        ("subset", lambda n: "latest contest"),
        ("messages", lambda n: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]),
        ("messages", lambda n: [{"role": "system", "content": rows()[n]["input"]}, *said(rows()[n])]),
        ("status", lambda n: "done"),
        ("feedback", lambda n: "thumbs_up"),
        ("toxic", lambda n: False),
        ("use", lambda n: "commercial"),
        ("word", lambda n: "ferry"),
        ("options", lambda n: ["ferry", "line"]),
        ("A", lambda n: "pear"),
        ("code", lambda n: n),
        ("text", lambda n: rendered(rows()[n])),
        ("prompt", lambda n: rendered(rows()[n]).partition("### Response:")[0]),
    ],
)
def test_bookkeeping_and_copies_are_silent(key, make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_records(rows(**{key: make})).records == load_records(rows()).records


def test_rows_for_testing_are_counted_by_value():
    with pytest.raises(DataError) as caught:
        load_records(rows(split=lambda n: "test" if n in (3, 4) else "validation" if n == 5 else "train"))
    assert str(caught.value) == (
        "<list>: 'split' is not read, and holds what a row is for (37 'train', 2 'test', 1 'validation'), and some are "
        "set aside for testing (3 of 40 rows, first record 4). Pass the rows to train on alone, or leave it out on "
        "purpose with columns={'split': None}."
    )


@pytest.mark.parametrize(
    ("key", "make", "count"),
    [
        ("reward", lambda n: n / 7 - 1, 7),
        ("score", lambda n: n % 4, 10),
        ("rating", lambda n: str(-n), 40),
        ("upvotes", lambda n: n - 3, 4),
        ("quality", lambda n: ["-1", "0", "1"][n % 3], 27),
        ("reward", lambda n: -0.5, 40),
    ],
)
def test_scores_of_rows_judged_bad_are_told(key, make, count):
    with pytest.warns(UserWarning, match=rf"'{key}' is.*judged bad \({count} of 40 rows.*Remove these rows, or"):
        assert len(load_records(rows(**{key: make}))) == 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_records(rows(**{key: make}), columns={key: None})) == 40


def said(row):
    return [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]


def rendered(row):
    return (
        "Below is an instruction that describes a task.\n\n### Instruction:\n"
        f"{row['instruction']}\n\n### Input:\n{row['input']}\n\n### Response:\n{row['output']}"
    )


def test_a_few_rows_whose_rendered_text_differs_do_not_stop_a_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_records(rows(text=lambda n: rendered(rows()[n]) if n else PASSAGE.format(n)))
    assert found.unread == {"text": 40}


@pytest.mark.parametrize("key", ["explanation", "notes"])
def test_other_texts_are_told_once(key):
    with pytest.warns(UserWarning, match=rf"'{key}' is not read, and holds text of its own \(40 of 40 rows") as caught:
        load_records(rows(**{key: lambda n: PASSAGE.format(n)}))
    assert len(caught) == 1 and caught[0].filename == __file__


def test_reasoning_beside_no_input_is_told_and_not_taken_for_an_input():
    data = [{"instruction": f"Add {n}.", "output": "x", "reasoning": PASSAGE.format(n)} for n in range(9)]
    with pytest.warns(UserWarning, match="'reasoning' is not read"):
        load_records(data)


def test_worse_answers_are_refused_and_better_ones_by_name_are_not():
    pairs = [{"prompt": f"Say {n}", "chosen": "Yes.", "rejected": "No."} for n in range(4)]
    assert len(load_records(pairs, columns={"instruction": "prompt", "output": "chosen"})) == 4
    with pytest.raises(DataError, match="^<list>: these are preference pairs"):
        load_records(pairs, columns={"instruction": "prompt", "output": "rejected"})
    with pytest.raises(DataError, match="^<list>: these are preference pairs"):
        load_records(rows(chosen=lambda n: "Yes.", rejected=lambda n: "No."))


def test_marks_inside_turns_count_for_the_answer_alone():
    def talk(number, **answer):
        human = {"role": "user", "content": f"Hi {number}", "weight": 0}
        return {"messages": [human, {"role": "assistant", "content": "Hello", **answer}]}

    assert load_records([talk(n) for n in range(3)]).records[2] == Record("Hi 2", "", "Hello")
    with pytest.raises(DataError, match=r"<list>: 1 of 3 rows are conversations of which nothing.*\n.*first record 2"):
        load_records([talk(n, weight=int(n != 1)) for n in range(3)])
    with pytest.raises(DataError, match=r"'messages\[\].rejected' is not read.*1 of 3 rows, first record 2"):
        load_records([talk(n, rejected=n == 1) for n in range(3)])


def test_all_that_is_wrong_with_keys_is_said_at_once():
    with pytest.raises(DataError) as caught:
        load_records(rows(persona=lambda n: "Be kind.", label=lambda n: False))
    assert str(caught.value).startswith("<list>: 2 problems with its keys")
    assert "'persona' is not read" in str(caught.value) and "'label' is not read" in str(caught.value)


def test_a_key_left_out_has_to_be_there():
    with pytest.raises(DataError, match="columns leaves out 'contxt', which no record has. Did you mean 'context'"):
        load_records(rows(context=lambda n: "x"), columns={"contxt": None, "context": None})
    for columns, message in (
        ({"output": None}, "'output' cannot be left out"),
        ({"input": "context", "context": None}, "'context' is both read and left out"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_records(rows(), columns=columns)


def test_missing_values_of_pandas_are_none():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"instruction": ["Add 1.", "Add 2."], "input": ["1", None], "output": ["2", "4"]})
    frame.loc[1, "input"] = float("nan")
    expected = [Record("Add 1.", "1", "2"), Record("Add 2.", "", "4")]
    assert load_records(frame.to_dict("records")).records == expected
    assert load_records(frame.convert_dtypes().to_dict("records")).records == expected
    frame["output"] = ["2", float("nan")]
    with pytest.raises(DataError, match=r"1 of 2 records \(50.0%; numbers 2\) have an empty output"):
        load_records(frame.to_dict("records"))


def test_columns_are_suggested_by_the_names_others_use():
    assert suggest(["system_prompt", "question", "response"]) == {"instruction": "question", "output": "response"}
    assert suggest(["Instruction", "Context", "Answer"]) == {
        "instruction": "Instruction", "input": "Context", "output": "Answer"
    }  # fmt: skip
    assert suggest(["指令", "输入", "输出"]) == {"instruction": "指令", "input": "输入", "output": "输出"}
    assert suggest(["q", "response"], {"instruction": "q"}) == {"instruction": "q", "output": "response"}


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_nesting_of_any_depth_ends_in_no_traceback(tmp_path, wrap):
    deep = text = "The old ferry of the western line crossed the cold sound at noon each day in May"
    for _ in range(100_000):
        deep = wrap(deep)
    for key in ("split", "score", "weight", "note"):
        assert load_records([{**rows(1)[0], key: deep}]).unread == {key: 1}
    for key, said in (
        ("context", "'context' is not read"),
        ("output", "'output' is"),
        ("messages", "no list of turns"),
    ):
        row = {"messages": deep} if key == "messages" else {**rows(1)[0], key: deep}
        with pytest.raises(DataError, match=said):
            load_records([row])
    with pytest.raises(DataError, match="record 1 holds a value that JSON has not"):
        lint([{**rows(1)[0], "note": deep}], fix=tmp_path / "new.json")
    found = lint([{"instruction": "Say it.", "output": text}], against=[{"question": deep}]).findings
    assert [one.check for one in found] == ["evaluation-overlap"]


@pytest.mark.parametrize("columns", [{}, {"instruction": "question", "input": "about", "output": "answer"}])
def test_choices_are_refused_together(columns):
    ask, about, answer = columns.values() or ("instruction", "input", "output")
    data = [{ask: "Which is red?", about: "fruit", "A": "pear", "B": f"apple {n}", answer: "B"} for n in range(3)]
    with pytest.raises(DataError, match=r"'A' is not read, and holds choices of the question, with 'B'") as caught:
        load_records(data, columns=columns)
    message = str(caught.value)
    assert message.count("is not read") == 1 and message.endswith(f"columns={ {**columns, 'A': None, 'B': None} }.")


def test_a_list_is_not_advised_as_the_input():
    data = [{"instruction": "Add up.", "table": [[n, 2]], "output": "x"} for n in range(3)]
    with pytest.raises(DataError, match="'table' is not read, and holds text, beside no input") as caught:
        load_records(data)
    assert str(caught.value).endswith(
        "Write it into the input, or leave it out on purpose with columns={'table': None}."
    )


@pytest.mark.parametrize("key", ["system_message", "systemPrompt", "chat_history", "persona"])
def test_system_texts_and_turns_are_never_advised_as_the_input(key):
    with pytest.raises(DataError, match=f"'{key}' is not read") as caught:
        load_records([{"instruction": "Hi", "output": "Ho", key: PASSAGE.format(n)} for n in range(4)])
    assert "'input'" not in str(caught.value)


def test_a_column_without_a_name_is_never_suggested_and_marks_in_names_do_not_count():
    assert suggest(["", "question", "reply"]) == {"instruction": "question", "output": "reply"}
    assert suggest(["Say 0", "", " "]) == {}
    assert suggest(["Question", "User Input", "responseText"], {"instruction": "Question"}) == {
        "instruction": "Question", "input": "User Input", "output": "responseText"
    }  # fmt: skip


@pytest.mark.parametrize("key", ["choices", "word"])
def test_what_the_question_says_already_is_silent_in_any_script(key):
    def row(ask, part):
        return {"instruction": ask, "output": "x", key: [part] if key == "choices" else part}

    data = [row("这是苹果还是梨？", "苹果"), row("Is it a pear?", "pear"), row("Which (a or b)?", "(a or b)")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_records(data)) == 3
    with pytest.raises(DataError, match=f"'{key}' is not read.*1 of 1 row"):
        load_records([row("Is it a pearl?", "pear")])


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("systemPrompt", "Name it 'system', remove"),
        ("chat_history", "Write them as pairs under 'history'"),
        ("functions", "Name schemas of tools 'tools'"),
    ],
)
def test_what_is_read_under_another_name_is_told_that_name(key, advice):
    with pytest.raises(DataError, match=f"'{key}' is not read.*{advice}"):
        load_records(rows(**{key: lambda n: "Be kind."}))


def test_marks_of_whole_conversations_are_never_lost():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}] * 2
    with pytest.raises(DataError, match=r"'label' is not read.*1 of 2 rows, first record 2"):
        load_records([{"messages": turns, "label": good} for good in (True, False)])
