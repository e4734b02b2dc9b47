"""Results go to a hub and come back from it: their own files only, at the commit that is asked for; the key nowhere."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from scripted_hub import Repo, hub

from alpaca_lora import export, finetune, load, merge, push
from alpaca_lora.errors import AdapterError, ConfigError, HubError, ModelError
from alpaca_lora.models.load import resolve_base

KEY = "hf_" + "k3Y" * 12
OWN = {"adapter_model.safetensors", "adapter_config.json", "alpaca_lora.json", "history.jsonl", "loss.png", "README.md"}
QUICK = {"dtype": "float32", "cutoff_len": 128, "val_set_size": 2, "batch_size": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def rows(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps([record._asdict() for record in records]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(short_base, rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "first"
    return finetune(
        base_model=short_base, data=str(rows), output_dir=out, max_steps=2, save_steps=1, **QUICK
    ).output_dir


@pytest.fixture
def copy(run, tmp_path):
    """A copy to change, without its checkpoints."""
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints")))


def command(it, home, *arguments, code=0):
    """Runs the command as a user does, with everything logged that libraries can log; what it printed."""
    variables = {**os.environ, **it.environment(home), "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    done = subprocess.run(
        [sys.executable, "-m", "alpaca_lora", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=variables,
        timeout=1500,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert it.key not in said
    return said


def asking():
    """The objects through which libraries ask the hub; they keep the address they were made with."""
    from huggingface_hub import hf_api
    from transformers.utils import hub as of_transformers

    return [hf_api.api, *([of_transformers.hf_api()] if hasattr(of_transformers, "hf_api") else [])]


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A hub that this process talks to."""
    from huggingface_hub import constants

    with hub(KEY) as it:
        for api in asking():
            monkeypatch.setattr(api, "endpoint", it.url)
        for name, value in it.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        files = it.url + "/{repo_id}/resolve/{revision}/{filename}"
        more = (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HUGGINGFACE_CO_URL_TEMPLATE", files))
        for name, value in (("ENDPOINT", it.url), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True), *more):
            monkeypatch.setattr(constants, name, value)
        yield it


def names(repo):
    return set(repo.commits[-1].files) - {".gitattributes"}


