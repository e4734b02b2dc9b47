"""What messages advise exists: every option they name is one of the commands in which they can appear."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import alpaca_lora
from alpaca_lora.cli import _COMMANDS
from alpaca_lora.config import FinetuneConfig

SOURCE = Path(alpaca_lora.__file__).parent
ANSWERING = ("generate", "chat", "serve", "answer", "compare")
PLACES = {  # of each file whose messages name options: the commands in which they appear, or which they send to
    "runs/contract.py": {"force": (*ANSWERING, "merge")},
    "adapters/merging.py": {"base_model": ("merge",)},
    "training/parent_adapter.py": {"base_model": ("finetune",)},
    "runs/saved_adapter.py": {"base_model": (*ANSWERING, "merge", "finetune"), "resume": ("finetune",)},
    "config/problems.py": {"base_model": ("finetune",)},
    "data/lint/findings.py": {"fix": ("lint",)},
    "evaluation/comparison.py": {"out": ("compare",), "preferences": ("compare",)},
    "llm/endpoint_errors.py": {"base_url": ("answer", "compare", "self-instruct run")},
    "generation/prompt_format.py": {"prompt_template": ANSWERING},
    "models/folder.py": {"resume": ("finetune",)},
    "models/load.py": {"adapter": ("finetune",)},
    "planning/cards.py": {"gpu_memory": ("plan",)},
    "training/output_dir.py": {"resume": ("finetune",)},
    "training/interrupt.py": {"resume": ("finetune",)},
}
# torchrun's, pip's, and vLLM's, of which names with hyphens are cut here.
OTHERS = {"nproc_per_node", "no", "enable", "max", "lora", "tokenizer", "chat", "dtype"}
ADVICE = re.compile(r"--([a-z][a-z_]+)|(?:with|[Gg]ive|as) (?=\w+_)(\w+?)(?:\b(?!=)|=OUT)")


def options(command):
    if command == "finetune":
        return {"config", *(field.name for field in fields(FinetuneConfig))}
    return {*_COMMANDS[command].options}


KNOWN = set().union(*map(options, _COMMANDS))


def advised(path):
    """Options named in a file's texts, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    spoken = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    joined = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (spoken | joined):
            text = node.value
        else:
            continue
        for dashed, named in ADVICE.findall(text):
            if (dashed and dashed not in OTHERS) or named in KNOWN:
                yield dashed or named


FOUND = {
    str(path.relative_to(SOURCE)): {*advised(path)} for path in SOURCE.rglob("*.py") if "cli" not in path.parent.name
}


@pytest.mark.parametrize("file", sorted(file for file in FOUND if FOUND[file] or file in PLACES))
def test_what_a_message_advises_is_an_option_where_it_appears(file):
    """Advice with a row above is there, and in each of its commands; any other is an option of some command."""
    assert FOUND[file] >= PLACES.get(file, {}).keys()
    assert FOUND[file] <= KNOWN
    for option, commands in PLACES.get(file, {}).items():
        for command in commands:
            assert option in options(command), f"{file} advises {option}, which alpaca-lora {command} does not have"


def test_what_the_commands_say_of_options_is_true():
    for path in (SOURCE / "cli").glob("*.py"):
        assert {*advised(path)} <= KNOWN | {"config", "help", "recipe", "version"}, path
