"""Records turned into checked examples: what is known of a run before its model is loaded."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..data.mixture import Mixture
from ..data.record import AnyRecord, Preference, content_of
from ..data.records import MAX_DROPPED_PERCENT, RecordSet, load_records, shown_numbers, split_records
from ..data.tokens import Encoder, Examples, encoder_for
from ..errors import ConfigError, DataError
from ..models.demo import cache_dir
from ..models.distributed import processes
from ..models.geometry import Geometry
from ..models.load import check_pairing, load_config, load_tokenizer
from ..models.new_tokens import add_new_tokens
from ..runs.eval_records import EvalRecords
from ..runs.run_file import TrainingData
from .described_data import described_data


@dataclass(frozen=True)
class PreparedData:
    """What a run trains on."""

    records: RecordSet
    encoder: Encoder
    model_config: Any
    train: Examples
    validation: Examples | None
    eval_records: EvalRecords | None
    """What `validation` is made of, for the file of losses by record."""
    described: TrainingData
    mixture: Mixture | None = None
    validation_records: RecordSet | None = None
    """Those of `val_data`; None if they are among `records`."""


def prepare(config: FinetuneConfig, base: str, encoder: Encoder | None = None) -> PreparedData:
    """Records to examples, checked against the model's config; loads no weights.

    Args:
        config: The run's settings.
        base: What `resolve_base` gave.
        encoder: The encoder of the adapter the run starts from; if left out, the base's tokenizer with the settings'
            template.
    """
    records = load_records(config.data, columns=config.columns, objective=config.objective)
    own = None
    if config.val_data is not None:
        own = load_records(config.val_data, columns=config.columns, objective=config.objective)
    if own is None:
        train_records, validation_records = split_records(records, config.val_set_size, config.seed)
    else:
        if asked := next((one for one in own.entries if one.weight is not None or one.count is not None), None):
            raise ConfigError(
                f"val_data: {asked.path}: weight and count are of training, which takes some an epoch; each evaluation "
                "takes all. Leave them out."
            )
        train_records, validation_records = records, own
        _report_common(records, own)
    if encoder is None:
        tokenizer = load_tokenizer(base)
        add_new_tokens(tokenizer, config.new_tokens or [])
        encoder = encoder_for(tokenizer, config.prompt_template)
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
    rows = max(model_config.vocab_size, len(encoder.tokenizer) if config.new_tokens else 0)
    _check_fit(config, model_config, parts, rows)
    return PreparedData(
        records,
        encoder,
        model_config,
        train_examples,
        validation,
        EvalRecords.of(validation_records, validation, config.objective) if validation else None,
        described_data(config, records, parts, own),
        Mixture.of(records, train_examples),
        own,
    )


def report_dropped(config: FinetuneConfig, data: PreparedData) -> None:
    """Say what preparation dropped, cut and changed, in training and validation together.

    Raises:
        DataError: more than 5% of the records would be dropped.
    """
    validation = [data.validation] if data.validation else []
    sets = [(data.records, [data.train, *validation])]
    if data.validation_records is not None:
        sets = [(data.records, [data.train]), (data.validation_records, validation)]
    for records, parts in sets:
        _report_lengths(records, config.cutoff_len, parts)
        _report_texts(records, data.encoder, parts)


def _report_common(records: RecordSet, validation: RecordSet) -> None:
    """Warn of validation records that are trained on, too; of preferences, if their prompts are."""
    trained = {*map(_learned, records.records)}
    common = [
        number
        for number, record in zip(validation.numbers, validation.records, strict=True)
        if _learned(record) in trained
    ]
    if common and processes().is_main_process:
        warnings.warn(
            f"val_data: {shown_numbers(common, len(validation), validation.parts)} are in data, too: their loss tells "
            "what was learnt by heart. Remove them from one of the two.",
            stacklevel=4,
        )


def _learned(record: AnyRecord) -> bytes | str:
    return record.prompt if isinstance(record, Preference) else content_of(record)


def _check_fit(config: FinetuneConfig, model_config: Any, parts: list[Examples], rows: int) -> None:
    """Token ids (with `rows` of them) and lengths the model can take, and room on the disk for what will be written."""
    problems = [*_disk_problems(config, model_config), *_rank_problems(config, model_config)]
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is not None and config.cutoff_len > positions:
        problems.append(f"cutoff_len: {config.cutoff_len} is more than the model's {positions} positions. Lower it.")
    highest = max(int(examples.ids.max()) for examples in parts)
    if highest >= rows:
        problems.append(
            f"base_model: the tokenizer gives id {highest}, but the model knows "
            f"{rows} ids only. Use the tokenizer that belongs to the model."
        )
    if problems:
        raise ConfigError(problems)


def _report_lengths(records: RecordSet, cutoff_len: int, parts: list[Examples]) -> None:
    """Say what `cutoff_len` dropped and cut, in training and validation together.

    Raises:
        DataError: it dropped more than 5%, as for empty outputs: that is another data set than the one given.
    """
    dropped = sorted(number for part in parts for number in part.dropped)
    shortened = sorted(number for part in parts for number in part.shortened)
    cut = sorted(number for part in parts for number in part.truncated)
    same = sorted(number for part in parts for number in part.same)
    total = len(records)
    for numbers, what in (
        (dropped, f"the prompt alone reaches cutoff_len={cutoff_len}"),
        (same, f"both answers have the same tokens within cutoff_len={cutoff_len}"),
    ):
        if not numbers:
            continue
        found = f"{records.source}: {what} in {shown_numbers(numbers, total, records.parts)}"
        if len(numbers) * 100 > total * MAX_DROPPED_PERCENT:
            raise DataError(
                f"{found}; these records cannot be trained on, and at most {MAX_DROPPED_PERCENT}% may be dropped. "
                "Raise cutoff_len, or remove them."
            )
        if processes().is_main_process:
            warnings.warn(f"{found}; they are dropped.", stacklevel=3)
    if shortened and processes().is_main_process:
        warnings.warn(
            f"{records.source}: later turns reach cutoff_len={cutoff_len} in "
            f"{shown_numbers(shortened, total, records.parts)}; these turns are left out, and the earlier ones are "
            "trained. Raise cutoff_len to keep them.",
            stacklevel=3,
        )
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
        return Geometry.of(model_config).rank_problems(*config.lora_shape)
    except (AttributeError, ConfigError):
        return []  # another architecture; its linears are known once it is loaded


def _disk_problems(config: FinetuneConfig, model_config: Any) -> Iterator[str]:
    folder = Path(config.output_dir)
    if not folder.is_dir() or (folder / "checkpoints").exists():
        return  # inspecting, or continuing: what is there counts, and is counted before each save
    try:
        shape = Geometry.of(model_config)
        full = config.method == "full"
        trained = shape.parameters if full else shape.lora_parameters(*config.lora_shape)
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
