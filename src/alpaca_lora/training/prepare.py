"""Everything that comes before the model loads: the run's folder, and records turned into checked examples."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..data.records import RecordSet, load_records, split_records
from ..data.tokens import Encoder, Examples
from ..errors import ConfigError
from ..models.load import cache_dir, check_pairing, load_config, load_tokenizer, processes
from ..prompts import Template


@dataclass(frozen=True)
class PreparedData:
    """What a run trains on."""

    records: RecordSet
    encoder: Encoder
    model_config: Any
    train: Examples
    validation: Examples | None
    described: dict[str, Any]


def prepare(config: FinetuneConfig, base: str) -> PreparedData:
    """Records to examples, checked against the model's config; loads no weights."""
    records = load_records(config.data, columns=config.columns)
    size = config.val_set_size if config.val_set_size < 1 else int(config.val_set_size)
    train_records, validation_records = split_records(records, size, config.seed)
    tokenizer, model_config = load_tokenizer(base), load_config(base)
    check_pairing(tokenizer, model_config)
    encoder = Encoder(tokenizer, Template.load(config.prompt_template))

    def encode(part: RecordSet) -> Examples:
        return encoder.encode_cached(
            part, config.cutoff_len, cache_dir=cache_dir() / "tokens", train_on_inputs=config.train_on_inputs
        )

    if config.resume:
        _check_same_records(config, records)
    with processes().main_process_first():
        train_examples = encode(train_records)
        validation = encode(validation_records) if len(validation_records) else None
    _check_fit(config, model_config, [train_examples, *([validation] if validation else [])])
    return PreparedData(
        records,
        encoder,
        model_config,
        train_examples,
        validation,
        {
            "source": records.source,
            "fingerprint": records.fingerprint,
            "train_records": len(train_examples),
            "validation_records": len(validation) if validation else 0,
            "dropped": {
                **{reason: len(numbers) for reason, numbers in records.dropped.items()},
                "prompt reaches cutoff_len": len(train_examples.too_long),
            },
            "truncated": len(train_examples.truncated),
        },
    )


def _check_fit(config: FinetuneConfig, model_config: Any, parts: list[Examples]) -> None:
    """Token ids and lengths the model can take."""
    problems = []
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is not None and config.cutoff_len > positions:
        problems.append(f"cutoff_len: {config.cutoff_len} is more than the model's {positions} positions. Lower it.")
    highest = max(int(examples.ids.max()) for examples in parts)
    if highest >= model_config.vocab_size:
        problems.append(
            f"base_model: the tokenizer gives id {highest}, but the model knows "
            f"{model_config.vocab_size} ids only. Use the tokenizer that belongs to the model."
        )
    if problems:
        raise ConfigError(problems)


def claim_output_dir(config: FinetuneConfig) -> Path:
    """The run's folder, checked to be writable and not another run's.

    Raises:
        ConfigError: it is a file, cannot be written, holds something else, or `resume` finds another run.
    """
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; name a folder.")
    run_file = folder / "alpaca_lora.json"
    holds = [entry.name for entry in folder.iterdir()] if folder.exists() else []
    if config.resume:
        _check_same_run(config, run_file)
    elif holds and processes().is_main_process:
        if not run_file.exists():
            advice = f"is not empty ({', '.join(sorted(holds)[:3])}). Name a new folder."
        elif any((folder / "checkpoints").glob("checkpoint-*")):
            advice = "holds another run. Name a new folder, or continue that run with --resume true (resume=True)."
        else:
            advice = "holds a run that stopped before its first checkpoint. Delete it, or name a new folder."
        raise ConfigError(f"output_dir: {folder} {advice}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f"output_dir: cannot write to {folder}: {error.strerror}.") from error
    return folder


def _check_same_run(config: FinetuneConfig, run_file: Path) -> None:
    if not run_file.exists():
        raise ConfigError(f"resume: {run_file.parent} holds no run. Start it without resume.")
    before = _read_run_file(run_file)["config"]
    now = json.loads(json.dumps(config.to_dict()))
    differ = [
        f"resume: {key} was {before.get(key)!r} and is {value!r} now; a run is continued with its own settings only."
        for key, value in now.items()
        if key not in ("resume", "output_dir", "report_to") and before.get(key) != value
    ]
    if differ:
        raise ConfigError(differ)


def _check_same_records(config: FinetuneConfig, records: RecordSet) -> None:
    before = _read_run_file(Path(config.output_dir) / "alpaca_lora.json")["data"]
    if before.get("fingerprint") != records.fingerprint:
        raise ConfigError(
            f"resume: the records of {records.source!r} are others now than when the run began. "
            "Give the same ones, or start a new run in a new output_dir."
        )


def _read_run_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content["config"], dict) and isinstance(content["data"], dict):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"resume: {path} is damaged or not a run's. Start the run anew, in a new output_dir.")
