"""Execute notebooks in place and keep clean outputs: python examples/notebooks/execute.py [NOTEBOOK ...]

Each runs with this Python, in a copy of examples/, so that nothing else is written here. About a minute each.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager, kernelspec
from nbclient import NotebookClient


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs it has now: of stderr warnings and the last bar; no times of execution."""
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, on import: bars are text without ipywidgets
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(path.parent.parent, copy := Path(folder) / "examples", ignore=shutil.ignore_patterns("runs"))
        kernel = AsyncKernelManager(kernel_spec_manager=kernelspec.KernelSpecManager(kernel_dirs=[]))  # no other Python
        patient = {"timeout": None, "startup_timeout": 600}  # seconds
        client = NotebookClient(nbformat.read(path, 4), km=kernel, coalesce_streams=True, **patient)
        notebook = client.execute(cwd=str(copy / path.parent.name), cleanup_kc=True)  # a given kernel, too, is ended
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                *before, last = output.text.rstrip("\n").split("\n")
                output.text = "\n".join([*(line for line in before if "Warning" in line), last, ""])
        if cell.cell_type == "code":  # loading a model shows a bar, too, which says nothing
            cell.outputs = [each for each in cell.outputs if not each.get("text", "").startswith("Loading weights")]
    return notebook


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sorted(Path(__file__).parent.glob("*.ipynb"))):
        nbformat.write(execute(path.resolve()), path)
