"""Answers to a file of instructions: the model's own, in AlpacaEval's format, continued, and never another's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from alpaca_lora import Sampling, answer, cli, finetune, load
from alpaca_lora.errors import AlpacaLoraError, ConfigError, DataError
from alpaca_lora.evaluation.outputs import read_outputs
from alpaca_lora.files import sha256_of_json
from alpaca_lora.generation import loading
from alpaca_lora.generation import model as local
from alpaca_lora.llm import model_ref as respondent
from alpaca_lora.llm.endpoint_errors import EndpointError
from alpaca_lora.llm.journal import read_journal
from alpaca_lora.runs.identity import seal_of
from alpaca_lora.runs.run_file import read_contract

_PATH = Path(__file__).parents[1] / "selfinstruct" / "scripted_server.py"
_SPEC = importlib.util.spec_from_file_location("scripted_server", _PATH)
assert _SPEC and _SPEC.loader
scripted_server = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scripted_server)

ASKED = [
    {"instruction": "Name three fruits.", "category": "lists"},
    {"instruction": "Add the numbers.", "input": "2, 3"},
    {"instruction": "What is the capital of France?"},
    {"instruction": "Is this a fruit?", "input": "potato"},
    {"instruction": "Why is the sky blue?"},
]


@pytest.fixture
def instructions(tmp_path):
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(ASKED))
    return path


@pytest.fixture(scope="module")
def adapter(short_base, records, tmp_path_factory):
    rows = tmp_path_factory.mktemp("data") / "rows.json"
    rows.write_text(json.dumps([{"q": record.instruction, "output": record.output} for record in records]))
    settings = {"val_set_size": 0, "batch_size": 4, "max_steps": 1, "dtype": "float32", "columns": {"instruction": "q"}}
    out = tmp_path_factory.mktemp("runs") / "tuned"
    return finetune(base_model=short_base, data=str(rows), output_dir=out, prompt_template="alpaca_short", **settings)


def test_an_adapter_answers_as_it_does_alone(adapter, instructions, tmp_path, capsys):
    folder = adapter.adapter_dir
    cli.main(["answer", str(folder), str(instructions), str(tmp_path / "m.json"), "--max_new_tokens", "6"])
    assert "m.json: 5 answers of tuned (" in capsys.readouterr().out
    made, model = read_outputs(tmp_path / "m.json"), load(folder)
    requests = [(row["instruction"], row.get("input", "")) for row in ASKED]
    assert [(one.instruction, one.input) for one in made] == requests
    assert [one.output for one in made] == model.answers(requests, Sampling(max_new_tokens=6))
    assert {one.generator for one in made} == {"tuned"} and made[0].category == "lists"
    settings = json.loads(made[0].settings)
    run = json.loads((folder / "alpaca_lora.json").read_text())
    assert settings["contract"] == sha256_of_json(vars(read_contract(folder)))
    assert settings["training_data"] == {
        "source": run["data"]["source"],
        "fingerprint": run["data"]["fingerprint"],
        "seal": run["data"]["seal"],
        "columns": {"instruction": "q"},
    }
    assert seal_of(settings["training_data"]) == run["data"]["seal"] != ""
    assert (settings["kind"], settings["max_new_tokens"], settings["temperature"]) == ("local", 6, 0.0)


def test_it_goes_on_and_answers_nothing_twice(short_base, instructions, tmp_path, monkeypatch):
    whole = answer(short_base, instructions, tmp_path / "whole.json", max_new_tokens=5)
    monkeypatch.setattr(local, "MAX_ROWS", 2)  # a batch
    complete, batches = local.LocalModel.complete, []

    def dying(self, prompts, *rest):
        batches.append(len(prompts))
        if len(batches) == 2:
            raise MemoryError
        return complete(self, prompts, *rest)

    monkeypatch.setattr(local.LocalModel, "complete", dying)
    with pytest.raises(MemoryError):
        answer(short_base, instructions, tmp_path / "m.json", max_new_tokens=5)
    assert not (tmp_path / "m.json").exists()
    assert len(read_journal(tmp_path / "m.journal").answers) == 2
    answer(short_base, instructions, tmp_path / "m.json", max_new_tokens=5)
    assert batches == [2, 2, 2, 1]  # the second one was lost
    assert (tmp_path / "m.json").read_text() == whole.path.read_text()
    monkeypatch.setattr(loading, "load_local", None)  # nothing is left to load it for
    assert answer(short_base, instructions, tmp_path / "m.json", max_new_tokens=5).answered == 5


def test_other_settings_or_another_model_are_named(short_base, short_base_bpe, instructions, tmp_path):
    answer(short_base, instructions, tmp_path / "m.json", max_new_tokens=2)
    with pytest.raises(ConfigError) as caught:
        answer(short_base_bpe, instructions, tmp_path / "m.json", max_new_tokens=3)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["model", "max_new_tokens"]
    instructions.write_text(json.dumps(ASKED[:2]))
    with pytest.raises(ConfigError, match="^instructions: the file of instructions has changed .* another file.$"):
        answer(short_base, instructions, tmp_path / "m.json", max_new_tokens=2)


def test_an_adapter_trained_anew_is_another(adapter, instructions, tmp_path):
    found = respondent.ModelRef(str(adapter.adapter_dir)).identity
    assert len(found["weights"]) == len(found["contract"]) == 64
    assert respondent.ModelRef("demo").identity["weights"] is None


def test_a_prompt_too_long_has_no_answer_and_the_rest_have(short_base, instructions, tmp_path):
    instructions.write_text(json.dumps([*ASKED[:1], {"instruction": "long " * 2500}, *ASKED[1:2]]))
    found = answer(short_base, instructions, tmp_path / "m.json", max_new_tokens=2)
    assert found.answered == 2 and list(found.failed) == [2]
    assert "1 instruction without one; number 2: the prompt has" in str(found)
    made = [one.instruction for one in read_outputs(tmp_path / "m.json")]
    assert made == ["Name three fruits.", "Add the numbers."]


def test_nothing_can_be_answered(short_base, instructions, tmp_path):
    instructions.write_text(json.dumps([{"instruction": "long " * 2500}]))
    with pytest.raises(DataError, match="no instruction could be answered: the prompt has"):
        answer(short_base, instructions, tmp_path / "m.json")


@pytest.mark.parametrize(
    ("out", "settings", "message"),
    [
        ("m.txt", {}, "end it in .json, which AlpacaEval reads, or in .jsonl, which FastChat does"),
        ("taken.json", {}, "taken.json: is there already"),
        ("m.json", {"max_new_tokens": 0}, "max_new_tokens: 0 must be at least 1"),
        ("m.json", {"max_cost": 1.0}, "max_cost: 1.0 needs price_in and price_out"),
    ],
)
def test_bad_settings(short_base, instructions, tmp_path, out, settings, message):
    (tmp_path / "taken.json").write_text("[]")
    with pytest.raises(AlpacaLoraError, match=message):
        answer(short_base, instructions, tmp_path / out, **settings)


def test_a_server_answers(instructions, tmp_path):
    texts = [f"answer {number}" for number in range(5)]
    with scripted_server.ScriptedServer([{"text": text} for text in texts], key="sk-1") as server:
        settings = {"base_url": server.url, "key": "sk-1", "concurrency": 1, "price_in": 1.0, "price_out": 1.0}
        found = answer("vendor/m", instructions, tmp_path / "m.json", **settings)
        asked = [body["messages"] for body in server.bodies]
    assert asked[1] == [{"role": "user", "content": "Add the numbers.\n\n2, 3"}]
    made = read_outputs(tmp_path / "m.json")
    assert [one.output for one in made] == texts and made[0].generator == "vendor/m"
    assert json.loads(made[0].settings) == {"kind": "chat", "max_new_tokens": 512, "temperature": 0.0}
    assert "cost 0.0000" in found.spent
    assert "sk-1" not in (tmp_path / "m.journal" / "journal.jsonl").read_text()


def test_a_refused_answer_does_not_bind_the_corrected_one(adapter, instructions, tmp_path):
    with pytest.raises(AlpacaLoraError):
        answer(adapter.adapter_dir, instructions, tmp_path / "m.json", prompt_template="alpaca", max_new_tokens=2)
    assert (tmp_path / "m.journal" / "journal.jsonl").exists()
    assert answer(adapter.adapter_dir, instructions, tmp_path / "m.json", max_new_tokens=2).answered == 5


def test_a_file_that_cannot_be_made_is_told_before_a_model_is_loaded(instructions):
    for out, reason in ((instructions / "x.json", "Not a directory"), (Path("/proc/x.json"), ".*")):
        with pytest.raises(ConfigError, match=f"^{out}: cannot be written: {reason}. Name another file.$"):
            answer("no-such-model", instructions, out)


def test_a_server_that_continues_texts_sees_the_template(instructions, tmp_path):
    with scripted_server.ScriptedServer([{"text": "x"}] * 5) as server:
        answer("m", instructions, tmp_path / "m.json", base_url=server.url, kind="completions", concurrency=1)
        assert server.bodies[1]["prompt"].endswith("### Input:\n2, 3\n\n### Response:\n")


def test_a_budget_writes_no_file_until_it_is_raised(instructions, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with scripted_server.ScriptedServer([{"text": "x"}] * 5, key="sk-1") as server:
        command = ["answer", "m", str(instructions), str(tmp_path / "m.json"), "--base_url", server.url]
        with pytest.raises(SystemExit):
            cli.main([*command, "--token_budget", "790"])
        assert "The budget allows no more, so the file is not written yet" in capsys.readouterr().out
        assert not (tmp_path / "m.json").exists() and len(server.bodies) == 1
        cli.main(command)
        assert len(read_outputs(tmp_path / "m.json")) == len(server.bodies) == 5


# Replies that are no answers

APART = {"choices": [{"message": {"content": None, "reasoning_content": "Hm."}, "finish_reason": "stop"}]}
FILTERED = {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}
USELESS = {
    "thoughts without end": ({"text": "<think>\nIt may be 5."}, "switch thinking off"),
    "thoughts apart": ({"text": "", **APART}, "switch thinking off"),
    "nothing": ({"text": ""}, "Nothing comes back"),
    "filtered": ({"text": "", **FILTERED}, "content filter kept the reply back"),
    "without end": ({"text": "{" * 300_000}, "does not keep to the limit"),
}


@pytest.mark.parametrize("concurrency", [1, 8, 32])
@pytest.mark.parametrize("kind", USELESS)
def test_a_model_none_of_whose_replies_is_an_answer_is_paid_for_ten(tmp_path, kind, concurrency):
    reply, words = USELESS[kind]
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([{"instruction": f"Name number {number}."} for number in range(40)]))
    settings = {"concurrency": concurrency, "max_new_tokens": 64}
    with scripted_server.ScriptedServer([reply] * 99, seconds=0.001) as server:
        with pytest.raises(
            EndpointError, match=rf"none of its first 10 replies can be used(.|\n)*{words}(.|\n)*goes on"
        ):
            answer("m", asked, tmp_path / "m.json", base_url=server.url, **settings)
        assert len(server.bodies) == 10
    assert not (tmp_path / "m.json").exists()
    with scripted_server.ScriptedServer([{"text": "It is so."}] * 99, seconds=0.001) as server:
        found = answer("m", asked, tmp_path / "m.json", base_url=server.url, **settings)
        assert len(server.bodies) == 40  # those that had a useless reply included
    assert (found.answered, found.failed) == (40, {})
    assert {one.output for one in read_outputs(tmp_path / "m.json")} == {"It is so."}


def test_thoughts_are_no_answers(instructions, tmp_path):
    texts = ["<think>5?</think>\n\nFive.", "Six?\n</think>\n\nSix.", "<think>\nSeven", "Use `<think>`.", ""]
    with scripted_server.ScriptedServer([{"text": text} for text in texts]) as server:
        found = answer("m", instructions, tmp_path / "m.json", base_url=server.url, concurrency=1)
        assert len(server.bodies) == 5
    made = json.loads((tmp_path / "m.json").read_text())
    assert [one["output"] for one in made] == ["Five.", "Six.", "Use `<think>`.", ""]
    assert (found.answered, found.thoughts, list(found.failed)) == (4, 2, [3])
    assert "number 3: the reply cannot be used: '<think>\\nSeven'" in str(found)
    assert "Before 2 of them the model thought aloud" in str(found)


def test_empty_answers_are_counted_and_filtered_ones_are_none(instructions, tmp_path):
    script = [{"text": "Five."}, {"text": ""}, {"text": "", **FILTERED}, {"text": " "}, {"text": "Six."}]
    with scripted_server.ScriptedServer(script) as server:
        found = answer("m", instructions, tmp_path / "m.json", base_url=server.url, concurrency=1)
    made = json.loads((tmp_path / "m.json").read_text())
    assert [one["output"] for one in made] == ["Five.", "", "", "Six."]
    assert (found.answered, found.empty, list(found.failed)) == (4, 2, [3])
    assert "4 answers of m" in str(found) and "2 of them are empty." in str(found)
    assert "number 3: the reply cannot be used: ''. The server's content filter kept" in str(found)


def test_replies_of_no_use_are_not_called_done(instructions, tmp_path):
    said = r"none of its first 5 replies(.|\n)*\n0 of 5 answers are done \("
    with scripted_server.ScriptedServer([{"text": ""}] * 5) as server, pytest.raises(EndpointError, match=said):
        answer("m", instructions, tmp_path / "m.json", base_url=server.url)
    with scripted_server.ScriptedServer([{"text": "Yes."}] * 5) as server:
        found = answer("m", instructions, tmp_path / "m.json", base_url=server.url)
        assert len(server.bodies) == found.answered == 5 and found.empty == 0


def test_half_a_character_costs_no_answer(instructions, tmp_path):
    with scripted_server.ScriptedServer([{"text": "A \ud83d half."}] * 5) as server:
        answer("m", instructions, tmp_path / "m.json", base_url=server.url)
    assert {one.output for one in read_outputs(tmp_path / "m.json")} == {"A \ufffd half."}


def test_a_setting_that_the_model_refuses_is_told_and_written_down(instructions, tmp_path):
    said = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) is supported."
    with scripted_server.ScriptedServer(["400", *[{"text": "x"}] * 5]) as server:
        server._refuse = lambda writer, status, message, headers=None: server._respond(
            writer, status, {"error": {"message": said, "param": "temperature", "code": "unsupported_value"}}
        )
        with pytest.warns(UserWarning, match="m at .* refuses 'temperature' and is asked without it"):
            found = answer("m", instructions, tmp_path / "m.json", base_url=server.url, concurrency=1)
    assert ["temperature" in body for body in server.bodies] == [True, *[False] * 5]
    assert found.left_out == ["temperature"] and "Asked without temperature" in str(found)
    (settings,) = {row["settings"] for row in json.loads((tmp_path / "m.json").read_text())}
    assert json.loads(settings) == {"kind": "chat", "max_new_tokens": 512, "temperature": None}


def test_settings_that_never_got_an_answer_bind_nothing(instructions, tmp_path):
    with scripted_server.ScriptedServer(["400"]) as server, pytest.raises(EndpointError, match="HTTP 400"):
        answer("m", instructions, tmp_path / "m.json", base_url=server.url, concurrency=1)
    with scripted_server.ScriptedServer([{"text": "x"}] * 5) as server:
        assert answer("m", instructions, tmp_path / "m.json", base_url=server.url, temperature=1.0).answered == 5


# Questions of several turns

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Name a fruit.", "Name another."]},
    {"question_id": 82, "category": "math", "turns": ["What is 2 + 3?"]},
    {"question_id": 99, "category": "writing", "turns": ["Why is the sky blue?", "Say it in one word."]},
]
CHAT = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    return path


def choices(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["question_id"]: row["choices"][0]["turns"] for row in rows}


def test_second_turns_are_asked_after_the_first_answers(short_base, questions, tmp_path, monkeypatch):
    (tmp_path / "chat.jinja").write_text(CHAT, encoding="utf-8")
    settings = {"prompt_template": str(tmp_path / "chat.jinja"), "max_new_tokens": 5}
    found = answer(short_base, questions, tmp_path / "m.jsonl", **settings)
    assert (found.answered, found.failed) == (3, {})
    model, short, made = load(short_base, prompt_template=settings["prompt_template"]), Sampling(max_new_tokens=5), {}
    for row in QUESTIONS:
        messages = []
        for asked in row["turns"]:
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": model.generate(messages, sampling=short)})
        made[row["question_id"]] = [message["content"] for message in messages[1::2]]
    assert choices(tmp_path / "m.jsonl") == made
    before = (tmp_path / "m.jsonl").read_bytes()
    monkeypatch.setattr(loading, "load_local", None)  # nothing is left to load it for
    answer(short_base, questions, tmp_path / "m.jsonl", **settings)
    assert (tmp_path / "m.jsonl").read_bytes() == before  # ids and times, too


def test_a_server_gets_the_conversation_and_goes_on_after_a_kill(questions, tmp_path):
    said = ["Apple.", "Five.", "Air."]
    with scripted_server.ScriptedServer([*[{"text": text} for text in said], "400"]) as server:
        first = answer("m", questions, tmp_path / "m.jsonl", base_url=server.url, concurrency=1)
    assert first.failed == {1: first.failed[1]} and first.answered == 2  # the server refused the first second turn
    (tmp_path / "other").mkdir()
    with scripted_server.ScriptedServer([{"text": text} for text in [*said, "Pear.", "Rayleigh."]]) as server:
        answer("m", questions, tmp_path / "other" / "m.jsonl", base_url=server.url, concurrency=1)
        asked = [body["messages"] for body in server.bodies]
    assert choices(tmp_path / "other" / "m.jsonl") == {
        81: ["Apple.", "Pear."],
        82: ["Five."],
        99: ["Air.", "Rayleigh."],
    }
    assert asked[3] == [
        {"role": "user", "content": "Name a fruit."},
        {"role": "assistant", "content": "Apple."},
        {"role": "user", "content": "Name another."},
    ]


def test_what_ended_between_the_turns_goes_on_from_there(questions, tmp_path):
    script, said = [*[{"text": text} for text in "ABC"], "401"], "3 of 5 answers are done"
    with scripted_server.ScriptedServer(script) as server, pytest.raises(EndpointError, match=said):
        answer("m", questions, tmp_path / "m.jsonl", base_url=server.url, concurrency=1)
    assert not (tmp_path / "m.jsonl").exists()
    with scripted_server.ScriptedServer([{"text": text} for text in "DE"]) as server:
        answer("m", questions, tmp_path / "m.jsonl", base_url=server.url, concurrency=1)
        assert [len(body["messages"]) for body in server.bodies] == [3, 3]
    assert choices(tmp_path / "m.jsonl") == {81: ["A", "D"], 82: ["B"], 99: ["C", "E"]}


def test_a_prompt_of_one_turn_takes_no_second_and_nothing_is_asked(short_base, questions, tmp_path):
    with pytest.raises(ConfigError, match="several turns, and this model's prompt takes one. Name a chat template"):
        answer(short_base, questions, tmp_path / "m.jsonl", max_new_tokens=2)
    with scripted_server.ScriptedServer() as server, pytest.raises(ConfigError, match="prompt takes one"):
        answer("m", questions, tmp_path / "n.jsonl", base_url=server.url, kind="completions")
    with pytest.warns(
        UserWarning, match="of 2 questions with several 'turns', only the first is asked. Name an answer"
    ):
        assert answer(short_base, questions, tmp_path / "o.json", max_new_tokens=2).answered == 3


def test_questions_of_one_turn_need_no_chat(short_base, instructions, tmp_path, capsys):
    command = ["answer", short_base, str(instructions), str(tmp_path / "m.jsonl"), "--max_new_tokens", "2"]
    cli.main(command)
    assert "Next: FastChat reads it as data/mt_bench/model_answer/NAME.jsonl" in capsys.readouterr().out
    assert list(choices(tmp_path / "m.jsonl")) == [1, 2, 3, 4, 5]
