"""The file of ratings: what is stored, what is refused, what comes out as votes."""

from __future__ import annotations

import sqlite3

import pytest

from alpaca_lora.errors import ConfigError, DataError
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.outputs import ModelOutput, write_outputs
from alpaca_lora.evaluation.people.people_votes import read_ratings
from alpaca_lora.evaluation.people.ratings import NAME, Rater, Rating, Ratings
from alpaca_lora.evaluation.statistics.votes import Vote


@pytest.fixture
def comparison(tmp_path):
    for name, end in (("heron", "."), ("osprey", " indeed.")):
        outputs = [
            ModelOutput(f"Question {number}?", "", f"Answer {number}{end}", name, "birds") for number in range(3)
        ]
        write_outputs(tmp_path / f"{name}.json", outputs)
    return Comparison.open(tmp_path / "compared", tmp_path / "heron.json", tmp_path / "osprey.json")


def test_votes_are_told_with_the_models_names(comparison):
    one, two, three = (pair.id for pair in comparison.pairs)
    with Ratings(comparison) as ratings:
        assert [ratings.join(name) for name in ("zoe", "Adam", "ZOE", "idle")] == [
            Rater("zoe", 0),
            Rater("Adam", 1),
            Rater("zoe", 0),
            Rater("idle", 2),
        ]
        ratings.add(Rating(one, "zoe", "left", "a", "", 2.5))
        ratings.add(Rating(one, "Adam", "left", "b", "Clearer.", 1.5))
        ratings.add(Rating(two, "zoe", "right", "b", "", 4))
        ratings.add(Rating(three, "zoe", "tie", "b", "", 5))
        ratings.add(Rating(two, "Adam", "skip", "a", "Both are wrong.", 6))
        read = read_ratings(comparison.folder)  # while it is open for writing
    rest = {"a": "heron", "b": "osprey", "category": "birds", "length_a": 9, "length_b": 16}
    assert read.votes == [
        Vote(one, "zoe", preference=1, shown_first="heron", **rest),
        Vote(one, "Adam", preference=0, shown_first="osprey", **rest),
        Vote(two, "zoe", preference=1, shown_first="osprey", **rest),
        Vote(three, "zoe", preference=0.5, shown_first="osprey", **rest),
    ]
    assert read.reasons == {(one, "Adam"): "Clearer.", (two, "Adam"): "Both are wrong."}
    assert read.skipped == 1
    assert read_ratings(comparison.folder) == read  # and when it is closed


def test_a_rater_has_one_rating_of_an_item(comparison):
    one, two, _ = (pair.id for pair in comparison.pairs)
    with Ratings(comparison) as ratings:
        ratings.join("zoe")
        first, second = Rating(one, "zoe", "left", "a", "", 1), Rating(one, "zoe", "tie", "a", "Hm.", 2)
        other = Rating(two, "zoe", "skip", "b", "", 3)
        for rating in (first, other, second):
            ratings.add(rating)
        assert list(ratings.of("zoe").items()) == [(two, other), (one, second)]
        assert ratings.undo(one, "zoe") == second
        assert ratings.undo(one, "zoe") is None
        assert ratings.of("zoe") == {two: other}
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            ratings.add(Rating(one, "nobody", "left", "a", "", 1))


def test_it_is_on_the_disk_before_it_is_confirmed(comparison):
    with Ratings(comparison) as ratings:
        assert ratings._do("PRAGMA journal_mode") == [("wal",)]
        assert ratings._do("PRAGMA synchronous") == [(2,)]  # FULL


def test_the_secret_stays_and_no_two_are_alike(comparison, tmp_path):
    with Ratings(comparison) as ratings, Ratings(comparison) as again:
        assert ratings.secret == again.secret
        assert len(ratings.secret) == 32
    other = Comparison.open(tmp_path / "other", tmp_path / "heron.json", tmp_path / "osprey.json")
    with Ratings(other) as another:
        assert another.secret != ratings.secret


def test_without_a_file_there_are_no_votes(comparison):
    read = read_ratings(comparison.folder)
    assert (read.votes, read.reasons, read.skipped) == ([], {}, 0)
    assert not (comparison.folder / NAME).exists()


def test_other_settings_are_refused(comparison):
    Ratings(comparison, {"share": 0.5, "seed": 0}).close()
    Ratings(comparison, {"share": 0.5, "seed": 0}).close()
    with pytest.raises(
        ConfigError, match="share: the ratings in .* were begun with 0.5, not 0.4. Give that again"
    ) as two:
        Ratings(comparison, {"share": 0.4, "seed": 1})
    assert len(two.value.problems) == 2
    with pytest.raises(ConfigError, match="share: .* begun with 0.5, not None"):
        Ratings(comparison)


def test_ratings_of_other_answers_are_refused(comparison, tmp_path):
    with Ratings(comparison) as ratings:
        ratings.join("zoe")
    turned = Comparison.open(tmp_path / "turned", tmp_path / "osprey.json", tmp_path / "heron.json")
    (comparison.folder / NAME).rename(turned.folder / NAME)
    for use in (lambda: Ratings(turned), lambda: read_ratings(turned.folder)):
        with pytest.raises(DataError, match="holds ratings of other answers"):
            use()


def test_a_damaged_file_is_named(comparison):
    (comparison.folder / NAME).write_bytes(b"no database, certainly none" * 100)
    for use in (lambda: Ratings(comparison), lambda: read_ratings(comparison.folder)):
        with pytest.raises(DataError, match=f"{NAME}: cannot be read as ratings .*not a database"):
            use()
    (comparison.folder / NAME).write_bytes(b"")  # whoever made it was killed before anything was stored
    assert read_ratings(comparison.folder).votes == []
    Ratings(comparison).close()
    assert read_ratings(comparison.folder).votes == []


def test_a_folder_that_cannot_be_written_is_named(comparison):
    (comparison.folder / NAME).mkdir()
    with pytest.raises(DataError, match=f"{NAME}: cannot be opened"):
        Ratings(comparison)
