"""The page about a run: its numbers are the journal's, what models wrote is text, and it needs no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from alpaca_lora import cli, self_instruct_report
from alpaca_lora.data.records import Record, load_records
from alpaca_lora.data.similarity import rouge_l
from alpaca_lora.errors import ConfigError, DataError
from alpaca_lora.generation.completion import Completion
from alpaca_lora.llm.journal import Journal, read_journal
from alpaca_lora.llm.journal_state import fields_of
from alpaca_lora.selfinstruct.report_page import nearest_scores, project
from alpaca_lora.selfinstruct.task_pool import TaskPool

SCRIPT = "<script>document.title = 'run'</script><img src=http://127.0.0.1:9/x>"
ANSWERS = [
    [
        ("Describe the taste of a ripe mango.", "Sweet, with a hint of pine."),
        (f"Explain what {SCRIPT} does in a page.", f"It would run: {SCRIPT}"),
        ("Draw a picture of a sleeping cat.", SCRIPT),
    ],
    [("Describe the taste of a ripe mango.", "Sweet."), ("List three large rivers of Asia.", "Ob, Lena, Indus.")],
    [("Compare two ways of storing apples.", "A cellar keeps them cool.")],
    [("Too short.", "x")],
]


def journal_of(folder: Path, answers=ANSWERS, cost: float | None = 0.25, language: str = "English") -> None:
    """A run of one request an answer, judged as runs judge, and one request more without an answer."""
    seeds = load_records("seeds")
    settings = {"model": "m", "kind": "chat", "mode": "list", "language": language, "seeds": seeds.fingerprint}
    with Journal(folder, settings, {"threshold": 0.7}) as journal:
        pool = TaskPool(seeds.records, settings, {"threshold": 0.7})
        for number, tasks in enumerate(answers):
            text = "\n".join(
                f"### Task {place}\nInstruction: {instruction}\nInput: <noinput>\nOutput: {output}"
                for place, (instruction, output) in enumerate(tasks, 4)
            )
            journal.append("sent", request=number, prompt_tokens=100, completion_tokens=900)
            done = fields_of(Completion(text, "stop", 80, 1000 + number))
            journal.append("done", request=number, **done, first=4, cost=cost, seconds=1.0)
            journal.append("judged", **pool.judge(journal.state.answers[-1]))
        journal.append("sent", request=len(answers), prompt_tokens=100, completion_tokens=1234)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    journal_of(folder)
    return self_instruct_report(folder)


def test_a_browser_shows_the_numbers_of_the_journal_and_asks_for_nothing(page, browser):
    state = read_journal(page.parent)
    assert state.accepted == 4 and state.rejected == {"not_text": 1, "duplicate": 1, "too_short": 1}
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    asked, said = [], []
    shown = context.new_page()
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.goto(page.as_uri())
    assert shown.inner_text("#accepted") == str(state.accepted)
    reasons = shown.eval_on_selector_all("[data-reason]", "all => all.map(one => [one.dataset.reason, one.innerText])")
    assert {reason: int(count) for reason, count in reasons} == state.rejected
    rows = shown.eval_on_selector_all(
        "#costs tr", "all => all.slice(1).map(row => [...row.children].map(cell => cell.innerText))"
    )
    assert [row[:2] for row in rows] == [
        ["requests answered", "4"],
        ["tokens of prompts", "320"],
        ["tokens of answers", "4,006"],
        ["cost", "1.0000"],
    ]
    assert rows[3][2:] == ["13,000.00"]
    assert "1,334 tokens at most" in shown.inner_text("main")
    # What models wrote is text, in records and in samples of what was rejected.
    assert SCRIPT in shown.inner_text("#records") and SCRIPT in shown.inner_text("#rejections")
    assert shown.evaluate("document.scripts.length + document.images.length") == 0
    assert shown.title() == f"Self-instruct: {page.parent.name}"
    assert shown.locator("svg").count() >= 3
    assert shown.evaluate("[...document.querySelectorAll('svg')].every(one => one.clientHeight > 100)")
    for width in (1280, 380):
        shown.set_viewport_size({"width": width, "height": 800})
        assert shown.evaluate("document.documentElement.scrollWidth") == width
    context.close()
    assert asked == [page.as_uri()] and said == []


def test_verbs_and_objects(page):
    pytest.importorskip("textblob")
    from alpaca_lora.selfinstruct.verbs import count_openings

    found = count_openings(
        [
            "Name three large fruits that grow in Spain.",
            "Write a short poem about the sea.",
            "give me two examples of irony",
            "What is the capital of Peru?",
            "In this text, find all errors.",
            "",
            "Brainstorm some names, please.",
        ]
    )
    assert found == {("name", "fruit"): 1, ("write", "poem"): 1, ("give", "example"): 1, ("brainstorm", "name"): 1}
    text = page.read_text(encoding="utf-8")
    assert "do so with a verb and its object" in text and ">taste</text>" in text


def test_without_the_tagger_or_in_another_language_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "textblob.en.inflect", None)
    journal_of(tmp_path / "english", ANSWERS[2:3])
    assert "needs textblob: pip install" in self_instruct_report(tmp_path / "english").read_text(encoding="utf-8")
    journal_of(tmp_path / "welsh", ANSWERS[2:3], language="Welsh")
    assert "these are in Welsh" in self_instruct_report(tmp_path / "welsh").read_text(encoding="utf-8")


def test_52_000_records_are_projected_at_the_rate_of_the_run(tmp_path):
    one = ("Describe the taste of a ripe mango.", "Sweet.")
    other = ("Compare two ways of storing apples.", "A cellar keeps them cool.")
    journal_of(tmp_path / "a", [[one, other], [one], [one], [ANSWERS[1][1]]], cost=None)
    lines = {line[0]: line[1:] for line in project(read_journal(tmp_path / "a"))}
    assert lines["requests answered"] == (4, 4 / 3 * 52_000)
    assert lines["tokens of answers"] == (4_006, pytest.approx(4_006 / 3 * 52_000))
    assert lines["cost"] == (None, None)


def test_scores_are_those_of_the_nearest_before():
    seeds = [Record("Write a short poem about the sea.", "", "x")]
    records = [Record(text, "", "x") for text in ("Write a poem about the sea.", "Name rivers.", "Name two rivers.")]
    assert nearest_scores(records, seeds) == [rouge_l(6, 6, 7), 0.0, rouge_l(2, 3, 2)]


def test_the_command_and_a_run_without_answers(tmp_path, capsys):
    journal_of(tmp_path, [])
    cli.main(["self-instruct", "report", str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path}/report.html\n"
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r'id="accepted">0<', text) and "None yet." in text and "<svg" not in text


def test_wrong_folders_and_seeds(tmp_path):
    with pytest.raises(DataError, match="holds no journal"):
        self_instruct_report(tmp_path)
    journal_of(tmp_path, [])
    with pytest.raises(ConfigError, match="seeds: <list> holds other records than the run"):
        self_instruct_report(tmp_path, seeds=[{"instruction": "a", "output": "b"}])
    assert not (tmp_path / "report.html").exists()
