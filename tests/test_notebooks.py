"""The example notebooks: executed from top to bottom, and their kept outputs are whole, small and clean."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))

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


def test_there_are_five_notebooks():
    assert [path.stem[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]
