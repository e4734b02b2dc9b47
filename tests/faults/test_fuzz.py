"""A few of the mutations that fuzz.py does by the thousand: an error in one sentence, or the answer of before."""

from __future__ import annotations

import json
import random

import pytest
from fuzz import Target, fuzz, judged, mutated, world

from alpaca_lora.errors import DataError


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # damaged settings are warned of in many ways
def test_damaged_files_are_told_or_do_no_harm(tmp_path):
    targets = world(tmp_path)
    seen = []
    found = fuzz(targets, 140, seed=7, each=lambda number, name, problem: seen.append(name))
    assert [(name, problems) for name, problems in found.items() if problems] == []
    assert len(seen) == 140 and set(seen) == set(targets)


def _fails(error):
    raise error


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        (lambda: 5, ""),
        (lambda: 6, "another answer"),
        (lambda: _fails(DataError("x.json: damaged. Copy it again.")), ""),
        (lambda: _fails(DataError("")), "no sentence: ''"),
        (lambda: _fails(KeyError("a")), "KeyError in test_fuzz.py:"),
        (lambda: _fails(SystemExit(3)), "SystemExit in test_fuzz.py:"),
    ],
)
def test_what_did_not_end_well_is_found(tmp_path, use, problem):
    assert judged(Target(tmp_path, use), before=5).startswith(problem)
    assert bool(judged(Target(tmp_path, use), before=5)) == bool(problem)


def test_mutations_damage_and_come_again(tmp_path):
    content = json.dumps({"a": [1, 2], "b": {"c": "text"}}).encode()
    target = Target(tmp_path / "a.json", lambda: None)
    made = [mutated(target, content, random.Random(f"1:{number}")) for number in range(200)]
    assert made == [mutated(target, content, random.Random(f"1:{number}")) for number in range(200)]
    assert sum(one != content for one in made) > 180 and len(set(made)) > 120


def test_the_file_is_whole_again_afterwards(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}', encoding="utf-8")
    found = fuzz({"a": Target(path, lambda: json.loads(path.read_text(encoding="utf-8")))}, 40, seed=1)
    assert path.read_text(encoding="utf-8") == '{"a": 1}'
    assert {problem.partition(" in ")[0] for _, problem in found["a"]} >= {"another answer", "JSONDecodeError"}
