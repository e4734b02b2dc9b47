"""A hub on 127.0.0.1: the endpoints that huggingface_hub asks for creating, committing, and downloading, without xet.

    with hub(key) as it:
        run a program with it.environment(tmp_path)
        it.repos["owner/name"].commits[-1].files

It keeps repositories as lists of commits, and everything it was sent. A request without the key is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Commit:
    """A commit: its hash, and every file of the repository at it."""

    oid: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A repository; tags are names of commits."""

    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, files: dict[str, bytes], tag: str = "") -> str:
        """A commit with these files; its hash."""
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits.append(Commit(oid, files))
        if tag:
            self.tags[tag] = oid
        return oid

    def at(self, revision: str) -> Commit | None:
        """A commit by its hash, its tag, or `main`."""
        oid = self.commits[-1].oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)


@dataclass
class Hub:
    """What was kept and asked."""

    key: str
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, and what stood in Authorization."""
    elsewhere: str = ""
    """Where to send whoever uploads, as a redirect."""

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a program that is to know no other hub."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        return {**own, "HF_TOKEN": self.key, "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextmanager
def hub(key: str = "a-key-of-the-test") -> Iterator[Hub]:
    """A hub that answers while it is entered."""
    kept = Hub(key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": kept}))
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self._do()

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def do_PUT(self) -> None:
        self._do()

    def _do(self) -> None:
        path, authorization = unquote(urlsplit(self.path).path), self.headers.get("Authorization")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        self.hub.asked.append((self.command, path, authorization))
        signed = path.startswith("/stored/")  # a link that needs no key
        if not signed and authorization != f"Bearer {self.hub.key}":
            self._say(401, {"error": "Invalid username or password."})
        elif self.command in ("POST", "PUT"):
            self._write(path, body)
        else:
            self._read(path)

    def _write(self, path: str, body: bytes) -> None:
        hub, parts = self.hub, path.strip("/").split("/")
        if path.startswith("/stored/"):
            hub.stored[parts[-1]] = body
            self._say(200, {})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.repos:
                self._say(409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"})
            else:
                hub.repos[name] = Repo(asked.get("visibility") == "private" or asked.get("private") is True)
                hub.repos[name].add({".gitattributes": b"*.safetensors filter=lfs"})
                self._say(200, {"url": f"{hub.url}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            if hub.elsewhere:
                self.send_response(307)
                self.send_header("Location", hub.elsewhere + path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            files = json.loads(body)["files"]
            kinds = [
                (one["path"], "lfs" if one["path"].endswith((".safetensors", ".gguf")) else "regular") for one in files
            ]
            self._say(
                200, {"files": [{"path": name, "uploadMode": kind, "shouldIgnore": False} for name, kind in kinds]}
            )
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/stored/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._say(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self._commit("/".join(parts[2:4]), body)
        else:
            self._say(404, {"error": f"{path} is not known here"})

    def _commit(self, name: str, body: bytes) -> None:
        repo = self.hub.repos[name]
        files = dict(repo.commits[-1].files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.hub.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.add(files)
        self._say(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _read(self, path: str) -> None:
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        repo = self.hub.repos.get(name)
        if repo is None:
            self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        revision = parts[5] if parts[0] == "api" and len(parts) > 5 else parts[3] if parts[0] != "api" else "main"
        commit = repo.at(revision)
        if commit is None:
            self._say(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        elif parts[0] != "api":
            self._file(commit, "/".join(parts[4:]))
        elif "tree" in parts:
            self._say(200, [_entry(file, content) for file, content in commit.files.items()])
        else:
            siblings = [{"rfilename": file} for file in commit.files]
            self._say(200, {"id": name, "sha": commit.oid, "private": repo.private, "siblings": siblings, "tags": []})

    def _file(self, commit: Commit, name: str) -> None:
        content = commit.files.get(name)
        own = {"X-Repo-Commit": commit.oid}
        if content is None:
            self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **own})
            return
        self.send_response(200)
        etag = hashlib.sha256(content).hexdigest()
        for header, value in {"ETag": f'"{etag}"', "Content-Length": str(len(content)), **own}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _say(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        for header, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found


def _entry(file: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
