"""Training and validation records, drawn once and for all by a seed."""

from __future__ import annotations

import random

from ...errors import ConfigError, counted
from ..record import Preference
from .record_set import RecordSet


def split_records(records: RecordSet, val_set_size: float, seed: int) -> tuple[RecordSet, RecordSet]:
    """Sets records aside for validation.

    Each record gets a random number and the smallest win: the same (content, seed) gives the same split on every
    platform and Python version, and a larger `val_set_size` only adds records to the validation set. Preferences on
    one prompt stand on one side, so that there may be a few more of them for validation.

    Args:
        records: What to split.
        val_set_size: A count of records if 1 or more, else a fraction, rounded, of at least one record if above 0.
        seed: Seed of the draw.

    Returns:
        (train, validation), both in source order; validation is empty for 0.

    Raises:
        ConfigError: Nothing would be left to train on.
    """
    total, size, rounds = len(records), int(val_set_size), ""
    if 0 < val_set_size < 1:
        size = max(1, round(val_set_size * total))
        rounds = f"{val_set_size:g} of {total:,} rounds to {size:,}, and "
    if size and size >= total:
        advice = f"Give at most {total - 1:,}." if total > 1 else "Give 0, or more data."
        raise ConfigError(
            f"val_set_size: {val_set_size if rounds else size}: {rounds}{size:,} for validation of "
            f"{counted(total, 'record')} in {records.source} leaves {total:,} - {size:,} = {total - size:,} to train "
            f"on. {advice}"
        )
    # Only `random()` is promised to repeat across versions of Python; `shuffle` and `sample` are not.
    generator = random.Random(int(seed))
    keys = [generator.random() for _ in range(total)]
    prompts = [one.prompt if isinstance(one, Preference) else index for index, one in enumerate(records.records)]
    first = {prompt: index for index, prompt in reversed([*enumerate(prompts)])}
    drawn = sorted(range(total), key=lambda index: keys[first[prompts[index]]])[:size]
    chosen_prompts = {prompts[index] for index in drawn}
    chosen = {index for index in range(total) if prompts[index] in chosen_prompts}
    train = [index for index in range(total) if index not in chosen]
    if not train:
        raise ConfigError(
            f"val_set_size: {val_set_size}: preferences on {counted(len(first), 'prompt')} in {records.source}; "
            "those on one stand on one side, so that none is left to train on. Give 0, or more data."
        )
    return records.subset(train), records.subset(sorted(chosen))
