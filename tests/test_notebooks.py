"""The example notebooks: executed from top to bottom, and their kept outputs are whole, small and clean.

One that says `<!-- not run: REASON -->` is read instead: its Python, and the options of its commands and calls.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import nbformat
import pytest

import alpaca_lora
from alpaca_lora import cli
from alpaca_lora.config import FinetuneConfig
from alpaca_lora.generation.sampling import Sampling

EXAMPLES = Path(__file__).parent.parent / "examples"
EVERY = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
READ = [path for path in EVERY if "<!-- not run: " in path.read_text(encoding="utf-8")]
NOTEBOOKS = [path for path in EVERY if path not in READ]

SETTINGS = {entry.name for entry in fields(FinetuneConfig)}
SAMPLING = {entry.name for entry in fields(Sampling)}

# Paths of the machine it ran on, its clock, and what libraries complain about.
UNWANTED = re.compile(
    r"/(tmp|root|work|home|Users)/|\b20\d\d-\d\d-\d\d|\b\d\d:\d\d:\d\d\b|Warning\b|Traceback|0x[0-9a-f]{6}"
)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def texts(output: Any) -> str:
    """Everything of an output that can be read; pictures are left out."""
    data = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
    shown = "\n".join([output.get("text", ""), *map(str, data.values())])
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", shown)


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_from_top_to_bottom(path, demo_base, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "")  # execute.py sets it; this restores it
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))
    spec = importlib.util.spec_from_file_location("execute", EXAMPLES / "notebooks" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    executed = module.execute(tmp_path / "examples" / "notebooks" / path.name)
    assert_clean(executed)
    kept = nbformat.read(path, as_version=4)
    assert [kinds(cell) for cell in executed.cells] == [kinds(cell) for cell in kept.cells], "execute.py renews them"


def kinds(cell: Any) -> list[tuple[str, str]]:
    """What kinds of output a cell has."""
    return [(output.output_type, output.get("name", "")) for output in cell.get("outputs", [])]


def assert_clean(notebook: Any) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) >= 4
    for cell in notebook.cells:
        assert cell.metadata == {}
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert not (found := UNWANTED.search(texts(output))), f"{found} in {texts(output)[:2000]}"
            if output.get("name") == "stderr":
                assert re.fullmatch(r"[^\n]*100%\|.*\n", output.text), "stderr holds more than a finished bar"


@each_notebook
def test_kept_outputs_are_clean_and_small(path):
    assert path.stat().st_size < 200_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.cells[0].source.startswith("# ")
    assert "minute" in notebook.cells[0].source  # how long it takes
    assert_clean(notebook)


def test_there_are_six_notebooks_and_one_is_only_read():
    assert [path.stem[0] for path in EVERY] == ["1", "2", "3", "4", "5", "6"]
    assert [path.stem for path in READ] == ["6_colab_t4"]


def read(path: Path) -> tuple[ast.Module, list[str]]:
    """The Python of a notebook's cells together, and its lines for a shell or for IPython."""
    python, commands = [], []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and not cell.source.startswith("%%"):
            for line in cell.source.splitlines():
                (commands if line.startswith(("!", "%")) else python).append(line)
    return ast.parse("\n".join(python), path.name), commands


@pytest.mark.parametrize("path", READ, ids=lambda path: path.stem)
def test_what_is_not_run_could_be(path, tmp_path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ") and "has not been run" in notebook.cells[0].source
    assert all(cell.metadata == {} and not cell.get("outputs") for cell in notebook.cells)
    tree, commands = read(path)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names - {"drive"} <= set(alpaca_lora.__all__)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", "")
        if name in names:
            given = {keyword.arg for keyword in call.keywords if keyword.arg}
            known = set(inspect.signature(getattr(alpaca_lora, name)).parameters)
            more = {"finetune": SETTINGS, "plan": SETTINGS, "compare_answers": SAMPLING}.get(name, set())
            assert given <= known | more, ast.unparse(call)
    for cell in notebook.cells:
        if written := re.match(r"%%writefile ([\w.]+)\n", cell.source):
            (tmp_path / written[1]).write_text(cell.source[written.end() :], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    ours = [line.replace("{OUT}", "run") for line in commands if line.startswith("!alpaca-lora ")]
    assert len(ours) == 2
    for line in ours:
        cli._parser().parse_args(shlex.split(line)[1:])


def test_the_plan_for_a_t4_fits(tmp_path):
    notebook = nbformat.read(EXAMPLES / "notebooks" / "6_colab_t4.ipynb", as_version=4)
    (cell,) = [cell.source for cell in notebook.cells if cell.source.startswith("%%writefile t4.yaml\n")]
    recipe = tmp_path / "t4.yaml"
    recipe.write_text(cell.partition("\n")[2], encoding="utf-8")
    config = FinetuneConfig.make(str(recipe), output_dir="x", resume="auto")
    assert (config.method, config.dtype, config.num_epochs) == ("qlora", "auto", 3)
    planned = alpaca_lora.plan("t4", recipe=str(recipe))
    assert planned.fits and 5 * 60 < planned.seconds < 10 * 60  # 7 minutes, as the notebook says
