"""The house rules: who may import whom, what importing costs, where the environment is read.

The order of the rooms is that of CONTRIBUTING.md. A room imports from rooms to its left, and from no other.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "alpaca_lora"

ORDER = (
    "errors",
    "textfiles",
    "files",
    "config",
    "prompts",
    "data",
    "models",
    "runs",
    "planning",
    "generation",
    "against_base",
    "adapters",
    "training",
    "serving",
    "llm",
    "selfinstruct",
    "evaluation",
    "experiments",
    "cli",
    "__main__",
)
MAY_IMPORT = {room: {room, *ORDER[:place]} for place, room in enumerate(ORDER)}
# Recipes are files, read as package data.
MAY_IMPORT["recipes"] = set()

# What a room may take from the package itself. Its other names are the public face, which comes from the right.
FROM_PACKAGE = {"__version__"}


def room_of(path: Path, src: Path = SRC) -> str:
    """The room a source file belongs to: `data` for data/packs.py, `` for the package's own."""
    first = path.relative_to(src).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def arrows(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Every import of this package in `source`, at any depth, as (line, dotted name below `alpaca_lora`).

    Args:
        source: the text of a module.
        package: the dotted package the module is in (`alpaca_lora.data`), against which `from . import x` is read.

    `from alpaca_lora import config` gives `config`; `from alpaca_lora.data import packs` gives `data.packs`;
    `import alpaca_lora` gives the empty name.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")
                anchor = anchor[: len(anchor) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "import_module"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                name = first.value
                names = [package + name if name.startswith(".") else name]
        for name in names:
            if name == "alpaca_lora" or name.startswith("alpaca_lora."):
                yield node.lineno, name.partition(".")[2]


def wrong_arrows(src: Path = SRC) -> list[str]:
    """One line for each import against the direction, and for each file in no known room."""
    found = []
    for path in sorted(src.rglob("*.py")):
        room = room_of(path, src)
        if not room:
            continue  # the public face: lazy, and allowed to name every room
        here = path.relative_to(src)
        if room not in MAY_IMPORT:
            found.append(f"{here}: the room '{room}' has no place in ORDER")
            continue
        package = ".".join(("alpaca_lora", *here.parent.parts))
        for line, name in arrows(path.read_text(encoding="utf-8"), package):
            target = name.partition(".")[0]
            if target not in MAY_IMPORT[room] and name not in FROM_PACKAGE:
                found.append(f"{here}:{line}: '{room}' may not import '{name or 'alpaca_lora'}'")
    return found


def test_rooms_import_only_from_their_left() -> None:
    assert wrong_arrows() == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("data/packs.py", "from alpaca_lora.prompts.template import Template", None),
        ("prompts/template.py", "from alpaca_lora.data import records", "'prompts' may not import 'data.records'"),
        ("prompts/template.py", "from ..data.records import Record", "'prompts' may not import 'data.records.Record'"),
        ("config.py", "from .errors import ConfigError", None),
        ("errors.py", "from . import config", "'errors' may not import 'config'"),
        ("data/packs.py", "from . import tokens", None),
        ("data/packs.py", "def f():\n    import alpaca_lora.cli", "'data' may not import 'cli'"),
        ("data/packs.py", "import alpaca_lora", "'data' may not import 'alpaca_lora'"),
        ("data/packs.py", "from alpaca_lora import __version__", None),
        ("data/packs.py", "from alpaca_lora import finetune", "'data' may not import 'finetune'"),
        ("data/packs.py", "importlib.import_module('alpaca_lora.cli')", "'data' may not import 'cli'"),
        ("planning/memory.py", "from alpaca_lora.models.geometry import Geometry", None),
        ("planning/memory.py", "from alpaca_lora.training import fsdp", "'planning' may not import 'training.fsdp'"),
        ("cellar/wine.py", "", "the room 'cellar' has no place in ORDER"),
    ],
)
def test_the_walk_sees_wrong_arrows(tmp_path: Path, file: str, source: str, complaint: str | None) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    found = wrong_arrows(tmp_path)
    assert len(found) == (complaint is not None)
    if complaint is not None:
        assert complaint in found[0]


def test_importing_is_light_and_silent() -> None:
    """A fresh `import alpaca_lora` loads none of the large libraries, and few modules of any kind."""
    program = (
        "import sys; before = set(sys.modules); import alpaca_lora; "
        "import json; sys.stderr.write(json.dumps(sorted(set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    loaded = json.loads(result.stderr)  # anything else on stderr would not parse
    assert "alpaca_lora" in loaded
    large = {"torch", "transformers", "peft", "accelerate", "datasets", "numpy", "matplotlib", "jsonargparse", "rich"}
    assert large.isdisjoint(loaded)
    assert len(loaded) <= 40, f"{len(loaded)} modules: {loaded}"


def test_only_the_command_line_reads_argv_and_environment() -> None:
    """Values travel as arguments; `cli` is the one place where they come in from outside."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        if room_of(path) in {"cli", "__main__"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = {f"{node.value.id}.{node.attr}"}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                continue
            if names & {"sys.argv", "os.environ", "os.environb", "os.getenv", "os.putenv"}:
                found.append(f"{path.relative_to(SRC)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(" + "TO" + "DO|FIX" + r"ME)\b")  # in pieces, so that a search finds no mark here either
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(SRC.rglob("*"))
        if path.is_file() and path.suffix in {".py", ".json", ".jsonl", ".yaml", ".md", ".html", ".js", ".css"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if marks.search(line)
    ]
    assert found == []


def test_pre_commit_uses_the_tested_versions() -> None:
    """Tools run by pre-commit and by make are the same, so that one never undoes the other."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)$", constraints.lower(), flags=re.MULTILINE))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8").lower()
    revisions = dict(re.findall(r"/(?:mirrors-)?([\w]+?)(?:-pre-commit)?\n\s+rev: v([\w.]+)", hooks))
    stubs = dict(re.findall(r"(types-\w+)==([\w.]+)", hooks))
    assert revisions.keys() == {"ruff", "mypy"}
    assert {**revisions, **stubs} == {name: pinned[name] for name in [*revisions, *stubs]}
