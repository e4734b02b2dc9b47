"""The report: its numbers, read back from page and Markdown, and the page in a real browser."""

from __future__ import annotations

import html
import json
import random
import re
from html.parser import HTMLParser

import pytest

from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.contamination import Contamination, Overlap
from alpaca_lora.evaluation.preferences import Preferences
from alpaca_lora.evaluation.report.build import build_report, report_of_preferences
from alpaca_lora.evaluation.statistics.bias import position_bias
from alpaca_lora.evaluation.statistics.power import comparisons_needed
from alpaca_lora.evaluation.statistics.summary import by_category, summarize
from alpaca_lora.evaluation.statistics.votes import Vote
from alpaca_lora.evaluation.verdicts import Verdicts

A, B = "model <a>|*", "model-b"
SCRIPT = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> <b>no</b>"
PROBED = "Which of the two moons of Venus is the larger one?"


def compared(folder, count, answer=lambda k, side: side * (3 + k % {"a": 5, "b": 7}[side])):
    paths = []
    for side, name in (("a", A), ("b", B)):
        rows = [
            {
                "instruction": PROBED if k == 3 else f"Instruction number {k}",
                "output": answer(k, side),
                "generator": name,
                "dataset": f"kind {k % 3}",
            }
            for k in range(count)
        ]
        paths.append(folder / f"{side}.json")
        paths[-1].write_text(json.dumps(rows), encoding="utf-8")
    return Comparison.open(folder / "out", *paths)


def vote(comparison, k, preference, rater="ann", first=""):
    pair = comparison.pairs[k]
    return Vote(
        pair.id, rater, A, B, preference, pair.category, len(pair.output_a), len(pair.output_b), shown_first=first
    )


def crowd(comparison, raters=("ann", "ben", "cy"), seed=0):
    """Votes as three people might give them, each on two thirds of the items."""
    draw = random.Random(seed)
    return [
        vote(comparison, k, draw.choice((0.0, 0.5, 1.0, 1.0)), rater, draw.choice((A, B)))
        for k in range(len(comparison.pairs))
        for rater in draw.sample(raters, 2)
    ]


class Facts(HTMLParser):
    """(panel, fact) -> text, of a page."""

    def __init__(self, text):
        super().__init__()
        self.found, self.panel, self.key, self.reading = {}, "", "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "section":
            self.panel = given.get("data-panel", "")
        self.key = given.get("data-fact", self.key) if tag == "tr" else self.key
        self.reading = tag == "td" and given.get("class") == "found"

    def handle_endtag(self, tag):
        self.reading = False

    def handle_data(self, data):
        if self.reading:
            self.found[self.panel, self.key] = data


def numbers(text):
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)]


def table(markdown, heading):
    """The cells of the first table below a heading; escapes taken back."""
    part = markdown.split(f"## {heading}\n", 1)[1].strip().split("\n\n")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines()[2:]]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in rows]


def test_page_and_markdown_have_the_numbers_of_summarize(tmp_path):
    comparison = compared(tmp_path, 60)
    votes = crowd(comparison)
    report = build_report(comparison, votes, skipped=4)
    page, markdown = (path.read_text(encoding="utf-8") for path in report.write(tmp_path / "report"))
    facts = {key: text for (panel, key), text in Facts(page).found.items() if panel == "people"}
    in_markdown = [row[1] for row in table(markdown, "People")]
    assert in_markdown == list(facts.values())

    expected = summarize(votes)
    overall, sign = expected.overall, expected.sign
    assert numbers(facts["votes"]) == [120, 60, 3]
    assert numbers(facts["score"]) == [overall.wins, overall.ties, overall.losses]
    assert numbers(facts["win_rate"]) == pytest.approx(
        [100 * overall.rate, 95, 100 * overall.low, 100 * overall.high], abs=0.051
    )
    assert numbers(facts["standard_error"]) == pytest.approx(
        [100 * overall.rate, 100 * overall.standard_error], abs=0.0051
    )
    assert numbers(facts["sign_test"]) == pytest.approx([sign.p, sign.wins, sign.ties, sign.losses], rel=0.006)
    assert numbers(facts["agreement"]) == pytest.approx([expected.agreement.alpha, 60, 3], abs=0.0051)
    for key, found in (("length", expected.length), ("position", expected.position)):
        rates = [100 * found.rate, 95, 100 * found.low, 100 * found.high, found.votes]
        assert numbers(facts[key]) == pytest.approx(rates, abs=0.051)
    controlled = expected.controlled
    assert numbers(facts["controlled"]) == pytest.approx(
        [100 * controlled.rate, 95, 100 * controlled.low, 100 * controlled.high], abs=0.051
    )
    assert numbers(facts["needed"])[:2] == [comparisons_needed(0.55, overall.ties / overall.votes), 55]
    assert facts["skipped"] == "4"
    for name, found in by_category(votes).items():
        cell = next(row for row in markdown.splitlines() if row.startswith(f"| {name} |"))
        assert numbers(cell.split("|")[3]) == pytest.approx(
            [100 * found.rate, 100 * found.low, 100 * found.high], abs=0.051
        )
        assert cell.split("|")[3].strip() in page


