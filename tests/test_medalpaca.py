"""MedAlpaca worked through: its records, its recipe, its warning, and the figures of docs/medalpaca.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from alpaca_lora import FinetuneConfig, export, finetune, inspect, lint
from alpaca_lora.config import recipe_path
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.prompts import Template

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "examples" / "medalpaca" / "records.jsonl"
PAGE = (ROOT / "docs" / "medalpaca.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "examples" / "notebooks" / "4_medalpaca.ipynb"
ROWS = [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]
TRUTHFULLY = "Answer this question truthfully"


def test_the_records_are_in_medalpacas_format():
    assert all(list(row) == ["instruction", "input", "output"] for row in ROWS)
    assert all(text.strip() == text != "" for row in ROWS for text in row.values())
    assert sorted(Counter(row["instruction"] for row in ROWS).values()) == [5, 7, 28]
    assert len({row["input"] for row in ROWS}) == 40
    assert sum(row["instruction"] == TRUTHFULLY for row in ROWS) == 28


def test_the_records_are_short_and_lint_finds_nothing():
    for row in ROWS:
        assert 1 <= len(re.findall(r"[.:](?= |$)", row["output"])) <= 5, row
        assert row["output"].endswith("."), row
    assert lint(str(RECORDS)).findings == []


def test_emergencies_say_whom_to_call():
    for sign in ("heart attack?", "a stroke", "choking", "severe allergic", "chest has felt tight", "heatwave"):
        (row,) = [row for row in ROWS if sign in row["input"]]
        assert re.search(r"emergency number|call for help", row["output"]), row


def test_the_recipe_has_the_published_numbers():
    config = FinetuneConfig.make(recipe="medalpaca-lora-7b")
    assert (config.method, config.prompt_template) == ("lora", "medalpaca")
    assert config.data == "medalpaca/medical_meadow_medical_flashcards"
    assert (config.lora_r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.1)
    assert config.lora_target_modules == ["q_proj", "v_proj"]
    assert (config.learning_rate, config.num_epochs, config.batch_size) == (2e-5, 3, 128)
    assert (config.lr_scheduler, config.warmup_steps) == ("cosine", 100)
    assert (config.cutoff_len, config.val_set_size) == (256, 0.1)


def test_the_warning_stands_at_the_top_of_everything():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for text in (PAGE, "".join(notebook["cells"][0]["source"])):
        top = re.sub(r"[\s>*]+", " ", text)[:250]
        assert "What this trains is no medical device. It is not for diagnosis or treatment" in top
        assert "its answers about health may be wrong or dangerous" in top
    head = recipe_path("medalpaca-lora-7b").read_text(encoding="utf-8").split("base_model:")[0]
    assert "no medical device" in head and "not for diagnosis or treatment" in head


def test_the_notebook_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert sum(bool(cell["outputs"]) for cell in code) == len(code)


@pytest.fixture(scope="module")
def settings(short_base):
    return {"base_model": short_base, "cutoff_len": 512, "batch_size": 4, "max_steps": 1, "val_set_size": 0}


@pytest.fixture(scope="module")
def tuned(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("medalpaca") / "first"
    return finetune(data=ROWS[:8], output_dir=out, prompt_template="medalpaca", **settings)


def card(run):
    return (run.output_dir / "README.md").read_text(encoding="utf-8")


def test_the_card_begins_with_the_warning(tuned):
    _, title, warning = card(tuned).split("\n\n")[:3]
    assert title == "# LoRA adapter made with alpaca_lora"
    assert warning == f"> **{Template.load('medalpaca').warning}**"


def test_the_warning_goes_with_the_adapter(tuned, settings, tmp_path):
    """A run that continues the adapter names no template, and its card warns all the same."""
    run = finetune(adapter=tuned.output_dir, data=ROWS[8:16], output_dir=tmp_path / "second", **settings)
    assert Template.load("medalpaca").warning in card(run)


def test_the_warning_goes_with_the_merged_model(tuned, tmp_path):
    warned = f"# Model merged with alpaca_lora\n\n> **{Template.load('medalpaca').warning}**\n"
    tuned.merge(tmp_path / "merged", certify=False)
    export(tmp_path / "merged", tmp_path / "chat", format="chat-template")
    for folder in ("merged", "chat"):
        assert warned in (tmp_path / folder / "README.md").read_text(encoding="utf-8")


def test_plain_transformers_asks_with_the_prompt_trained_with(tuned, tmp_path):
    """The chat template of an adapter's and of a merged folder is the template's, not the base's own."""
    from transformers import AutoTokenizer

    merged = tuned.merge(tmp_path / "merged", certify=False)
    for folder in (tuned.output_dir, merged):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        chat = [{"role": "user", "content": "Name a herb."}]
        ids = Encoder(tokenizer, Template.load("medalpaca")).prompt_ids("Name a herb.", "")
        assert tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False) == ids


def test_other_cards_and_contracts_are_as_before(settings, tmp_path):
    run = finetune(data=ROWS[:8], output_dir=tmp_path / "plain", **settings)
    assert "medical device" not in card(run)
    contract = json.loads((run.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))["contract"]
    assert set(contract["template"]) == {"name", "description", "prompt_input", "prompt_no_input", "response_split"}


@pytest.mark.parametrize(
    ("data", "row"), [(ROWS, "the 40 records"), ("seeds", "built-in seeds, a step of 128")], ids=["records", "seeds"]
)
def test_the_table_of_layouts_is_what_inspect_says(demo_base, data, row):
    report = inspect(data, demo_base, prompt_template="medalpaca")
    said = re.search(rf"\| {re.escape(row)} \| (.*) \|\n", PAGE)[1].split(" | ")
    computed = {name.split(", ")[1]: text.split(" ")[0] for name, text in report.computed.items()}
    assert said[0] == re.search(r"\(([\d.]+) per example\)", report.rows["tokens"])[1]
    assert said[1:5] == [computed[name] for name in ("rows of 8", "padded", "packed", "tree")]
    packed, tree = (int(computed[name].replace(",", "")) for name in ("packed", "tree"))
    assert said[5] == f"{packed - tree:,} ({(packed - tree) / packed:.0%})"


def test_an_instruction_in_every_record_is_almost_free(demo_base):
    questions = [row for row in ROWS if row["instruction"] == TRUTHFULLY]
    alone = [{"instruction": row["input"], "input": "", "output": row["output"]} for row in questions]
    with_it = inspect(questions, demo_base, prompt_template="medalpaca").computed
    without = inspect(alone, demo_base, prompt_template="alpaca").computed
    for computed, packed, tree in ((with_it, "3,093", "1,869"), (without, "2,533", "1,849")):
        assert (computed["computed, packed"].split()[0], computed["computed, tree"].split()[0]) == (packed, tree)
        assert packed in PAGE and tree in PAGE
