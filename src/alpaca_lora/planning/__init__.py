"""Before a run: what it would train on, whether it fits, how long it takes, what it costs. No weight is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import FinetuneConfig, load_recipe
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..data.preview import DataReport
    from .estimate import Count, Plan
    from .time import Work


def plan(
    gpu: str,
    *,
    recipe: str | None = None,
    gpus: int = 1,
    data: Any = None,
    price: float | None = None,
    utilisation: float = 0.34,
    gpu_memory: float | None = None,
    gpu_tflops: float | None = None,
    **settings: Any,
) -> Plan:
    """Will a run fit, how long will it take, what will it cost: by arithmetic, before anything is loaded.

    Args:
        gpu: A card: a100-80g, h100-80g, l40s, rtx4090, ...; any other with gpu_memory and gpu_tflops.
        recipe: A packaged recipe's name, or a YAML file of settings.
        gpus: Number of GPUs; one process each.
        data: Records, as for `finetune`, whose tokens are counted as they would be laid out; Alpaca's mean if left
            out, unless the recipe's are the built-in ones. Nothing is fetched.
        price: Price of one GPU for an hour, in a currency of yours.
        utilisation: Share of the card's peak rate that the run reaches, in (0, 1]; 0.34 is computed, not measured.
        gpu_memory: GiB of a GPU.
        gpu_tflops: 10^12 operations per second at its peak, dense, in bfloat16.
        **settings: Fields of `FinetuneConfig`; they win over the recipe.

    Returns:
        The plan, with `training`, `evaluation`, `fits`, `seconds`, `cost` and `choices`. `print` shows all.

    Raises:
        ConfigError: an unknown GPU, or settings that cannot work, all of them at once.
        DataError, ModelError: data or base cannot be read.
    """
    from .cards import find_card
    from .estimate import Plan, shape_of
    from .time import ALPACA_EXAMPLES, like_alpaca

    card = find_card(gpu, gpu_memory, gpu_tflops)
    named = (load_recipe(recipe) if recipe else {}).get("data")
    if data is None and named == "seeds":  # they are here
        data = named
    given = {"data": "-" if data is None else data, "output_dir": "-", "adapter": None}  # it is not read
    config = FinetuneConfig.make(recipe, **{**settings, **given})
    if data is None and config.batch_size > ALPACA_EXAMPLES:
        message = f"batch_size: {config.batch_size:,} is more than Alpaca's {ALPACA_EXAMPLES:,} examples. Lower it."
        raise ConfigError(message)
    count = like_alpaca if data is None else _counted(config)
    return Plan(config, shape_of(config.base_model), card, gpus, count, price, utilisation)


def inspect(data: Any, base_model: str, **settings: Any) -> DataReport:
    """What training would see, before any training: counts, lengths, truncation, supervised tokens, examples.

    Args:
        data: Records: files, folders, patterns, a hub id, or `seeds`.
        base_model: Its tokenizer and config are used; no weights are loaded.
        **settings: Other fields of `FinetuneConfig`: prompt_template, cutoff_len, columns, batch_size, ...

    Raises:
        ConfigError, DataError, ModelError: as `finetune` would.
    """
    from ..data.preview import DataReport
    from ..models.load import resolve_base
    from .preparation import prepare

    config = FinetuneConfig.make(data=data, base_model=base_model, output_dir=".", **{"val_set_size": 0, **settings})
    prepared = prepare(config, resolve_base(base_model))
    return DataReport(prepared.records, prepared.train, prepared.encoder, prepared.mixture)


def _counted(config: FinetuneConfig) -> Count:
    """Counts the work of settings on the data of `config`, which are read and encoded once."""
    from ..data.pack_counts import count_pack
    from ..data.plan import Planner
    from ..data.step_dataset import StepDataset
    from ..models.load import resolve_base
    from .memory import MicroBatchSize
    from .preparation import prepare
    from .time import Work

    prepared = prepare(config, resolve_base(config.base_model))

    def count(changed: FinetuneConfig, tokens: int, ranks: int) -> Work:
        multiple = 1 if changed.layout == "padded" else 128
        whole = changed.objective != "sft"
        planner = Planner(prepared.train, changed.layout, tokens, ranks, multiple, prepared.mixture, whole)
        steps = StepDataset(planner, changed.batch_size, changed.seed, 1)
        packs = [MicroBatchSize(*count_pack(steps[index])) for index in range(len(steps))]
        total = changed.total_steps(steps.steps_per_epoch)
        epochs = total / steps.steps_per_epoch
        sums = (sum(values) * epochs for values in list(zip(*packs, strict=True))[:3])
        most, predicted, pairs = sums
        largest = (max(packs), max(packs, key=lambda pack: pack.predicted))
        alone = steps.packs_per_step == ranks
        source = f"{len(prepared.train):,} examples of {config.data_name} in the layout {changed.layout}"
        return Work(total, most, pairs, predicted, largest, alone, source, steps.steps_per_epoch)

    return count
