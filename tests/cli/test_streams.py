"""A command in surroundings that are not a developer's: other encodings, closed streams, full disks, no home."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alpaca_lora.cli.streams import printable
from alpaca_lora.errors import ModelError
from alpaca_lora.models import demo

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*words, redirect="", env=None, input=None):
    """Runs the command in a process of its own, from a shell where there is something to redirect."""
    line = f"exec {shlex.join([sys.executable, '-m', 'alpaca_lora', *map(str, words)])} {redirect}"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
    return subprocess.run(["sh", "-c", line], capture_output=True, env=env, input=input, timeout=1500)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("données") / "été.json"
    rows = [{"instruction": "Name a café 🦙 \x1b]0;owned\x07", "output": f"“{k}” \x1b[2J\u202e"} for k in range(6)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_control_characters_are_shown_one_for_one():
    assert printable("a\x1b[31m\r\n\tb\x7f\x9b\u202e é") == "a␛[31m␍\n\tb␡\ufffd\ufffd é"


def test_terminals_that_are_not_utf8(data, short_base):
    words = ["inspect", data, "--base_model", short_base, "--examples", 1]
    ascii_only = command(*words, env={"PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0, ascii_only.stderr
    assert b"\\u241b]0;owned" in ascii_only.stdout and b"\x1b" not in ascii_only.stdout
    windows = command("lint", data, env={"PYTHONIOENCODING": "cp1252"})
    assert windows.returncode == 0, windows.stderr
    assert "été.json: 6 records".encode("cp1252") in windows.stdout


def test_names_and_streams_in_the_c_locale(data, tmp_path):
    found = command("lint", data, env=C_LOCALE)
    assert found.returncode == 0, found.stderr
    assert "été.json: 6 records".encode() in found.stdout
    wrong = command("recipes", "é", env=C_LOCALE)
    assert wrong.returncode == 1 and "recipe: 'é' is neither".encode() in wrong.stderr


def test_a_chat_reads_bytes_that_are_no_text(short_base):
    talk = command(
        "chat", short_base, "--max_new_tokens", 2, env=C_LOCALE, input="Café\n".encode() + b"\xff\n/history\n"
    )
    assert talk.returncode == 0, talk.stderr
    assert "> Café\n".encode() in talk.stdout and "> \ufffd\n".encode() in talk.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_streams_that_are_full_or_closed():
    full = command("recipes", redirect=">/dev/full")
    assert full.returncode == 1
    assert b"alpaca-lora: what was printed is lost: No space left on device." in full.stderr
    for redirect, code in ((">&-", 0), ("<&- >&- 2>&-", 0)):
        assert command("recipes", redirect=redirect).returncode == code
    for redirect in ("2>/dev/full", "2>&-"):
        assert command("recipes", "nope", redirect=redirect).returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_run_survives_what_it_cannot_print(data, short_base, tmp_path):
    """Output and log on a full disk, and a home that is no folder: the adapter is there, and the exit code is 0."""
    out = tmp_path / "out"
    words = ["--base_model", short_base, "--data", data, "--output_dir", out, "--val_set_size", 0, "--batch_size", 2]
    words += ["--max_steps", 1, "--sample_instructions", "Say é"]
    home = {"HOME": "/dev/null", "MPLCONFIGDIR": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    assert command("finetune", *words, redirect=">/dev/full 2>/dev/full", env=home).returncode == 0
    assert (out / "adapter_model.safetensors").exists() and (out / "loss.png").exists()


def test_a_home_that_cannot_be_written_is_one_line_of_the_log(data, short_base):
    home = {"HOME": "/dev/null", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    found = command("inspect", data, "--base_model", short_base, env=home)
    said = found.stderr.decode().splitlines()  # nothing of matplotlib's
    assert found.returncode == 0 and len(said) == 2
    assert "Control characters (U+001B, U+0007) stand in" in said[0]  # of the data
    assert said[1].startswith("alpaca-lora: tokenised records are not cached: ")


def test_a_cache_that_cannot_be_written_is_named():
    with pytest.raises(ModelError, match=r"/dev/null/cache cannot be written \(.*\)\. Set XDG_CACHE_HOME to a folder"):
        demo._convert(Path("x.gguf"), Path("/dev/null/cache/demo"))
