"""Dockerfile and .dockerignore, read: there is no Docker where the tests run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def instructions():
    """(NAME, rest) of each instruction; lines that go on are put together, comments are left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of(name):
    return [rest for found, rest in instructions() if found == name]


def copied():
    """The files and folders of the checkout that are copied; the last word of COPY is where to."""
    return [word for rest in of("COPY") for word in shlex.split(rest)[:-1] if not word.startswith("--")]


@pytest.fixture(scope="module")
def project():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib comes with Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_has_known_instructions_from_a_pinned_base():
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM" and names[-2:] == ["ENTRYPOINT", "CMD"]
    assert set(names) <= {"FROM", "RUN", "COPY", "ENV", "USER", "VOLUME", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d\d\.\d\d", of("FROM")[0])


def test_it_does_not_run_as_root_and_starts_our_command(project):
    assert of("USER") == ["alpaca"] and "useradd --uid 10001" in " ".join(of("RUN"))
    assert all(
        name not in ("RUN", "COPY")
        for name, _ in instructions()[[*map(tuple, instructions())].index(("USER", "alpaca")) :]
    )
    (command,) = json.loads(of("ENTRYPOINT")[0])
    assert command in project["scripts"]


def test_the_cache_is_a_volume_and_the_home():
    (volume,) = json.loads(of("VOLUME")[0])
    environment = dict(entry.split("=", 1) for rest in of("ENV") for entry in shlex.split(rest))
    assert environment["HOME"] == volume == "/cache" and "--home-dir /cache" in " ".join(of("RUN"))


def test_what_is_copied_is_there_and_is_enough_to_build(project):
    assert all((ROOT / path).exists() for path in copied())
    assert {project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt", "src"} == set(copied())


def test_the_extras_it_installs_exist(project):
    (extras,) = re.findall(r"/opt/source\[(.*?)\]", " ".join(of("RUN")))
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_everything_else_stays_out():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*" and sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied())
    assert any(fnmatch("src/alpaca_lora/__pycache__", f"*/{rule.removeprefix('**/')}") for rule in rules[1:])


def test_it_holds_no_secrets():
    text = " ".join(rest for name in ("ENV", "RUN", "COPY") for rest in of(name))
    assert not re.search(r"(?i)token|secret|passw|_key|\.netrc|\.env\b", text)
