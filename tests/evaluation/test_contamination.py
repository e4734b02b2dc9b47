"""Training data against the instructions a model is judged by."""

from __future__ import annotations

import json
import os

import pytest

from alpaca_lora.data.records import load_records
from alpaca_lora.evaluation import contamination
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.contamination import check_contamination, contamination_of
from alpaca_lora.evaluation.pairs import Pair
from alpaca_lora.runs.identity import seal_of

LONG = "Explain to a visitor from another planet why people on Earth wear shoes of two different sizes on Mondays."
PAIRS = [
    Pair("1", "Write a polite letter to the landlord about the broken lift.", "", "a", "b"),
    Pair("2", LONG, "", "a", "b"),
]


def trained(folder, *instructions, key="instruction"):
    path = folder / "training.json"
    path.write_text(json.dumps([{key: text, "output": "Done."} for text in instructions]), encoding="utf-8")
    columns = {"instruction": key} if key != "instruction" else None
    training = {"source": str(path), "fingerprint": load_records(path, columns=columns).fingerprint}
    return sealed({**training, **({"columns": columns} if columns else {})})


def sealed(training):
    return {**training, "seal": seal_of(training)}


def test_shared_text_is_found_with_record_and_item(tmp_path):
    found = check_contamination("m", trained(tmp_path, "Name three rivers.", f"Please: {LONG}"), PAIRS)
    assert [(one.record, one.field) for one in found.overlaps] == [(2, "instruction")]
    assert found.overlaps[0].found.startswith("13 words in a row of item 2: Please: Explain to a visitor")
    assert found.sentence == (
        f"m: 1 of the 2 records of {tmp_path}/training.json shares text with the evaluation instructions, so its win "
        "rate may be too high"
    )


def test_clean_data_are_said_to_be(tmp_path):
    found = check_contamination("m", trained(tmp_path, "Name three rivers.", key="question"), PAIRS)
    assert found.sentence.startswith("m: none of the 1 record of ")
    assert not found.unchecked


def test_what_cannot_be_checked_is_named(tmp_path):
    training = trained(tmp_path, LONG)
    changed = check_contamination("m", sealed({**training, "fingerprint": "0" * 64}), PAIRS)
    assert f"m: {tmp_path}/training.json could not be checked: its content is no longer what" in changed.sentence
    (tmp_path / "training.json").unlink()
    gone = check_contamination("m", training, PAIRS)
    assert f"m: {tmp_path}/training.json could not be checked: {tmp_path}/training.json: no such file" in gone.sentence
    unknown = check_contamination("m", None, PAIRS)
    assert unknown.sentence == "m: not checked; its answers do not say what it was trained on"
    assert not gone.overlaps + changed.overlaps + unknown.overlaps


def test_what_a_file_of_others_names_is_not_opened(tmp_path, monkeypatch):
    """A pipe would never end, a hub id is a request to the network, and a file here may be private."""
    own = trained(tmp_path, LONG)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(contamination, "load_records", lambda *args, **more: pytest.fail("it was opened"))
    for changed in (
        {"seal": None},
        {"seal": "0" * 64},
        {"source": str(tmp_path / "pipe")},
        {"source": "someone/data"},
        {"sources": [str(tmp_path / "other.json")]},
        {"columns": {"instruction": "q"}},
        {"fingerprint": "1" * 64},
    ):
        found = check_contamination("m", {**own, **changed}, PAIRS)
        assert "nothing shows that you trained on it on this machine, so it is not opened." in found.sentence
        assert not found.records and not found.overlaps
    for training in ([], "x", 3, {"source": ["x"]}, {"source": None}):
        assert check_contamination("m", training, PAIRS).sentence.startswith("m: not checked; its answers do not say")


def test_another_users_seal_is_another(tmp_path, monkeypatch):
    training = trained(tmp_path, LONG)
    assert training["seal"] == seal_of(training)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    assert seal_of(training) not in ("", training["seal"])
    assert seal_of(training) == seal_of(training)
    assert (tmp_path / "theirs" / "alpaca_lora" / "seal.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert seal_of(training) == ""


def test_several_sources_are_read_again(tmp_path):
    first = trained(tmp_path, "Name three rivers.")
    second = tmp_path / "second.json"
    second.write_text(json.dumps([{"instruction": f"Please: {LONG}", "output": "x"}]), encoding="utf-8")
    sources = [first["source"], str(second)]
    both = load_records(sources)
    training = sealed({"source": both.source, "sources": sources, "fingerprint": both.fingerprint})
    found = check_contamination("m", training, PAIRS)
    assert found.records == len(both) and [one.record for one in found.overlaps] == [len(both)]


def test_a_comparison_names_the_training_data_of_either_model(tmp_path):
    paths = []
    for name, training in (("a", trained(tmp_path, LONG)), ("b", None)):
        settings = json.dumps({"training_data": training} if training else {})
        rows = [{"instruction": LONG, "output": name, "generator": name, "settings": settings}]
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(rows), encoding="utf-8")
    first, second = contamination_of(Comparison.open(tmp_path / "out", *paths))
    assert (first.model, len(first.overlaps), second.model, second.source) == ("a", 1, "b", "")
