"""Preference files, and the published figures of AlpacaEval."""

from __future__ import annotations

import csv
import json

import pytest

from alpaca_lora import compare_preferences
from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.preferences import read_preferences
from alpaca_lora.evaluation.statistics.intervals import by_item, clustered_interval
from alpaca_lora.evaluation.statistics.sentence import verdict
from alpaca_lora.evaluation.statistics.summary import summarize
from alpaca_lora.evaluation.statistics.votes import Vote

# Leaderboards in the wheel of alpaca_eval 0.6.6, alpaca_eval/leaderboards/data_AlpacaEval/: n_wins, n_wins_base,
# n_draws, instructions asked (805) and, as printed there, win_rate and standard_error. These annotators answer 1, 2 or
# 1.5, so the counts determine both figures.
PUBLISHED = [
    ("alpaca_eval_gpt4", "alpaca-7b", 205, 584, 16, 26.459627329192543, 1.535711469748),
    ("alpaca_eval_gpt4", "text_davinci_001", 112, 672, 20, 15.17412935323383, 1.235107892276849),
    ("alpaca_eval_gpt4", "vicuna-7b-v1.3", 614, 184, 3, 76.84144819, 1.487520321),
    ("claude", "alpaca-7b", 252, 537, 16, 32.298136645962735, 1.630307861230374),
    ("chatgpt_fn", "alpaca-7b", 356, 433, 16, 45.21739130434783, 1.7375846781579476),
]


def annotation(preference, index=0, **changes):
    return {
        "instruction": f"Instruction {index}",
        "output_1": "Yes.",
        "generator_1": "text_davinci_003",
        "dataset": "helpful_base",
        "output_2": "Yes, it is.",
        "generator_2": "alpaca-7b",
        "annotator": "alpaca_eval_gpt4",
        "preference": preference,
        **changes,
    }


