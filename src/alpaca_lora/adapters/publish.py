"""A result on the Hugging Face hub: its own files and no others, in one commit, once everything about it is checked.

In: a finished run's folder, or a merged, extracted or exported one. Out: a commit. The key is huggingface_hub's own
(HF_TOKEN, or `hf auth login`): it is never asked for, written or printed here.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from ..errors import AdapterError, ConfigError, HubError, counted
from ..runs.benchmarks import BENCHMARKS
from ..runs.model_card import card_head
from ..runs.peft_config import CONFIG
from ..runs.result import CARD, PUBLISHED, published_files
from ..runs.run_file import RUN_FILE
from ..textfiles import read_json_file, read_text_file
from .results import Pushed

_PLACEHOLDER = re.compile(r"\[More Information Needed\]|\b(?:TO(?:DO)|FIX(?:ME)|TBD)\b|\{\{.*?\}\}|<[A-Z][A-Z _-]+>")
_STAND_IN = "THIS_FOLDER"  # in cards written here: where the result is
_KEY = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[0-9A-Z]{16})\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/\s:@\"']+:[^/\s:@\"']+@"
)
_TEXTS = (
    *(CARD, "*.jsonl", "*.jinja", "Modelfile", "*config.json"),
    *(RUN_FILE, BENCHMARKS, "*certificate.json", "ex*.json"),
)
_WEIGHTS = tuple(name for name in PUBLISHED if "model" in name or name in ("*.gguf", CONFIG, "config.json"))


def push_result(folder: str | Path, repo: str, private: bool = True) -> Pushed:
    """Publish a result; arguments, result and errors as for `push`."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    _check_name(repo)
    folder = Path(folder)
    paths = published_files(folder)
    card = _card(folder, repo)
    token = get_token()
    _check_texts(folder, paths, token)
    if token is None:
        raise HubError("push: no key for the hub. Set the variable HF_TOKEN, or log in once with hf auth login.")
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        there = api.model_info(repo)
        if private and there.private is False:
            raise ConfigError(f"{repo}: is there already, and is public. Give --private false, or another name.")
        names = {path.name for path in paths}
        # What an earlier result left would be loaded instead of, or beside, this one's weights.
        old = {one.rfilename for one in there.siblings or ()} - names
        content = {path.name: path for path in paths} | ({CARD: card.encode()} if CARD in names else {})
        operations: list[Any] = [CommitOperationAdd(name, source) for name, source in content.items()]
        operations += [CommitOperationDelete(name) for name in sorted(old) if _is_weight(name)]
        done = api.create_commit(repo, operations, commit_message=f"{folder.resolve().name}, by alpaca_lora")
    except ConfigError:
        raise
    except Exception as error:  # of huggingface_hub, of its HTTP client, of the hub: a dozen kinds
        said = " ".join(str(error).replace(token, "(key)").split())[:400] or type(error).__name__
        raise HubError(
            f"{repo}: the hub took nothing: {said.rstrip('.')}. Nothing of this push can be seen there; once that is "
            "mended, the same command begins again."
        ) from None
    return Pushed(repo, f"{api.endpoint}/{repo}", done.oid, sorted(names))


def _check_name(repo: str) -> None:
    if repo.count("/") != 1 or not _is_name(repo):
        raise ConfigError(f"repo: {repo!r} is no name on the hub. Give OWNER/NAME, of letters, digits, - _ and .")


def _is_name(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return all(name.split("/"))


def _is_weight(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _WEIGHTS)


def _card(folder: Path, repo: str) -> str:
    """The card as it is published, its head and text checked.

    Raises:
        AdapterError: it is missing, its head is not what the hub reads, or it has places that nobody filled in.
    """
    path = folder / CARD
    if not path.exists():
        raise AdapterError(
            f"{folder}: has no {CARD}, the model card: say there what the model is, was trained on, and must not be "
            "used for, below a head of `---`, `library_name: ...`, `license: ...`, `---`."
        )
    text = read_text_file(path, AdapterError).replace(_STAND_IN, repo)
    try:
        head = card_head(text)
    except yaml.YAMLError as error:
        raise AdapterError(f"{path}: its head is no YAML: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(head, dict):
        raise AdapterError(f"{path}: begins with no head of settings between two lines of ---, which the hub reads.")
    problems = [*_head_problems(head)]
    left = sorted({found[0] for found in _PLACEHOLDER.finditer(text)})
    problems += [f"places to fill in: {', '.join(left[:3])}"] if left else []
    if problems:
        raise AdapterError(f"{path}: {'; '.join(problems)}. Edit it, and push again.")
    if lacking := [name for name in ("license", "base_model") if not head.get(name)]:
        warnings.warn(
            f"{path}: its head has no {' and no '.join(lacking)}: the hub will show none. The licences of the base and "
            "of the data apply all the same.",
            stacklevel=4,
        )
    return text


def _head_problems(head: dict[str, Any]) -> Iterator[str]:
    bases = head.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        if not _is_name(str(base)):
            yield f"base_model: {base!r} in its head is no name on the hub"
    licence = head.get("license")
    if licence is not None and not (isinstance(licence, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence)):
        yield f"license: {licence!r} in its head is no licence's short name, such as apache-2.0 or llama3.1"
    if licence == "other" and not head.get("license_name"):
        yield "license: other in its head needs a license_name"


def _check_texts(folder: Path, paths: list[Path], token: str | None) -> None:
    """Refuse keys in what is published; warn of paths of this machine."""
    texts = [path for path in paths if any(fnmatchcase(path.name, pattern) for pattern in _TEXTS)]
    for path in texts:
        text = read_text_file(path, AdapterError)
        if (token and token in text) or _KEY.search(text):
            raise AdapterError(
                f"{path}: holds what looks like a key or a password, and would be published. Take it out, or train "
                "again without it."
            )
    own = {
        value
        for name in (RUN_FILE, CONFIG)
        if (folder / name).exists()
        for value in _strings(read_json_file(folder / name, AdapterError))
        if os.path.isabs(value) and os.path.exists(value)
    }
    if own:
        warnings.warn(
            f"{folder}: {counted(len(own), 'path')} of this machine can be read in what is published, such as "
            f"{min(own)!r} ({RUN_FILE}, {CONFIG}, and in the text of {CARD}).",
            stacklevel=4,
        )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
