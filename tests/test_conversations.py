"""Conversations, end to end: trained with a chat template, resumed, merged, asked, served, judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from alpaca_lora import answer, compare, diff_apply, diff_make, finetune, generate, inspect, load, merge
from alpaca_lora.data.records import load_records
from alpaca_lora.errors import ConfigError, DataError, TemplateError
from alpaca_lora.evaluation.contamination import check_contamination
from alpaca_lora.evaluation.pairs import Pair
from alpaca_lora.generation.sampling import Sampling
from alpaca_lora.generation.terminal import chat
from alpaca_lora.runs.identity import seal_of
from alpaca_lora.runs.run_file import RunFile

pytest.importorskip("openai")
TEMPLATE = (
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('a user speaks first') }}{% endif %}{{ bos_token }}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
CONVERSATIONS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Who is number {number}?"},
            {"role": "assistant", "content": f"I am {number}."},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": f"Then comes {number + 1}.", "weight": number % 2},
        ]
    }
    for number in range(12)
]
INSTRUCTIONS = [{"instruction": "Name a cat.", "input": "Tom", "output": "Tom."}] * 4
SETTINGS = {"val_set_size": 2, "batch_size": 4, "max_steps": 3, "learning_rate": 1e-2, "warmup_steps": 0}
SHORT = Sampling(max_new_tokens=6)
TURNS = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "I am 3."},
    {"role": "user", "content": "And then?"},
]


@pytest.fixture(scope="module")
def base(tiny_base_bpe, tmp_path_factory):
    folder = Path(shutil.copytree(tiny_base_bpe, tmp_path_factory.mktemp("chat") / "base"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "chat"
    return finetune(
        base_model=base, data=CONVERSATIONS + INSTRUCTIONS, output_dir=out, prompt_template="chat", **SETTINGS
    )


@pytest.fixture(scope="module")
def model(run):
    return load(run.output_dir)


def test_the_contract_holds_the_template_and_its_end_of_turn(run, base):
    contract = RunFile.read(run.output_dir).contract
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert contract.template == {"name": "chat", "chat_template": TEMPLATE}
    assert contract.stop_ids == [tokenizer.eos_token_id]
    assert AutoTokenizer.from_pretrained(run.output_dir).chat_template == TEMPLATE


def test_each_trained_turn_is_learned_once(run, base):
    """An answer of weight 0 is context; a record of one instruction is a conversation of one turn."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    report = inspect(base_model=base, data=CONVERSATIONS, prompt_template="chat", val_set_size=0, batch_size=4)
    answers = [turn["content"] for row in CONVERSATIONS for turn in row["messages"] if turn.get("weight", 1)]
    answers = [text for text in answers if text.startswith(("I am", "Then"))]
    assert len(answers) == 12 + 6
    expected = sum(len(tokenizer(text, add_special_tokens=False).input_ids) + 1 for text in answers)
    assert f"{expected:,} (" in report.rows["supervised tokens"]


def test_the_answer_depends_on_what_was_said_before(model):
    alone = model.encoder.message_ids(TURNS[-1:])
    assert model.encoder.message_ids(TURNS)[-len(alone) + 1 :] == alone[1:]  # behind BOS, and behind more
    assert model.generate(TURNS, sampling=SHORT) == model.answers([TURNS], SHORT)[0]
    assert "".join(model.stream(TURNS, sampling=SHORT)) == model.generate(TURNS, sampling=SHORT)


def test_a_system_text(model):
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert generate(model, "Hi", system="Be brief.", max_new_tokens=6) == model.generate(told, sampling=SHORT)


def test_a_template_of_one_instruction_has_no_place_for_it(base):
    plain = load(base)  # template alpaca
    with pytest.raises(
        DataError, match="'alpaca' has a place for one user's message; this conversation has system, user"
    ):
        generate(plain, "Hi", system="Be brief.")


def test_the_templates_own_words_come_back(model):
    with pytest.raises(DataError, match="the chat template 'chat' refuses: a user speaks first"):
        model.generate(TURNS[1:], sampling=SHORT)


def test_merged_equals_adapter(run, model, tmp_path):
    merged = merge(run.output_dir, tmp_path / "merged", dtype="float32")
    assert json.loads((Path(merged) / "merge_certificate.json").read_text())["logits"]["same_greedy_answers"] == 20
    assert AutoTokenizer.from_pretrained(merged).chat_template == TEMPLATE
    assert load(merged).generate(TURNS, sampling=SHORT) == model.generate(TURNS, sampling=SHORT)


def test_a_resumed_run_is_the_uninterrupted_one(run, base, tmp_path):
    settings = {**SETTINGS, "base_model": base, "data": CONVERSATIONS + INSTRUCTIONS, "prompt_template": "chat"}
    again = finetune(output_dir=tmp_path / "again", save_steps=1, **settings)
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "checkpoint-3")
    content = json.loads((tmp_path / "again" / "alpaca_lora.json").read_text(encoding="utf-8"))
    (tmp_path / "again" / "alpaca_lora.json").write_text(json.dumps({**content, "finished": False}), encoding="utf-8")
    resumed = finetune(output_dir=tmp_path / "again", save_steps=1, resume=True, **settings)
    for name, tensor in load_file(run.output_dir / "adapter_model.safetensors").items():
        assert tensor.equal(load_file(resumed.output_dir / "adapter_model.safetensors")[name])
    assert again.output_dir == resumed.output_dir