def test_pushed_and_loaded_again(run, tmp_path):
    with hub(KEY) as it:
        # A result: exactly its own files, none of checkpoints/, in one commit.
        (run / "notes.txt").write_text("mine", encoding="utf-8")
        said = command(it, tmp_path, "push", run, "owner/first")
        repo = it.repos["owner/first"]
        assert repo.private
        assert names(repo) == OWN | {path.name for path in run.iterdir() if path.name.startswith(("token", "chat_"))}
        assert len(repo.commits) == 2
        for name in names(repo) - {"README.md"}:
            assert repo.commits[-1].files[name] == (run / name).read_bytes()
        card = repo.commits[-1].files["README.md"].decode()
        assert "alpaca-lora generate owner/first" in card and "THIS_FOLDER" not in card
        assert f"(commit {repo.commits[-1].oid})" in said
        assert "README.md: its head has no license and no base_model" in said
        assert "of this machine can be read in what is published" in said
        for _, path, authorization in it.asked:
            assert authorization == (None if path.startswith("/stored/") else f"Bearer {KEY}")

        # It answers from there, also when a later commit has taken it away.
        oid = repo.commits[-1].oid
        repo.add({"README.md": b"its adapter is gone"})
        said = command(it, tmp_path, "generate", f"owner/first@{oid}", "Name three fruits.", "--max_new_tokens", 8)
        assert "has no alpaca_lora.json" not in said  # its contract came along


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_base_is_pinned_to_its_commit(short_base, rows, tmp_path, here):
    base = here.repos["owner/base"] = Repo(private=False)
    files = {path.name: path.read_bytes() for path in Path(short_base).iterdir()}
    first = base.add(files, tag="v1")
    settings = {"data": str(rows), "output_dir": tmp_path / "run", "max_steps": 1, "warmup_steps": 0, "resume": "auto"}
    settings |= {**QUICK, "val_set_size": 0}
    out = finetune(base_model="owner/base", **settings).output_dir
    content = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert (content["contract"]["base_model"], content["contract"]["base_revision"]) == ("owner/base", first)
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/base", first)
    assert "base_model: owner/base\n" in (out / "README.md").read_text(encoding="utf-8")
    # The hub's main moves on: the run, its adapter, and what goes on from it keep to theirs.
    other = Path(shutil.copytree(short_base, tmp_path / "other"))
    _change(other / "model.safetensors")
    base.add({**files, "model.safetensors": (other / "model.safetensors").read_bytes()}, tag="v2")
    finetune(base_model="owner/base", **settings)
    assert load(out).contract.base_revision == first
    merge(out, tmp_path / "merged", certify=False)
    with pytest.raises(ConfigError, match="resume: the base model's weights changed since the run began"):
        finetune(base_model="owner/base@v2", **settings)
    second = finetune(adapter=out, **{**settings, "output_dir": tmp_path / "second"}).output_dir
    assert json.loads((second / "alpaca_lora.json").read_text())["contract"]["base_revision"] == first
    # An adapter by its name on the hub, to merge and to go on from.
    pushed = push(out, "owner/adapter")
    merge(f"owner/adapter@{pushed.commit}", tmp_path / "again", certify=False)
    found = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("merged", "again")]
    assert found[0] == found[1]
    assert load("owner/adapter").name == "adapter"
    for name, said in (("owner/base@v9", "cannot load the tokenizer of 'owner/base@v9'"), ("owner/base@", "@main")):
        with pytest.raises(ModelError, match=said):
            load(name)


def test_a_hub_that_cannot_be_reached_is_told_at_once_and_the_cache_serves(run, short_base, here, monkeypatch, caplog):
    from huggingface_hub import constants

    here.repos["owner/base"] = Repo(private=False)
    here.repos["owner/base"].add({path.name: path.read_bytes() for path in Path(short_base).iterdir()})
    push(run, "owner/adapter")
    known = resolve_base("owner/base")
    models = [load("owner/base"), load("owner/adapter")]
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    nowhere = "http://127.0.0.1:9"  # nobody listens there
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
    for api in asking():
        monkeypatch.setattr(api, "endpoint", nowhere)
    caplog.clear()
    assert resolve_base("owner/base") == known
    for name, model in zip(("owner/base", "owner/adapter"), models, strict=True):
        assert load(name).generate("Name a duck.") == model.generate("Name a duck.")
    assert resolve_base(known) == known and load(known).generate("Name a duck.") == models[0].generate("Name a duck.")
    for name in ("owner/other", f"owner/other@{'a' * 40}"):
        for call in (resolve_base, load):
            with pytest.raises(ModelError, match=f"no folder '{name}' here, .* the hub cannot be reached: .*refused"):
                call(name)
    assert all("etrying" not in record.getMessage() for record in caplog.records)  # half a minute for each file


def _change(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["model.norm.weight"] += 1
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.filterwarnings("ignore:.*its head has no", "ignore:.*of this machine can be read")
def test_merged_and_exported_folders(run, tmp_path, here):
    merged = merge(run, tmp_path / "merged", certify=False).folder
    pushed = push(merged, "owner/merged", private=False)
    assert not here.repos["owner/merged"].private
    assert set(pushed.files) == {path.name for path in merged.iterdir()}
    exported = export(merged, tmp_path / "gguf", format="gguf-f16").folder
    assert set(push(exported, "owner/gguf").files) == {"model-f16.gguf", "export.json", "Modelfile", "README.md"}
    assert b"library_name: gguf" in here.repos["owner/gguf"].commits[-1].files["README.md"]
    # An adapter takes the model's place: what would be loaded in its stead goes, what is not ours stays.
    repo = here.repos["owner/merged"]
    repo.add({**repo.commits[-1].files, "notes.txt": b"theirs"})
    with pytest.raises(ConfigError, match="owner/merged: is there already, and is public. Give --private false"):
        push(run, "owner/merged")
    push(run, "owner/merged", private=False)
    assert "model.safetensors" not in names(repo) and {"notes.txt", *OWN} <= names(repo)
    with (exported / "model-f16.gguf").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AdapterError, match=r"model-f16.gguf is missing or not what was exported"):
        push(exported, "owner/gguf")