def write(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_csv(path, header, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


@pytest.mark.parametrize(("annotator", "model", "wins", "losses", "draws", "rate", "error"), PUBLISHED)
@pytest.mark.parametrize("draw", [1.5, 0])
def test_published_win_rates_and_standard_errors(tmp_path, annotator, model, wins, losses, draws, rate, error, draw):
    values = [2.0] * wins + [1.0] * losses + [draw] * draws
    values += [None] * (805 - len(values))
    rows = [annotation(x, i, generator_2=model, annotator=annotator) for i, x in enumerate(values)]
    found = read_preferences(write(tmp_path / "annotations.json", rows))
    assert found.left_out == 805 - wins - losses - draws
    summary = summarize(found.votes)
    overall = summary.overall
    assert (overall.a, overall.wins, overall.losses, overall.ties) == (model, wins, losses, draws)
    assert 100 * overall.rate == pytest.approx(rate, rel=1e-9)  # the files print 10 to 17 digits
    assert 100 * overall.standard_error == pytest.approx(error, rel=1e-9)
    assert 100 * (overall.high - overall.low) / (2 * 1.96) == pytest.approx(error, rel=0.01)


def test_graded_preferences_as_alpaca_eval_2_writes_them(tmp_path):
    values = [1.9999, 1.25, 1.0001, 1.75, None]
    found = read_preferences(write(tmp_path / "a.json", [annotation(x, i) for i, x in enumerate(values)]))
    assert found.left_out == 1
    summary = summarize(found.votes)
    assert summary.graded
    assert (summary.overall.wins, summary.overall.losses) == (2, 2)
    assert "no difference detected: 2 to 2, mean preference 50.0%" in verdict(summary)


def test_an_annotation_is_read_whole(tmp_path):
    rows = [annotation(1.0, input="Some context", price_per_example=0.02)]
    (vote,) = read_preferences(write(tmp_path / "a.json", rows)).votes
    assert vote.item == "Instruction 0\n\nSome context"
    assert (vote.a, vote.b, vote.preference) == ("alpaca-7b", "text_davinci_003", 0.0)
    assert (vote.length_a, vote.length_b) == (11, 4)
    assert (vote.rater, vote.category, vote.shown_first) == ("alpaca_eval_gpt4", "helpful_base", "")


def test_a_table(tmp_path):
    path = write_csv(
        tmp_path / "votes.csv",
        "item,model_a,model_b,preference,rater,category,length_a,length_b,shown_first",
        ["1", "new", "old", "a", "Ann", "mail", "120", "80", "b"],
        ["2", "new", "old", "Tie", "Ann", "", "", "", ""],
        ["2", "old", "new", "0.25", "Bob", "", "", "", "A"],
        ["3", "new", "old", "", "Ann", "", "", "", ""],
        ["3", "new", "old", "b", "Ann", "", "", "", ""],
    )
    found = read_preferences(path)
    assert [vote.preference for vote in found.votes] == [1.0, 0.5, 0.25, 0.0]
    assert found.left_out == 1
    first, _, third, _ = found.votes
    assert (first.rater, first.category, first.length_a, first.length_b) == ("Ann", "mail", 120, 80)
    assert (first.shown_first, third.shown_first) == ("old", "old")
    assert summarize(found.votes).overall.rate == pytest.approx((1 + 0.5 + 0.75 + 0) / 4)


def test_the_least_a_table_needs(tmp_path):
    path = write_csv(tmp_path / "votes.csv", "item,model_a,model_b,preference", ["1", "A", "B", "a"])
    (vote,) = read_preferences(path).votes
    assert (vote.rater, vote.length_a, vote.shown_first) == ("", None, "")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [annotation(2.0), annotation(3.0)],
            r"a.json, record 2 \(line 1\): preference is 3; AlpacaEval's is 1 \(generator_1 is better\), 2",
        ),
        ([annotation(1.0), annotation("good")], r"record 2 .*: preference is 'good'; give a number, or leave it empty"),
        ([annotation(True)], "preference is True; give a number"),
        ([annotation(1.0, generator_2="text_davinci_003")], "'text_davinci_003' is compared with itself"),
        ([{"generator_1": "A", "generator_2": "B", "instruction": "x"}], "'preference' is missing. The row has"),
        ([annotation(None)] * 3, "a.json: none of the 3 rows has a preference. Name another file."),
        ([annotation(1.0), 5], "record 2 .*: this is an int, not an object"),
        ([annotation(1.0, generator_1=["x"])], r"generator_1 is \['x'\], a list; give text."),
        ([], r"a.json: the file holds no preferences \(0 rows\)"),
    ],
)
def test_bad_annotations_name_the_row(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_preferences(write(tmp_path / "a.json", rows))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("item,model_a,model_b,prefers", ["1", "A", "B", "a"], "'preference' is missing. Did you mean 'prefers'?"),
        ("item,model_a,model_b,preference,ratr", ["1", "A", "B", "a", "x"], "no column .* Did you mean 'rater'?"),
        ("item,model_a,model_b,preference", ["1", "A", "B", "c"], "preference is 'c'; give a number, or a, b or tie"),
        ("item,model_a,model_b,preference", ["1", "A", "B", "1.5"], "the preference for 'A' is 1.5; give a number"),
        ("item,model_a,model_b,preference", ["1", "A", "A", "a"], "'A' is compared with itself"),
        ("item,model_a,model_b,preference", ["", "A", "B", "a"], "item is empty. Fill it in"),
        ("item,model_a,model_b,preference,shown_first", ["1", "A", "B", "a", "A1"], "shown_first is 'A1'; give a"),
        ("item,model_a,model_b,preference,length_a", ["1", "A", "B", "a", "-3"], "length_a is '-3'; give a count"),
    ],
)
def test_bad_tables_name_the_row_and_line(tmp_path, header, row, message):
    good = ["1", "A", "B", "a"] + [""] * (len(row) - 4)
    path = write_csv(tmp_path / "votes.csv", header, good, row)
    place = r"votes.csv, record 1 \(line 2\)" if "prefers" in header or "ratr" in header else r"record 2 \(line 3\)"
    with pytest.raises(DataError, match=f"{place}: .*{message}"):
        read_preferences(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_preferences(tmp_path / "none.json")


def test_a_leaderboard_is_listed_with_intervals(tmp_path, capsys):
    header = ",win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,mode,avg_length,length_controlled_winrate"
    path = write_csv(
        tmp_path / "leaderboard.csv",
        header,
        ["alpaca-7b", "26.459627329192543", "1.535711469748", "205", "584", "16", "805", "minimal", "396", "26.29"],
        ["x<b>|", "97.69900497512438", "0.5104849118311993", "783", "16", "5", "804", "", "2049", ""],
        ["baseline", "50.0", "0.0", "0", "0", "805", "805", "", "", "50.0"],
    )
    compared = compare_preferences(path, tmp_path / "out")
    names = [one.model for one in compared.report.standings]
    assert names == ["x<b>|", "baseline", "alpaca-7b"]
    alpaca = compared.report.standings[-1]
    votes = [Vote(str(k), "", "a", "b", (1.0, 0.0, 0.5)[(k >= 205) + (k >= 789)]) for k in range(805)]
    # the same figures, so the same interval as from the votes, if that counts draws as the standard error does
    sums, counts = by_item(votes)
    assert alpaca.interval == pytest.approx(clustered_interval(sums, counts), abs=1e-9)
    assert alpaca.cells[0].startswith("26.46% (") and alpaca.cells[1:] == ("1.54", "26.29%", "805")
    assert "From x<b>|, 97.70% (" in str(compared)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert r"| x\<b\>\| | 97.70% (" in report
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "x&lt;b&gt;|" in page and "<script" not in page
    path.write_text(path.read_text().replace("1.535711469748", "?"))
    with pytest.raises(DataError, match=r"record 1 \(line 2\): win_rate and standard_error are percentages"):
        compare_preferences(path, tmp_path / "out")
