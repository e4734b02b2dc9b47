"""From votes to preferences: every vote of scripted raters and of a judge of known bias is a record, or counted."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from alpaca_lora import finetune, inspect, lint, load_records
from alpaca_lora.config import FinetuneConfig
from alpaca_lora.data.record import Preference, Record
from alpaca_lora.data.sources.votes import COMPARISON, RATINGS, VOTES
from alpaca_lora.errors import DataError
from alpaca_lora.evaluation.compare_models import compare, compare_report
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.contamination import check_contamination
from alpaca_lora.evaluation.outputs import ModelOutput, write_outputs
from alpaca_lora.evaluation.people.ratings import Rating, Ratings
from alpaca_lora.evaluation.verdicts import read_verdicts
from alpaca_lora.planning.preparation import prepare
from alpaca_lora.runs.run_file import RunFile, TrainingData

_SPEC = importlib.util.spec_from_file_location("judge_server", Path(__file__).with_name("judge_server.py"))
assert _SPEC and _SPEC.loader
judge_server = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(judge_server)

RATERS = ("zoe", "Adam", "kim")
LINE_END = "a\u2028b"


def files(folder, count):
    """Answers of `heron` and `osprey`, which is the better one every third time; both of the last are the same."""
    for name in ("heron", "osprey"):
        outputs = []
        for number in range(count):
            good = (number % 3 == 0) == (name == "osprey")
            text = "quality(5)" if number == count - 1 else f"I am {name}, with quality({9 if good else 3})."
            outputs.append(
                ModelOutput(f"What do you know of question {number}?", "Be brief." if number % 2 else "", text, name)
            )
        write_outputs(folder / f"{name}.json", outputs)
    return folder / "heron.json", folder / "osprey.json"


def liked(rater, pair):
    """The rule of the scripted raters of benchmarks/rate.py."""
    draw = hashlib.sha256(f"{rater} {pair.id}".encode()).digest()[0]
    return "tie" if pair.output_a == pair.output_b else ("a", "b", "a", "tie", "b")[draw % 5]


def rate(comparison, raters=RATERS):
    """Votes of scripted raters; every fourth pair is seen by one of them only."""
    said = {}
    with Ratings(comparison) as ratings:
        for rater in raters:
            ratings.join(rater)
            for place, pair in enumerate(comparison.pairs):
                if place % 4 == 3 and rater != raters[0]:
                    continue
                choice = said[pair.id, rater] = liked(rater, pair)
                left = "ab"[place % 2]
                ratings.add(
                    Rating(pair.id, rater, "tie" if choice == "tie" else ("right", "left")[choice == left], left, "", 1)
                )
    return said


@pytest.fixture(scope="module")
def rated_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated")
    comparison = Comparison.open(folder / "rated", *files(folder, 60))
    said = rate(comparison)
    compare_report(comparison.folder)
    return folder, said


@pytest.fixture
def rated(rated_once, tmp_path):
    """A comparison of 60 pairs with the votes of three raters, its report written, and what they said."""
    folder, said = rated_once
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return Comparison.read(tmp_path / "rated"), said


def load(data, **more):
    return load_records(data, objective="dpo", **more)


def pair_of(pair, winner):
    better, worse = (pair.output_a, pair.output_b) if winner == "a" else (pair.output_b, pair.output_a)
    return Preference(Record(pair.instruction, pair.input, better), Record(pair.instruction, pair.input, worse))


def test_the_majority_of_peoples_votes_is_one_record_a_pair(rated):
    comparison, said = rated
    expected, reasons = {}, Counter()
    for number, pair in enumerate(comparison.pairs, 1):
        votes = Counter(choice for (id, _), choice in said.items() if id == pair.id)
        if votes["a"] != votes["b"]:
            expected[number] = pair_of(pair, "a" if votes["a"] > votes["b"] else "b")
        else:
            reasons["as many votes for either answer" if votes["a"] else "ties"] += 1
    with pytest.warns(UserWarning) as told:
        found = load(str(comparison.folder))
    assert dict(zip(found.numbers, found.records, strict=True)) == expected
    assert {reason: len(numbers) for reason, numbers in found.dropped.items()} == reasons
    assert sum(reasons.values()) + len(expected) == 60 and min(reasons.values()) > 0
    won = Counter(one.chosen.output.split()[2].strip(",") for one in found.records)
    text = str(told[0].message)
    assert text.startswith(
        f"{comparison.folder}: {len(said)} votes of zoe, Adam, kim on 60 pairs gave {len(expected)} "
    )
    assert f"records: {won['heron']} prefer heron, {won['osprey']} prefer osprey. Left out: " in text
    assert all(f"{count}: {reason}" in text for reason, count in reasons.items())
    assert found.notes == (text,)


def test_every_vote_is_a_record_and_counts_equal_the_votes(rated):
    comparison, said = rated
    pairs = {pair.id: pair for pair in comparison.pairs}
    with pytest.warns(UserWarning, match=rf"of {len(said)} votes of zoe, Adam, kim"):
        found = load({"path": comparison.folder, "votes": "every"})
    decided = [pair_of(pairs[id], choice) for (id, _), choice in said.items() if choice != "tie"]
    assert Counter(one.canonical for one in found.records) == Counter(one.canonical for one in decided)
    ties = sum(choice == "tie" for choice in said.values())
    assert {reason: len(numbers) for reason, numbers in found.dropped.items()} == {"ties": ties}
    assert sorted([*found.numbers, *found.dropped["ties"]]) == list(range(1, len(said) + 1))


@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_a_judges_verdicts_that_follow_the_order_are_left_out(tmp_path, bias):
    paths = files(tmp_path, 40)
    with judge_server.JudgeServer(bias=bias, seed=3) as server:
        compare(*paths, tmp_path / "judged", judge="m", base_url=server.url)
    verdicts = read_verdicts(tmp_path / "judged")
    counts = Counter(vote.preference for vote in verdicts.votes)
    if verdicts.disagreed or counts[0.5]:
        with pytest.warns(UserWarning, match="40 votes of m on 40 pairs gave"):
            found = load(str(tmp_path / "judged"))
    assert len(found) == counts[1.0] + counts[0.0]
    kept = {reason: len(numbers) for reason, numbers in found.dropped.items()}
    assert kept.get("the judge's verdict followed the order of the answers", 0) == verdicts.disagreed
    assert (verdicts.disagreed > 5) == (bias > 0)
    assert kept.get("ties", 0) == counts[0.5] - verdicts.disagreed
    pairs = {pair.id: pair for pair in Comparison.read(tmp_path / "judged").pairs}
    expected = [pair_of(pairs[v.item], "a" if v.preference else "b") for v in verdicts.votes if v.preference != 0.5]
    assert sorted(one.canonical for one in found.records) == sorted(one.canonical for one in expected)
    if not bias:
        assert all("quality(9)" in one.chosen.output for one in found.records)


def test_people_and_judges_are_not_counted_together(rated, tmp_path):
    comparison, said = rated
    with judge_server.JudgeServer() as server:
        compare(
            *(tmp_path / name for name in ("heron.json", "osprey.json")),
            comparison.folder,
            judge="m",
            base_url=server.url,
        )
    with pytest.raises(DataError, match=rf"{len(said)} votes are of people and 60 of judges.*raters: people"):
        load(str(comparison.folder))
    with pytest.warns(UserWarning, match=rf"rated: {len(said)} votes of zoe"):
        load({"path": comparison.folder, "raters": "people"})
    with pytest.warns(UserWarning, match="rated: 60 votes of m on 60 pairs gave 59 records: "):
        assert len(load({"path": comparison.folder, "raters": "judges"})) == 59


def test_votes_that_came_after_the_report_are_missed(rated):
    comparison, said = rated
    with Ratings(comparison) as ratings:
        ratings.undo(comparison.pairs[0].id, "kim")
    with pytest.raises(DataError, match="newer votes than its report has. Write it again: alpaca-lora compare-report"):
        load(str(comparison.folder))
    compare_report(comparison.folder)
    with pytest.warns(UserWarning, match=f"rated: {len(said) - 1} votes"):
        load(str(comparison.folder))
    (comparison.folder / VOTES).unlink()
    with pytest.raises(DataError, match="there is no votes.jsonl in it.*Write it again: alpaca-lora compare-report"):
        load(str(comparison.folder))


DAMAGE = {
    "cut short": lambda text: text[: len(text) // 2],
    "a list": lambda text: text.replace('"rater": "zoe"', '"rater": []'),
    "no vote": lambda text: text.replace('"tie"', '"both"'),
    "another version": lambda text: text.replace('"version": 1', '"version": 2'),
    "other pairs": lambda text: text.replace('"comparison": "', '"comparison": "0'),
    "empty": lambda text: "",
    "a line less": lambda text: text.rstrip("\n").rpartition("\n")[0] + "\n",
    "a line twice": lambda text: text.replace('"votes": ', '"votes": 1') + text.splitlines()[-1] + "\n",
    "one twice for another": lambda text: "\n".join([*text.splitlines()[:-1], text.splitlines()[1]]) + "\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_votes_is_told(rated, damage):
    path = rated[0].folder / VOTES
    path.write_text(DAMAGE[damage](path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=r"Write it again: alpaca-lora compare-report|no file|empty"):
        load(str(rated[0].folder))


def test_votes_whose_source_is_gone_are_read_and_not_written_over(rated):
    folder = rated[0].folder
    kept = (folder / VOTES).read_bytes()
    with pytest.warns(UserWarning, match="rated: .* votes of"):
        before = load(str(folder)).records
    for path in folder.glob(f"{RATINGS}*"):
        path.unlink()
    with pytest.warns(UserWarning, match="rated: .* votes of"):
        assert load(str(folder)).records == before
    with pytest.raises(DataError, match=f"{RATINGS}, from which the votes in {VOTES} were counted, is not there"):
        compare_report(folder)
    assert (folder / VOTES).read_bytes() == kept
    (folder / VOTES).unlink()
    compare_report(folder)  # begun anew


def test_damaged_folders_are_told(rated):
    folder = rated[0].folder
    whole = (folder / COMPARISON).read_text(encoding="utf-8")
    for text in (whole.replace('"version": 1', '"version": 9'), whole.replace('"pairs"', '"others"'), "[]", "{"):
        (folder / COMPARISON).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="rated"):
            load(str(folder))
    (folder / COMPARISON).write_text(whole, encoding="utf-8")
    for name in (f"{RATINGS}-wal", f"{RATINGS}-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / RATINGS).write_bytes(b"no database")
    with pytest.raises(DataError, match="its votes cannot be read"):
        load(str(folder))


def test_what_cannot_be_a_preference_is_told(rated, tmp_path):
    folder = str(rated[0].folder)
    for read in (load_records, lint):
        with pytest.raises(DataError, match="rated: it holds a comparison, whose votes.*set objective=dpo, or orpo"):
            read(folder)
    with pytest.raises(DataError, match="votes is 'all', and must be majority or every"):
        load({"path": folder, "votes": "all"})
    with pytest.raises(DataError, match="split is for data sets of the hub"):
        load({"path": folder, "split": "train"})
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "Hi", "chosen": "Ho", "rejected": "No"}]), encoding="utf-8")
    with pytest.raises(DataError, match="votes is for the folder of a comparison, and this is none"):
        load({"path": tmp_path / "a.json", "votes": "every"})
    with pytest.raises(DataError, match="none of its .* votes is of judges"):
        load({"path": folder, "raters": "judges"})
    bare = Comparison.open(tmp_path / "bare", tmp_path / "heron.json", tmp_path / "osprey.json")
    compare_report(bare.folder)
    with pytest.raises(DataError, match="this comparison has no votes"):
        load(str(bare.folder))


def test_ties_alone_are_no_data(tmp_path):
    comparison = Comparison.open(tmp_path / "tied", *files(tmp_path, 3))
    with Ratings(comparison) as ratings:
        ratings.join(LINE_END)
        for pair in comparison.pairs:
            ratings.add(Rating(pair.id, LINE_END, "tie", "a", "", 1))
    compare_report(comparison.folder)
    with pytest.raises(DataError, match=r"gave 0 records: .*Left out: 3: ties. Nothing is left to train on"):
        load(str(comparison.folder))


def test_the_folder_goes_with_other_sources_to_token_ids_and_is_found_again(rated, tmp_path, short_base):
    comparison, said = rated
    rows = [{"prompt": f"Hi {n}", "chosen": "Ho", "rejected": "No"} for n in range(10)]
    (tmp_path / "more.json").write_text(json.dumps(rows), encoding="utf-8")
    sources = [str(tmp_path / "more.json"), {"path": str(comparison.folder), "votes": "every"}]
    config = FinetuneConfig(base_model=short_base, data=sources, output_dir="unused", objective="dpo", val_set_size=0)
    with pytest.warns(UserWarning, match="of zoe, Adam, kim"):
        data = prepare(config, short_base)
    decided = sum(choice != "tie" for choice in said.values())
    assert data.train.records == 10 + decided and len(data.train) == 2 * data.train.records
    assert data.described.dropped["ties"] == len(said) - decided
    described = data.described
    assert isinstance(described, TrainingData) and described.sources
    again = [source.reopen() for source in described.sources]
    assert again == [sources[0], {"path": str(comparison.folder), "votes": "every"}]
    training = {"source": described.source, "fingerprint": described.fingerprint, "seal": described.seal}
    with pytest.warns(UserWarning, match="of zoe, Adam, kim"):
        found = check_contamination("m", {**training, "sources": again, "objective": "dpo"}, comparison.pairs)
    assert not found.unchecked and found.records == data.train.records


def test_a_run_trains_on_the_folder_and_is_not_to_be_judged_by_it(rated, tmp_path, short_base):
    comparison, _ = rated
    settings = {"batch_size": 8, "max_steps": 1, "val_set_size": 8, "cutoff_len": 200, "max_tokens": 1024}
    with pytest.warns(UserWarning, match="on 60 pairs gave"):
        run = finetune(
            base_model=short_base, data=str(comparison.folder), objective="dpo", output_dir=tmp_path / "run", **settings
        )
    file = RunFile.read(run.output_dir)
    assert file and file.data and file.data.dropped["ties"] > 0 and file.data.validation_records == 8
    with pytest.warns(UserWarning, match="on 60 pairs gave"):
        found = check_contamination("m", file.data_files, comparison.pairs)
    assert not found.unchecked and found.records == file.data.train_records + 8
    assert len(found.overlaps) > 20 and all(one.record % 2 for one in found.overlaps)  # the others lie in an input


def test_inspect_and_lint_tell_what_the_votes_gave(rated, short_base, tmp_path):
    folder = str(rated[0].folder)
    with pytest.warns(UserWarning, match="60 pairs"):
        rows = inspect(folder, short_base, objective="dpo").rows
    assert "on 60 pairs gave" in rows["votes"] and rows["dropped, ties"]
    report = lint(folder, objective="dpo", fix=tmp_path / "pairs.jsonl")
    assert any("on 60 pairs gave" in line for line in report.figures)
    assert any("The chosen answer is longer in" in line for line in report.figures)
    with pytest.warns(UserWarning, match="60 pairs"):
        assert load(tmp_path / "pairs.jsonl").records == load(folder).records


def test_a_file_that_is_no_comparisons_ratings_is_left_alone(rated):
    """Reading changes nothing: the database is opened read-only."""
    folder = rated[0].folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.warns(UserWarning, match="votes"):
        load(str(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with sqlite3.connect(rated[0].folder / RATINGS) as file:
        assert file.execute("SELECT count(*) FROM ratings").fetchone()[0] > 0
