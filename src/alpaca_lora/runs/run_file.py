"""`alpaca_lora.json`: how to ask what a folder holds, and how it was made. No other module reads or writes it.

    {"finished": true, "contract": {...}, "contract_sha256": "...", "config": {...}, "versions": {...}, "data": {...},
     "seed": 42, "metrics": {...}, "samples": [...], "regressions": {...}, "adapter": {...} or "weights": "...",
     "files": {...},
     "parent": {"path": "runs/first", "sha256": "...", "data": "...", "parent": null}}    if it continues an adapter

Written by a run, by merge and by extract. What a file holds is checked once, when it is read; parts of another type
than those below are damage.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from ..errors import AdapterError
from ..files import sha256_of_json, write_atomically
from ..textfiles import read_json_file
from .checkpoints import MANIFEST
from .contract import Contract
from .identity import fingerprint_of, identity_of
from .regressions import Regressions
from .versions import versions

RUN_FILE = "alpaca_lora.json"
_AGAIN = "Copy the folder again from where it was made."


@dataclass(frozen=True)
class DataSource:
    """One of several sources, with what was said of it."""

    source: str
    rows: int
    commit: str | None = None
    """Of the hub, which was read."""
    columns: dict[str, str | None] | None = None
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    weight: float | None = None
    count: int | None = None
    votes: str | None = None
    raters: str | None = None

    def reopen(self) -> str | dict[str, Any]:
        """What reads the same records again, as `data` takes it: a data set of the hub at the commit that was read."""
        said = {name: getattr(self, name) for name in ("columns", "split", "config", "revision", "votes", "raters")}
        said = {name: value for name, value in said.items() if value is not None}
        if self.commit is not None:
            said["revision"] = self.commit
        name = self.source.partition("@")[0] if self.commit is not None else self.source
        return {"path": name, **said} if said else name


@dataclass(frozen=True)
class TrainingData:
    """What was trained on."""

    source: str
    fingerprint: str
    """SHA-256 of the records."""
    train_records: int
    validation_records: int
    dropped: dict[str, int]
    """Number of records by the reason why they were left out."""
    truncated: int
    """Number of records with a response that was cut."""
    seal: str = ""
    """`identity.seal_of` the data; "" if its key could not be kept."""
    sources: list[DataSource] | None = None
    """The parts, if there were several, or if more than a name was said of one."""
    shortened: int = 0
    """Number of conversations whose last turns were left out."""
    validation: str | None = None
    """SHA-256 of the records of `val_data`, if it was set."""
    validation_sources: list[DataSource] | None = None


@dataclass(frozen=True)
class Ancestor:
    """An adapter that training started from."""

    path: str
    sha256: str
    """Of its weights file."""
    data: str | None
    """Fingerprint of its records, if known."""
    parent: Ancestor | None
    """The adapter it started from itself."""


@dataclass(frozen=True)
class AdapterRecord:
    """What an adapter must still be when it is loaded; peft loads a changed alpha, or zeros, without a word."""

    settings: dict[str, Any]
    """Those of adapter_config.json that change answers."""
    tensors: dict[str, str]
    """SHA-256 of each tensor."""


class Metrics(TypedDict):
    """Results of a run."""

    steps: int
    loss: float
    """Training loss of the last step."""
    eval_loss_before: float | None
    eval_loss_after: float | None
    """Of the weights that were kept."""
    supervised_tokens: int
    computed_tokens: int
    train_seconds: float
    best_step: NotRequired[int | None]
    """Step of the evaluation with the lowest loss, the one before training left out."""
    eval_loss_best: NotRequired[float | None]
    kept: NotRequired[str]
    """Whose weights are the result: `last` or `best`."""
    kept_step: NotRequired[int]
    stopped_early: NotRequired[str | None]
    """Why the run ended before its last step."""
    rewards: NotRequired[dict[str, float]]
    """Of preference training: `margin` and `accuracy`, on the validation records with the weights that were kept, else
    of the last step."""


@dataclass(frozen=True)
class RunFile:
    """What a run file says; parts that its writer had nothing to say of are None or empty."""

    contract: Contract
    finished: bool | None = None
    """Whether the run has ended; None if merge or extract made the folder."""
    config: dict[str, Any] = field(default_factory=dict)
    """The run's settings."""
    data: TrainingData | None = None
    seed: int | None = None
    parent: Ancestor | None = None
    adapter: AdapterRecord | None = None
    weights: str | None = None
    """Fingerprint of a fully tuned model."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file of the result."""
    metrics: Metrics | None = None
    samples: list[dict[str, str]] = field(default_factory=list)
    """`sample_instructions` with the answers before and after training."""
    regressions: Regressions | None = None
    """What training changed beside its task; None where it was not measured."""
    merge: dict[str, Any] | None = None
    """Dtype and largest logit difference of a merged folder."""
    tracker_id: str = ""
    """What experiment trackers tell the run by, over kills and resumes."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that wrote it."""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes the run this one; see identity.py."""
        assert self.data is not None
        parent = self.parent.sha256 if self.parent else None
        mixed = [(one.source, one.weight, one.count) for one in self.data.sources or () if one.weight or one.count]
        extra = {"mixture": [list(one) for one in mixed] or None, "validation": self.data.validation, "parent": parent}
        return identity_of(self.config, self.data.fingerprint, asdict(self.contract), extra)

    @property
    def data_files(self) -> dict[str, Any]:
        """Where the data were: `source`, `fingerprint`, `seal`, and if there are such, `sources`, `columns` and the
        `objective` of preferences."""
        if self.data is None:
            return {}
        found: dict[str, Any] = {key: getattr(self.data, key) for key in ("source", "fingerprint", "seal")}
        if self.data.sources:
            found["sources"] = [part.reopen() for part in self.data.sources]
        if columns := self.config.get("columns"):
            found["columns"] = columns
        if (objective := self.config.get("objective", "sft")) != "sft":
            found["objective"] = objective
        return found

    @classmethod
    def read(cls, folder: str | Path) -> RunFile | None:
        """A folder's; None if another tool made it and there is none.

        Raises:
            AdapterError: it is damaged, or its contract is not the one that was written.
        """
        path = Path(folder) / RUN_FILE
        if not os.path.exists(path):
            return None
        content = read_json_file(path, AdapterError, _AGAIN)
        if "contract_sha256" in content and content["contract_sha256"] != _hash_of(content.get("contract")):
            raise AdapterError(
                f"{path}: damaged: its contract (template, BOS, EOS, stops and the like) was changed after it was "
                f"written, so the model would be asked otherwise than in training. {_AGAIN}"
            )
        try:
            return _checks().validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            what = f"it lacks {place!r}" if first["type"] == "missing" else f"{place}: {first['msg']}"
            raise AdapterError(f"{path}: damaged: {what}. {_AGAIN}") from error

    def write(self, folder: str | Path) -> None:
        """Write it, whole or not at all."""
        content = {name: value for name, value in asdict(self).items() if value not in (None, {}, [], "")}
        if self.data:
            content["data"] = _without_none(content["data"])
        content |= {"contract_sha256": _hash_of(content["contract"]), "versions": versions()}
        write_atomically(Path(folder) / RUN_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def run_of_checkpoint(folder: str | Path) -> RunFile | None:
    """The run file of the run that a checkpoint belongs to; None if it is no checkpoint, or lies outside its run."""
    if not os.path.exists(Path(folder) / MANIFEST):
        return None
    checkpoint = Path(folder).resolve()
    try:
        if (checkpoint / RUN_FILE).exists() or (run := RunFile.read(checkpoint.parent.parent)) is None or not run.data:
            return None
        manifest = read_json_file(checkpoint / MANIFEST, AdapterError)
        return run if manifest["content"]["run"] == fingerprint_of(run.identity) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # whatever this folder is, it is no checkpoint of that run


def read_contract(folder: str | Path) -> Contract | None:
    """The contract of a folder, or of the run whose checkpoint it is; None if another tool made it.

    Raises:
        AdapterError: the run file is damaged.
    """
    found = RunFile.read(folder) or run_of_checkpoint(folder)
    return found.contract if found else None


@cache
def _checks() -> TypeAdapter[RunFile]:
    return TypeAdapter(RunFile)


def _without_none(content: Any) -> Any:
    """A mapping without what is None, its lists' mappings too."""
    if isinstance(content, list):
        return [_without_none(one) for one in content]
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if value is not None}
    return {key: value if key == "columns" else _without_none(value) for key, value in kept.items()}


def _hash_of(contract: Any) -> str:
    """Hash of a contract as a mapping; where the base is may change."""
    known = isinstance(contract, dict)
    return sha256_of_json({key: contract[key] for key in contract if key != "base_model"} if known else contract)
