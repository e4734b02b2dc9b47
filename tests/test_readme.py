"""README's Python and commands, and the example scripts, run as a reader would run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    """Output of a command that must succeed, with `alpaca-lora` on the PATH as in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def desk(tmp_path: Path, demo_base: str, records: Any) -> Path:
    """A folder with a user's own my.json."""
    rows = [record._asdict() for record in records] * 4
    (tmp_path / "my.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


@pytest.fixture
def small_demo(demo_base: str, short_base_bpe: str, cache: Path, tmp_path_factory: Any, monkeypatch: Any) -> None:
    """What says `demo` gets a tiny model of its kind out of the cache; README's Python takes the demo model itself."""
    home = tmp_path_factory.mktemp("small_demo")
    for entry in cache.parent.iterdir():
        if entry != cache:
            (home / entry.name).symlink_to(entry.resolve())
    (home / cache.name).mkdir()
    (home / cache.name / Path(demo_base).name).symlink_to(short_base_bpe)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))


@pytest.mark.slow
def test_readme_python(desk):
    (block,) = blocks("python")
    out = run([sys.executable, "-c", block], desk)
    assert "'eval_loss'" in out
    assert (desk / "runs" / "first-merged" / "model.safetensors").exists()


@pytest.mark.slow
def test_readme_commands(desk, small_demo):
    (block,) = blocks("bash")
    out = run(["bash", "-euc", block], desk)
    assert "supervised tokens" in out and "Merged folder: runs/mine-merged" in out


@pytest.mark.slow
def test_examples(desk, small_demo):
    assert "'loss'" in run([sys.executable, str(ROOT / "examples" / "finetune.py"), "run"], desk)
    assert "merged into" in run([sys.executable, str(ROOT / "examples" / "merge_adapter.py"), "run", "merged"], desk)


def test_what_the_readme_names_exists():
    for path in re.findall(r"\]\(((?:docs|[A-Z]).*?)\)", README) + re.findall(r"`(src/[^`]*?|docs/|tests/)`", README):
        assert (ROOT / path).exists(), path


def test_every_other_command_of_the_readme_and_docs_can_be_parsed() -> None:
    """Those that need another model, time or people are not run here; their options exist."""
    from alpaca_lora import cli

    found = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        for line in re.findall(r"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*alpaca-lora (.*)$", text, re.MULTILINE):
            words = shlex.split(line, comments=True)
            if "..." in words or "--help" in words or any("|" in word for word in words):
                continue
            try:
                cli._parser().parse_args(words)
            except SystemExit as end:
                pytest.fail(f"{page.name}: alpaca-lora {line}: exit code {end.code}")
            found += 1
    assert found > 20
