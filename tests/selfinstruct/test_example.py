"""examples/self_instruct.sh as a user calls it, against a server in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "self_instruct.sh"
SERVER = Path(__file__).with_name("scripted_server.py")


@pytest.mark.slow
def test_from_seeds_to_an_adapter(tmp_path, short_base):
    server = subprocess.Popen([sys.executable, SERVER, "8", "sk-1", "0.01"], stdout=subprocess.PIPE, text=True)
    try:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {
            "PATH": path,
            "BASE": short_base,
            "OPENAI_API_KEY": "sk-1",
            "OPENAI_BASE_URL": server.stdout.readline().strip(),
        }
        options = ["--model", "m", "--num_records", "8", "--timeout_seconds", "2", "--concurrency", "1"]
        done = subprocess.run(
            ["bash", EXAMPLE, tmp_path / "run", *options],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=1500,
        )
    finally:
        server.kill()
        server.communicate()
    assert done.returncode == 0, done.stderr
    accepted = (tmp_path / "run" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    clean = json.loads((tmp_path / "run" / "clean.json").read_text(encoding="utf-8"))
    assert 8 <= len(clean) <= len(accepted)
    assert f"{tmp_path}/run/report.html" in done.stdout
    contract = json.loads((tmp_path / "run" / "adapter" / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert contract["config"]["data"] == f"{tmp_path}/run/clean.json"
