"""A disk without room: one sentence, exit code 1, nothing half written, and what was finished before is kept.

The disk is stood in for by a limit on the size of a file, which needs no rights: the system refuses the write all the
same.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from alpaca_lora import finetune, merge
from alpaca_lora.cli import main
from alpaca_lora.evaluation.outputs import read_outputs
from alpaca_lora.files import no_room, write_atomically
from alpaca_lora.llm.journal import read_journal

KEPT = "Make room and give the same command again; what was finished before is kept."
GO_ON = "Make room; the same command goes on from here."
SERVER = Path(__file__).parents[1] / "selfinstruct" / "scripted_server.py"


def run(most_bytes, *arguments):
    """A command while no file may have more bytes: exit code, and what it said of an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        main([str(word) for word in arguments])
    except SystemExit as error:
        return (1, error.code) if isinstance(error.code, str) else (error.code, "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return 0, ""


@pytest.fixture(scope="module")
def models(tiny_llama, short_tokenizers, records, tmp_path_factory):
    """Folders of a base whose weights are smaller than its tokenizer's file, of an adapter, and of it merged."""
    folder, tokenizer = tmp_path_factory.mktemp("models"), short_tokenizers["bpe"]
    base = tiny_llama(len(tokenizer), hidden=8, kv_heads=2, tie=True)
    for config in (base.config, base.generation_config):
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [record._asdict() for record in records]
    settings = {"val_set_size": 0, "batch_size": 4, "max_steps": 2, "learning_rate": 0.01, "dtype": "float32"}
    finetune(base_model=folder / "base", data=rows, output_dir=folder / "adapter", **settings)
    merge(folder / "adapter", folder / "merged")
    return folder


@pytest.mark.parametrize("where", ["records", "report"])
def test_lint_fix(tmp_path, where):
    rows = [{"instruction": f"Say {n}. ", "input": "", "output": f"{n}, with pleasure."} for n in range(20)]
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    assert run(1 << 30, "lint", tmp_path / "data.json", "--fix", tmp_path / "whole.json") == (0, "")
    sizes = [(tmp_path / name).stat().st_size for name in ("whole.json", "whole.lint.json")]
    assert sizes[0] < sizes[1]
    most_bytes = sizes[0] // 2 if where == "records" else sum(sizes) // 2
    before = sorted(tmp_path.iterdir())
    code, said = run(most_bytes, "lint", tmp_path / "data.json", "--fix", tmp_path / "full.json")
    assert (code, said) == (1, f"alpaca-lora: cannot be written: File too large. {KEPT}")
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupted_file_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("before", encoding="utf-8")

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.json", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize("phase", ["weights", "tokenizer"])
def test_merge(models, tmp_path, phase):
    weights, words = ((models / "merged" / name).stat().st_size for name in ("model.safetensors", "tokenizer.json"))
    assert weights < words
    most_bytes = weights // 2 if phase == "weights" else (weights + words) // 2
    code, said = run(most_bytes, "merge", models / "adapter", tmp_path / "out")
    assert code == 1 and said.startswith("alpaca-lora: ") and "File too large" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["gguf-f16", "gguf-q8_0", "chat-template"])
def test_export(models, tmp_path, format):
    code, said = run(20_000, "export", models / "merged", tmp_path / "out", "--format", format)
    assert code == 1 and said.startswith("alpaca-lora: ") and "File too large" in said
    assert list(tmp_path.iterdir()) == []


def test_extract(models, tmp_path):
    code, said = run(1_000, "extract", models / "base", models / "merged", tmp_path / "out")
    assert code == 1 and said.startswith("alpaca-lora: ") and "File too large" in said
    assert list(tmp_path.iterdir()) == []


def test_answer_keeps_what_was_answered(models, tmp_path):
    asked = [{"instruction": f"Say {n}."} for n in range(40)]
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    command = ("answer", models / "merged", tmp_path / "asked.json", tmp_path / "out.json", "--max_new_tokens", 4)
    code, said = run(4_000, *command)
    assert code == 1 and said.endswith(f"cannot be written: File too large. {GO_ON}")
    kept = len(read_journal(tmp_path / "out.journal").answers)
    assert 0 < kept < 40 and not (tmp_path / "out.json").exists()
    assert run(1 << 30, *command)[0] == 0
    assert len(read_outputs(tmp_path / "out.json")) == 40
    assert len(read_journal(tmp_path / "out.journal").answers) == 40


@pytest.mark.slow
def test_self_instruct_keeps_what_was_paid(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    words = [sys.executable, str(SERVER), "3", "sk-1", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            command = ["self-instruct", "run", tmp_path / "run", "--base_url", url, "--model", "m"]
            command += ["--num_records", 300, "--concurrency", 1, "--timeout_seconds", 10]
            code, said = run(60_000, *command)
            assert code == 1 and said.endswith(f"cannot be written: File too large. {GO_ON}")
            kept = len(read_journal(tmp_path / "run").answers)
            assert kept
            assert run(1 << 30, *command)[0] == 0
            assert len(read_journal(tmp_path / "run").answers) > kept
        finally:
            server.terminate()
    assert not list((tmp_path / "run").glob("*.part"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "a.json"), "a.json: No space left on device"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded"),
        (Exception("No space left on device (os error 28)"), "No space left on device (os error 28)"),
        (RuntimeError("database or disk is full"), "disk is full"),
        (OSError(13, "Permission denied"), ""),
        (ValueError("space"), ""),
    ],
)
def test_every_librarys_own_error_is_known(error, told):
    assert no_room(error) == told
