"""The command that a message about near-JSON ends with: it reads the very text, loses nothing, or is not given."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys

import pytest

from alpaca_lora import load_records
from alpaca_lora.data.record import Record
from alpaca_lora.errors import DataError


def advised(path):
    """What is said of a file, and the command at its end, or ""."""
    with pytest.raises(DataError) as caught:
        load_records(path)
    found = re.search(r'python( -c ".*")$', str(caught.value), re.MULTILINE)
    return str(caught.value), found[1] if found else ""


def run(command, folder):
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["sh", "-c", f"{shlex.quote(sys.executable)}{command}"], check=True, cwd=folder, env=variables)


ROW = '{"instruction": "a", "output": "say \\"//\\", [1,] \\\\ /* and */ \\u0085 so"}'
KEPT = Record("a", "", 'say "//", [1,] \\ /* and */ \x85 so')


@pytest.mark.parametrize(
    "text",
    [
        f"[{ROW},]",
        f"[{ROW}, // the last\n]",
        f"[{ROW[:-1]} /* more */,}}, /* none */ ]",
        f"[ // first\n{ROW}]",
        f"{ROW[:-1]},}}\n",
        f"[{ROW[:-1]}, \"score\": NaN, }}, ]",
        f"[{ROW[:-1]}, \"note\": \"two\nlines\", }}, ]",
        f"[{ROW[:-1]}, \"note\": \"\x7f\", }}]",
        f"[{ROW[:-1]}, \"score\": NaN, \"note\": \"two\tlines\"}}]",
        f"[{ROW[:-1]}, \"note\": \"two\tlines\", \"score\": NaN}}]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_the_command_keeps_texts_to_the_letter(tmp_path, text, packed):
    path = tmp_path / ("my rows.json.gz" if packed else "my rows.json")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    said, command = advised(path)
    assert command, said
    run(command, tmp_path)
    (made,) = tmp_path.glob("*.records.json")
    assert load_records(made, columns={key: None for key in ("score", "note") if f'"{key}"' in text}).records == [KEPT]


@pytest.mark.parametrize(
    "text",
    [
        '[{"instruction": "c", "score": NaN, "output": "FIRST", "output": "SECOND"}]',
        '[{"instruction": "c", "output": "FIRST", "output": "SECOND",}]',
        "[{'instruction': 'c', 'output': 'FIRST', 'output': 'SECOND'}]",
        '[{instruction: "c", output: "FIRST", output: "SECOND"}]',
    ],
)
def test_no_command_drops_one_of_two_values(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    said, command = advised(path)
    assert not command
    assert "the key 'output' stands more than once in one object" in said


@pytest.mark.parametrize(
    "text", ['[{"instruction": "a", "output": "b",} {]', "[{'instruction': 'a', 'output': nan}]", "[{a: [}]"]
)
def test_a_command_that_would_fail_is_not_given(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    said, command = advised(path)
    assert not command and "Correct" in said


def test_compressed_files_are_converted_and_unwrapped_too(tmp_path):
    rows = f'{{"version": 1, "data": [{ROW}]}}'
    for name, content in (("wrapped.json.gz", rows.encode()), ("wide.jsonl.gz", ROW.encode("utf-16"))):
        (tmp_path / name).write_bytes(gzip.compress(content))
        _, command = advised(tmp_path / name)
        run(command, tmp_path)
    made = sorted(path for path in tmp_path.iterdir() if ".records" in path.name or ".utf8" in path.name)
    assert [load_records(path).records for path in made] == [[KEPT]] * 2