def test_figure_stands_where_the_numbers_do(tmp_path):
    comparison = compared(tmp_path, 40)
    votes = [vote(comparison, k, float(k < 30)) for k in range(40)]
    drawing = build_report(comparison, votes).html.split("<svg", 1)[1].split("</svg>", 1)[0]
    overall = summarize(votes).overall
    assert 'cx="75.00%"' in drawing
    assert f'x1="{100 * overall.low:.2f}%" x2="{100 * overall.high:.2f}%"' in drawing


def test_sentence_is_computed_from_the_votes(tmp_path):
    """Alpaca's published comparison, and what one more decided vote makes of a clear one."""
    comparison = compared(tmp_path, 179)
    report = build_report(comparison, [vote(comparison, k, float(k < 90)) for k in range(179)])
    sentence = (
        "no difference detected: 90 to 89, 95% CI 43-58%; about 780 comparisons would be needed to see a 55% win rate"
    )
    assert f"<p>{sentence}</p>" in report.html
    assert f"**People: {sentence}**" in report.markdown
    assert "p = 1 (90 instructions won, 0 tied, 89 lost)" in report.html
    clear = build_report(comparison, [vote(comparison, k, float(k < 60)) for k in range(179)])
    assert "model-b was preferred: 119 to 60" in clear.html


def test_people_and_judge_are_counted_apart(tmp_path):
    comparison = compared(tmp_path, 30)
    people = [vote(comparison, k, 1.0) for k in range(20)]
    single = [vote(comparison, k, float(first == A or k < 5), "gpt", first) for k in range(30) for first in (A, B)]
    verdicts = Verdicts(
        judges=["gpt"],
        votes=[vote(comparison, k, 1.0 if k < 5 else 0.5, "gpt") for k in range(30)],
        single=single,
        disagreed=25,
        unparsed=2,
        malformed=12,
        cost=1.25,
        reasons={(comparison.pairs[0].id, "gpt", A): "clearer"},
    )
    report = build_report(comparison, people, verdicts)
    facts = Facts(report.html).found
    assert facts["people", "score"] == "20, 0, 0"
    assert facts["judge", "score"] == "5, 25, 0"
    assert facts["judge", "disagreed"] == "25 of 30 pairs"
    assert facts["judge", "malformed"] == "12"
    assert facts["judge", "spent"] == "0 tokens, cost 1.2500"
    assert numbers(facts["judge", "position"])[0] == pytest.approx(100 * position_bias(single).rate, abs=0.051)
    assert "the same winner on 5 of 5 instructions that both decided, of 20 that both rated" in report.html
    assert "the same winner on 5 of 5" in report.markdown
    assert report.entries[0]["votes"][1]["reason"] == "clearer"
    assert report.entries[10]["won"] == {"people": "a", "judge": "tie"}
    assert report.entries[10]["split"] == ["judge"]


def test_votes_told_from_the_other_side_are_turned(tmp_path):
    comparison = compared(tmp_path, 12)
    votes = [vote(comparison, k, 1.0) for k in range(9)]
    turned = build_report(comparison, [one.turned() for one in votes])
    assert turned.sections == build_report(comparison, votes).sections
    assert turned.entries[0]["won"] == {"people": "a"}


def test_votes_that_do_not_belong_are_refused(tmp_path):
    comparison = compared(tmp_path, 4)
    with pytest.raises(DataError, match="there are no votes, so there is nothing to report. Rate or judge first."):
        build_report(comparison, [])
    with pytest.raises(DataError, match="but there are votes on 'model-c'"):
        build_report(comparison, [Vote("x", "ann", A, "model-c", 1.0)])


def test_existing_annotations_have_the_same_page(tmp_path):
    source = tmp_path / "annotations.json"
    source.write_text("[]")
    votes = [Vote(f"Question {k}", "judge", "new", "old", k % 4 / 3) for k in range(40)]
    report = report_of_preferences(Preferences(votes, 3, str(source)))
    assert "20 to 20, mean preference 50.0%" in report.markdown
    assert "| Rows without a preference, left out | 3 |" in report.markdown
    assert "annotations.json, SHA-256 4f53cda18c2baa0c" in report.markdown
    assert str(tmp_path) not in report.markdown + report.html
    assert ("pair1", "needed") not in Facts(report.html).found  # the formula is for wins and losses