def test_conversations_do_not_fit_the_default_template(base, tmp_path):
    with pytest.raises(DataError) as caught:
        finetune(base_model=base, data=CONVERSATIONS, output_dir=tmp_path / "out", **SETTINGS)
    assert "a conversation does not fit the template 'alpaca'" in str(caught.value)
    assert "Choose prompt_template=chat" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_base_without_a_template(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(TemplateError, match="tokenizer has no chat template. Give one as a .jinja file"):
        finetune(
            base_model=str(folder), data=CONVERSATIONS, output_dir=tmp_path / "o", prompt_template="chat", **SETTINGS
        )


def test_a_template_of_a_file(tiny_base_bpe, tmp_path):
    (tmp_path / "mine.jinja").write_text(TEMPLATE, encoding="utf-8")
    template = str(tmp_path / "mine.jinja")
    run = finetune(
        base_model=tiny_base_bpe, data=CONVERSATIONS, output_dir=tmp_path / "o", prompt_template=template, **SETTINGS
    )
    contract = RunFile.read(run.output_dir).contract
    assert contract.template == {"name": template, "chat_template": TEMPLATE}
    (tmp_path / "mine.jinja").unlink()  # the adapter has its own
    assert load(run.output_dir).encoder.message_ids(TURNS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{% for", "refuses: .*unexpected|refuses: .*[Ee]xpected"),
        ("{{ messages[0].content }}", "does not write an answer behind its generation prompt"),
        ("{{ ''.__class__.__mro__ }}", "refuses: .*unsafe|refuses: access to attribute"),
    ],
)
def test_files_that_are_no_templates(tiny_base_bpe, tmp_path, text, problem):
    (tmp_path / "mine.jinja").write_text(text, encoding="utf-8")
    with pytest.raises(TemplateError, match=problem):
        load(tiny_base_bpe, prompt_template=str(tmp_path / "mine.jinja"))


def test_the_terminal_remembers_and_forgets(model):
    def talk(*lines):
        typed, shown = iter(lines), []

        def read(prompt):
            line = next(typed, None)
            if line is None:
                raise EOFError
            return line

        chat(model, SHORT, read=read, write=lambda text="", end="\n", flush=False: shown.append(text + end))
        return "".join(shown)

    first = model.generate("Who are you?", sampling=SHORT)
    said = [*TURNS[:1], {"role": "assistant", "content": first}, *TURNS[2:]]
    shown = talk("Who are you?", "And then?")
    assert "Earlier turns are remembered." in shown
    assert shown.rstrip("\n").endswith(model.generate(said, sampling=SHORT).rstrip("\n"))
    forgotten = talk("Who are you?", "/clear", "And then?")
    assert forgotten.rstrip("\n").endswith(model.generate("And then?", sampling=SHORT).rstrip("\n"))
    told = talk("Who are you?", "/system Be brief.", "And then?")
    system = [{"role": "system", "content": "Be brief."}, TURNS[2]]
    assert told.rstrip("\n").endswith(model.generate(system, sampling=SHORT).rstrip("\n"))


def test_answers_and_judgements(run, base, tmp_path):
    """A model trained on conversations is asked single instructions like any other, and its data are looked at."""
    asked = [{"instruction": "Who is number 3?"}, {"instruction": "Name a dog."}]
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps(asked), encoding="utf-8")
    found = answer(run.output_dir, questions, tmp_path / "a.json", max_new_tokens=6)
    rows = json.loads(found.path.read_text(encoding="utf-8"))
    model = load(run.output_dir)
    assert [row["output"] for row in rows] == [model.generate(row["instruction"], sampling=SHORT) for row in asked]
    other = answer(base, questions, tmp_path / "b.json", max_new_tokens=6)
    compared = compare(found.path, other.path, out=tmp_path / "compared")
    assert compared.pairs == 2


def test_the_wrong_kind_of_setting(base, tmp_path):
    with pytest.raises((ConfigError, TemplateError), match="prompt_template: 'chta' is neither"):
        finetune(base_model=base, data=CONVERSATIONS, output_dir=tmp_path / "out", prompt_template="chta")


LONG = "Which three rivers of the old country flow from high mountains to the northern sea without a single bridge?"


def test_conversations_are_looked_at_for_contamination(run, tmp_path):
    rows = [
        {
            "messages": [
                *({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}),
                *({"role": "user", "content": LONG}, {"role": "assistant", "content": "None."}),
            ]
        }
    ]
    path = tmp_path / "chats.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    records = load_records(path)
    data = {"source": str(path), "fingerprint": records.fingerprint}
    found = check_contamination("m", {**data, "seal": seal_of(data)}, [Pair("1", LONG, "", "a", "b")])
    assert found.records == 1
    assert [(one.record, one.field) for one in found.overlaps] == [(1, "instruction")]


def test_a_fully_tuned_model_travels_as_a_difference(base, tmp_path):
    """And asks as it was trained."""
    full = {**SETTINGS, "method": "full", "max_steps": 1, "dtype": "float32", "prompt_template": "chat"}
    tuned = finetune(base_model=base, data=CONVERSATIONS, output_dir=tmp_path / "tuned", **full)
    diff_make(base, tuned.output_dir, tmp_path / "diff")
    again = diff_apply(tmp_path / "diff", base, tmp_path / "again")
    assert RunFile.read(again).contract == RunFile.read(tuned.output_dir).contract
    assert load(again).generate(TURNS, sampling=SHORT) == load(tuned.output_dir).generate(TURNS, sampling=SHORT)
