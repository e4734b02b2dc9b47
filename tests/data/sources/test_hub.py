"""Data sets of the hub, from a small hub on this machine: splits, configurations, and pinned revisions."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from urllib.parse import unquote

import pytest

CARD = """---
configs:
- config_name: en
  data_files: [{split: train, path: en/train.jsonl}, {split: test, path: en/test.jsonl}]
- config_name: de
  data_files: [{split: train, path: de/train.jsonl}]
---
"""
COMMITS = {"v1": "a" * 40, "main": "b" * 40}


def line(output: str) -> bytes:
    return json.dumps({"instruction": "Say it.", "output": output}).encode() + b"\n"


def files_of(commit: str) -> dict[str, bytes]:
    name = next(name for name, known in COMMITS.items() if known == commit)
    parts = {f"{part}.jsonl": line(f"{part} {name}") for part in ("en/train", "en/test", "de/train")}
    return {"README.md": CARD.encode(), **parts}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers what `datasets` asks for of the data set org/name, which has two commits."""

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        _, kind, *rest = path.split("/")
        if path.startswith("/api/datasets/org/name"):
            asked = [*rest[3:], "", "main"] if len(rest) < 5 else rest[3:]
            commit = COMMITS.get(asked[1], asked[1]) or COMMITS["main"]
            if commit not in COMMITS.values():
                return self.answer(b'{"error": "Revision not found"}', 404, {"X-Error-Code": "RevisionNotFound"})
            files = files_of(commit)
            entries = [
                {"type": "file", "path": name, "rfilename": name, "size": len(text), "oid": self.etag(text)}
                for name, text in files.items()
                if asked[0] != "tree" or name.startswith("/".join(asked[2:]))
            ]
            found = {"id": "org/name", "sha": commit, "siblings": entries, "private": False, "tags": []}
            return self.answer(json.dumps(entries if asked[0] == "tree" else found).encode())
        if kind == "datasets" and rest[2] == "resolve" and (text := files_of(rest[3]).get("/".join(rest[4:]))):
            return self.answer(text, 200, {"ETag": f'"{self.etag(text)}"', "X-Repo-Commit": rest[3]})
        return self.answer(b'{"error": "Entry not found"}', 404, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def etag(self, text: bytes) -> str:
        return hashlib.sha1(text).hexdigest()

    def answer(self, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Reads sources in a process of its own, with one cache; (what came, what was said)."""
    pytest.importorskip("datasets")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    homes = [tmp_path_factory.mktemp("hub") for _ in range(2)]
    code = (
        "import json, sys\n"
        "from alpaca_lora.data.records import load_records\n"
        "from alpaca_lora.errors import DataError\n"
        "for data in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        found = load_records(data)\n"
        "        print(json.dumps([[one.output for one in found.records], found.commits]))\n"
        "    except DataError as error:\n"
        "        print(json.dumps(str(error)))\n"
    )

    def run(*sources, home=0, offline=False):
        environment = {
            **os.environ,
            "HF_HOME": str(homes[home]),
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(sources)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(found) for found in done.stdout.splitlines()]

    yield run
    server.shutdown()


def test_split_configuration_and_revision_are_what_is_read(read):
    en = {"path": "org/name", "config": "en"}
    found = read(
        {**en, "split": "test", "revision": "v1"},
        {"path": "org/name@v1", "config": "de"},
        en,
        [{**en, "split": "test"}, {"path": "org/name", "config": "de", "revision": "v1"}],
        {**en, "split": "dev"},
        {**en, "revision": "v9"},
        {"path": "org/name@v1", "revision": "main"},
    )
    assert found[:4] == [
        [["en/test v1"], [COMMITS["v1"]]],
        [["de/train v1"], [COMMITS["v1"]]],
        [["en/train main"], [COMMITS["main"]]],
        [["en/test main", "de/train v1"], [COMMITS["main"], COMMITS["v1"]]],
    ]
    assert "dev" in found[4]
    assert f"the cache holds commit {COMMITS['main']} of it, not revision 'v9'" in found[5]
    assert "revision is 'main', and the name says 'v1'. Give one." in found[6]


def test_without_the_hub_a_pinned_commit_is_that_commit_or_an_error(read):
    de = {"path": "org/name", "config": "de"}
    assert read({**de, "revision": "v1"}, home=1) == [[["de/train v1"], [COMMITS["v1"]]]]
    pinned, other, tag = read(
        *({**de, "revision": revision} for revision in (COMMITS["v1"], "c" * 40, "v1")), home=1, offline=True
    )
    assert pinned == [["de/train v1"], [COMMITS["v1"]]]
    for message in (other, tag):
        assert (
            f"the cache holds commit {COMMITS['v1']} of it" in message and "known by its whole commit only" in message
        )