def test_more_than_two_models_are_ranked():
    votes = [
        Vote(f"{k}", "ann", a, b, float(k % 10 < wins))
        for a, b, wins in (("x", "y", 7), ("y", "z", 6), ("x", "z", 9))
        for k in range(20)
    ]
    report = report_of_preferences(Preferences(votes, 0, "votes.csv"))
    assert report.title == "3 models compared"
    assert [row[0] for row in table(report.markdown, r"Ranking (Bradley-Terry)")] == ["x", "y", "z"]
    assert re.search(r"\*\*x against z: x was preferred: 18 to 2", report.markdown)


def test_models_that_nothing_links_are_not_ranked():
    votes = [Vote(f"{k}", "ann", a, b, float(k < 2)) for a, b in (("w", "x"), ("y", "z")) for k in range(4)]
    report = report_of_preferences(Preferences(votes, 0, "votes.csv"))
    assert [section.title for section in report.sections] == ["w against x", "y against z"]
    for text in (report.html, report.markdown):
        assert "Ranking: none: the comparisons fall into 2 groups" in re.sub(r"</?b>", "", text)


def test_contamination_is_told_or_why_it_is_not(tmp_path):
    comparison = compared(tmp_path, 4)
    found = [
        Contamination(A, "data.json", 10, [Overlap(7, "input", "13 words in a row of item 2: <i>some words</i>")]),
        Contamination(B, "gone.json", unchecked="gone.json: no such file."),
    ]
    report = build_report(comparison, [vote(comparison, 0, 1.0)], contamination=found)
    for told in (
        f"{A}: 1 of the 10 records of data.json shares text with the evaluation instructions",
        "record 7, input: 13 words in a row of item 2: <i>some words</i>",
        f"{B}: gone.json could not be checked: gone.json: no such file.",
    ):
        assert told in html.unescape(report.html)
        assert told in re.sub(r"\\(.)", r"\1", report.markdown)
    assert "<i>" not in report.html


@pytest.fixture
def opened(browser):
    """Opens a file; what it asks for and complains about is looked at when the test ends."""
    pages, asked, complaints = [], [], []

    def open_file(path, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.set_default_timeout(300_000)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_file
    addresses = [page.url for page in pages]
    for page in pages:
        page.close()
    assert asked == addresses
    assert complaints == []


def test_page_in_a_browser(opened, tmp_path):
    """From a file, without a request: filters find, texts stay texts, nothing is wider than the window."""
    comparison = compared(tmp_path, 45, lambda k, side: SCRIPT if (k, side) == (7, "a") else f"Answer {k}{side}")
    votes = [vote(comparison, k, (0.0, 0.5, 1.0)[k % 3]) for k in range(40)]
    votes += [vote(comparison, k, 1.0, "ben") for k in range(0, 9)]
    reasons = {(comparison.pairs[5].id, "ann"): f"because of {SCRIPT}"}
    path, _ = build_report(comparison, votes, reasons=reasons).write(tmp_path / "report")
    page = opened(path)

    def shown():
        return page.locator("#browse article").count()

    assert page.title() == f"{A} against {B}"
    assert page.text_content("#count") == "45 of 45"
    assert shown() == 20
    page.click("#more")
    page.click("#more")
    assert shown() == 45
    assert page.is_hidden("#more")
    assert page.is_hidden("#kind")  # there is one kind only
    for outcome, count in (("a", 16), ("b", 11), ("tie", 13), ("split", 3), ("none", 5)):
        page.select_option("#won", outcome)
        assert page.text_content("#count") == f"{count} of 45", outcome
    page.select_option("#won", "")
    page.select_option("#category", "kind 1")
    assert page.text_content("#count") == "15 of 45"
    page.select_option("#category", "")
    page.fill("#text", "ONERROR")  # an answer, and a reason
    assert page.text_content("#count") == "2 of 45"
    assert page.locator("#browse .output", has_text=SCRIPT).count() == 1
    assert page.locator("#browse .votes", has_text=SCRIPT).count() == 1
    page.fill("#text", "moons of venus")
    assert page.text_content("#browse .good") == "A good answer: Says that Venus has no moons."
    assert page.locator("#disagreed article").count() == 3
    assert page.locator("b, img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert opened(path, width=390).evaluate("document.documentElement.scrollWidth") == 390


def test_policy_forbids_what_is_not_the_page_itself(browser, tmp_path):
    comparison = compared(tmp_path, 3)
    path, _ = build_report(comparison, [vote(comparison, 0, 1.0)]).write(tmp_path)
    page = browser.new_page()
    failed = []
    page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
    page.goto(path.as_uri())
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken'";
            const image = document.createElement("img");
            image.src = "http://127.0.0.1:9/x.png";
            document.body.append(script, image);
            document.body.setAttribute("onclick", "document.title = 'taken'");
            document.body.click();
        }"""
    )
    assert page.title() == f"{A} against {B}"
    assert failed == [("http://127.0.0.1:9/x.png", "csp")]
    page.close()