def test_what_is_no_whole_result_is_refused(run, copy, tmp_path, here, short_base):
    def refused(folder, said):
        with pytest.raises(AdapterError, match=said):
            push(folder, "owner/name")
        assert not here.asked

    refused(run / "checkpoints" / "checkpoint-2", "is a checkpoint of a run. Let the run end")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("x", encoding="utf-8")
    refused(tmp_path / "notes", "holds no result to publish: it is no adapter or model")
    refused(short_base, "has no README.md, the model card")
    content = json.loads((copy / "alpaca_lora.json").read_text(encoding="utf-8"))
    (copy / "alpaca_lora.json").write_text(json.dumps({**content, "finished": False}), encoding="utf-8")
    refused(copy, "has not ended, so there is nothing to publish yet. Continue it .* --resume auto.$")  # no checkpoint
    (copy / "alpaca_lora.json").write_text(json.dumps(content), encoding="utf-8")
    _change_adapter(copy)
    refused(copy, "does not hold what its run gave: adapter_model.safetensors is not what the run wrote")


def _change_adapter(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no head", "begins with no head of settings"),
        ("---\na: [b\n---\n", "its head is no YAML"),
        ("---\nlicense: My own licence!\n---\n", "is no licence's short name"),
        ("---\nlicense: other\n---\n", "license: other in its head needs a license_name"),
        ("---\nbase_model: /home/me/llama\n---\n", "base_model: '/home/me/llama' in its head is no name on the hub"),
        (
            "---\nlicense: mit\n---\n[More Information Needed] TODO\n",
            "places to fill in: TODO, [More Information Needed]",
        ),
        ("---\nlicense: mit\n---\ncurl http://me:secret@host/data\n", "holds what looks like a key or a password"),
        (f"---\nlicense: mit\n---\n{KEY}\n", "holds what looks like a key or a password"),
    ],
)
def test_cards_are_checked(copy, here, text, said):
    (copy / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        push(copy, "owner/name")
    assert said in str(caught.value)
    assert KEY not in str(caught.value)
    assert not here.asked


@pytest.mark.parametrize("name", ["first", "a/b/c", "owner/na me", "owner/"])
def test_names(copy, here, name):
    with pytest.raises(ConfigError, match="is no name on the hub.* Give OWNER/NAME"):
        push(copy, name)
    assert not here.asked


@pytest.mark.filterwarnings("ignore:.*its head has no", "ignore:.*of this machine can be read")
def test_a_hub_that_refuses(copy, here, monkeypatch):
    here.key = "another"
    with pytest.raises(HubError, match=r"owner/name: the hub took nothing: .*401") as caught:
        push(copy, "owner/name")
    assert KEY not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="push: no key for the hub. Set the variable HF_TOKEN"):
        push(copy, "owner/name")


@pytest.mark.filterwarnings("ignore:.*its head has no", "ignore:.*of this machine can be read")
def test_the_key_follows_no_redirect(copy, here):
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(self.headers.get("Authorization"))
            self.send_response(400)
            self.end_headers()

        def log_message(self, *args):
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here.elsewhere = f"http://localhost:{server.server_port}"
    try:
        with pytest.raises(HubError, match="the hub took nothing"):
            push(copy, "owner/name")
    finally:
        server.shutdown()
        server.server_close()
    assert seen and set(seen) == {None}
    assert names(here.repos["owner/name"]) == set()
