"""A run in a notebook's kernel, a real one: interrupting the cell leaves a run that goes on and a kernel that works."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

START = "from alpaca_lora import finetune\nsettings = "
TRAIN = "run = finetune(**settings, resume='auto')"


@pytest.fixture
def kernel(tmp_path, cache):
    manager = KernelManager()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = KernelSpec(argv=command, display_name="this Python", language="python")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=600)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def result_of(client, request):
    """The reply to a cell: an error's name, sentence and traceback are in it."""
    while True:
        reply = client.get_shell_msg(timeout=600)
        if reply["parent_header"].get("msg_id") == request:
            return reply["content"]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_interrupting_a_cell_leaves_a_run_that_goes_on_and_a_kernel_that_works(kernel, short_base, records, tmp_path):
    manager, client = kernel
    out = tmp_path / "run"
    settings = {
        "base_model": short_base,
        "data": [record._asdict() for record in records] * 20,
        "output_dir": str(out),
        "val_set_size": 0,
        "batch_size": 20,
        "num_epochs": 10,  # 120 steps
        "save_steps": 1000,
    }
    assert result_of(client, client.execute(START + repr(settings)))["status"] == "ok"
    # A kernel aborts what is queued behind a failed cell, also what comes in the moment after: it is told not to here.
    cell = client.execute(TRAIN, stop_on_error=False)
    deadline = time.monotonic() + 600
    while len(lines_of(out / "history.jsonl")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    manager.interrupt_kernel()
    stopped = result_of(client, cell)
    assert stopped["ename"] == "RunInterrupted"
    assert "resume='auto'" in stopped["evalue"]
    assert stopped["traceback"] == [f"RunInterrupted: {stopped['evalue']}"]  # a sentence, not the way through
    done = lines_of(out / "history.jsonl")
    assert 3 <= len(done) < 120

    # The kernel goes on, and so does the run, from where it was; Ctrl-C is Python's own again.
    assert result_of(client, client.execute("settings['save_steps'] = 900; import signal"))["status"] == "ok"
    check = "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert result_of(client, client.execute(check))["status"] == "ok"
    assert result_of(client, client.execute(TRAIN))["status"] == "ok"
    lines = lines_of(out / "history.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 121))
    assert lines[: len(done)] == done  # nothing was done again
