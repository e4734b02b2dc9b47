"""Records turned into checked examples: what is known of a run before its model is loaded."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..data.records import MAX_DROPPED_PERCENT, RecordSet, load_records, shown_numbers, split_records
from ..data.tokens import Encoder, Examples
from ..errors import ConfigError, DataError
from ..models.demo import cache_dir
from ..models.distributed import processes
from ..models.geometry import Geometry
from ..models.load import check_pairing, load_config, load_tokenizer
from ..prompts import Template
from ..runs.identity import seal_of


@dataclass(frozen=True)
class PreparedData:
    """What a run trains on."""

    records: RecordSet
    encoder: Encoder
    model_config: Any
    train: Examples
    validation: Examples | None
    described: dict[str, Any]


def prepare(config: FinetuneConfig, base: str, encoder: Encoder | None = None) -> PreparedData:
    """Records to examples, checked against the model's config; loads no weights.

    Args:
        config: The run's settings.
        base: What `resolve_base` gave.
        encoder: The encoder of the adapter the run starts from; if left out, the base's tokenizer with the settings'
            template.
    """
    records = load_records(config.data, columns=config.columns)
    size = config.val_set_size if config.val_set_size < 1 else int(config.val_set_size)
    train_records, validation_records = split_records(records, size, config.seed)
    if encoder is None:
        encoder = Encoder(load_tokenizer(base), Template.load(config.prompt_template))
        encoder.check_template()
    model_config = load_config(base)
    check_pairing(encoder.tokenizer, model_config)

    def encode(part: RecordSet) -> Examples:
        return encoder.encode_cached(
            part, config.cutoff_len, cache_dir=cache_dir() / "tokens", train_on_inputs=config.train_on_inputs
        )

    with processes().local_main_process_first():
        train_examples = encode(train_records)
        validation = encode(validation_records) if len(validation_records) else None
    parts = [train_examples, *([validation] if validation else [])]
    named: dict[str, Any] = {"source": records.source, "fingerprint": records.fingerprint, "columns": config.columns}
    named |= {"sources": [name for name, _ in records.parts]} if records.parts else {}
    _check_fit(config, model_config, parts)
    return PreparedData(
        records,
        encoder,
        model_config,
        train_examples,
        validation,
        {
            "source": records.source,
            **({"sources": [{"source": name, "rows": rows} for name, rows in records.parts]} if records.parts else {}),
            "fingerprint": records.fingerprint,
            "seal": seal_of(named),
            "train_records": len(train_examples),
            "validation_records": len(validation) if validation else 0,
            "dropped": {
                **{reason: len(numbers) for reason, numbers in records.dropped.items()},
                "prompt reaches cutoff_len": sum(len(part.too_long) for part in parts),
            },
            "truncated": sum(len(part.truncated) for part in parts),
        },
    )


def report_dropped(config: FinetuneConfig, data: PreparedData) -> None:
    """Say what preparation dropped, cut and changed, in training and validation together.

    Raises:
        DataError: more than 5% of the records would be dropped.
    """
    parts = [data.train, *([data.validation] if data.validation else [])]
    _report_lengths(data.records, config.cutoff_len, parts)
    _report_texts(data.records, data.encoder, parts)


def _check_fit(config: FinetuneConfig, model_config: Any, parts: list[Examples]) -> None:
    """Token ids and lengths the model can take, and room on the disk for what will be written."""
    problems = [*_disk_problems(config, model_config), *_rank_problems(config, model_config)]
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


def _report_lengths(records: RecordSet, cutoff_len: int, parts: list[Examples]) -> None:
    """Say what `cutoff_len` dropped and cut, in training and validation together.

    Raises:
        DataError: it dropped more than 5%, as for empty outputs: that is another data set than the one given.
    """
    dropped = sorted(number for part in parts for number in part.too_long)
    cut = sorted(number for part in parts for number in part.truncated)
    total = len(records)
    if dropped:
        which = shown_numbers(dropped, total, records.parts)
        found = f"{records.source}: the prompt alone reaches cutoff_len={cutoff_len} in {which}"
        if len(dropped) * 100 > total * MAX_DROPPED_PERCENT:
            raise DataError(
                f"{found}; these records cannot be trained on, and at most {MAX_DROPPED_PERCENT}% may be dropped. "
                "Raise cutoff_len, or remove them."
            )
        if processes().is_main_process:
            warnings.warn(f"{found}; they are dropped.", stacklevel=3)
    if cut and processes().is_main_process:
        warnings.warn(
            f"{records.source}: the response is cut to fit cutoff_len={cutoff_len} in "
            f"{shown_numbers(cut, total, records.parts)}; EOS stays at its end. Raise cutoff_len to keep them whole.",
            stacklevel=3,
        )


def _report_texts(records: RecordSet, encoder: Encoder, parts: list[Examples]) -> None:
    """Warn once of texts that the tokenizer changes, in training and validation together."""
    changed = sorted(number for part in parts for number in part.changed_text)
    if not (changed and processes().is_main_process):
        return
    first = records.records[records.numbers.index(changed[0])]
    warnings.warn(
        f"{records.source}: the tokenizer changes text in {shown_numbers(changed, len(records), records.parts)}: "
        f"{encoder.comes_back_as(first)}. The model learns the changed text. Use a tokenizer that keeps it, or write "
        "it in characters that come back.",
        stacklevel=3,
    )


def _rank_problems(config: FinetuneConfig, model_config: Any) -> list[str]:
    if config.method == "full":
        return []
    try:
        return Geometry.of(model_config).rank_problems(config.lora_r, config.lora_target_modules)
    except (AttributeError, ConfigError):
        return []  # another architecture; its linears are known once it is loaded


def _disk_problems(config: FinetuneConfig, model_config: Any) -> Iterator[str]:
    folder = Path(config.output_dir)
    if not folder.is_dir() or (folder / "checkpoints").exists():
        return  # inspecting, or continuing: what is there counts, and is counted before each save
    try:
        shape = Geometry.of(model_config)
        full = config.method == "full"
        trained = shape.parameters if full else shape.lora_parameters(config.lora_r, config.lora_target_modules)
    except (AttributeError, ConfigError):
        return  # another architecture; its size is known once it is loaded
    moments = 8 if config.optimizer == "adamw" else 2
    needed = trained * ((4 + moments) * (config.save_total_limit + 1) + 4)
    free = shutil.disk_usage(folder).free
    if free < needed:
        yield (
            f"output_dir: {config.save_total_limit + 1} checkpoints and the result take {needed / 1e9:.1f} GB, and "
            f"{folder} has {free / 1e9:.1f} GB free. Make room, lower save_total_limit, or name another folder."
        )
