"""Planning: will it fit, how long, how much; data are counted here, for planning knows no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import FinetuneConfig, load_recipe

if TYPE_CHECKING:
    from ..planning.plan import Count, Plan
    from ..planning.time import Work


def plan(
    gpu: str,
    *,
    recipe: str | None = None,
    gpus: int = 1,
    data: Any = None,
    price: float | None = None,
    utilisation: float | None = None,
    gpu_memory: float | None = None,
    gpu_tflops: float | None = None,
    **settings: Any,
) -> Plan:
    """Will a run fit, how long will it take, what will it cost: by arithmetic, before anything is loaded.

    Args:
        gpu: A card's name, as in planning/cards.py; any other with `gpu_memory` and `gpu_tflops`.
        recipe: A packaged recipe's name or a YAML file.
        gpus: How many of them; one process each.
        data: Records, as for `finetune`: their tokens are counted, as they would be laid out. Alpaca's mean if left
            out, unless the recipe's are the built-in ones; nothing is fetched.
        price: Of one GPU for an hour, in a currency of yours.
        utilisation: Share of the card's peak that the run reaches, in (0, 1]; 0.4 if left out, an assumption.
        gpu_memory: GiB of a GPU.
        gpu_tflops: 10^12 operations a second of it at best, dense, in bfloat16.
        **settings: Fields of `FinetuneConfig`; they win over the recipe.

    Returns:
        The plan, with `training`, `evaluation`, `fits`, `seconds`, `cost` and `choices`. `print` shows all.

    Raises:
        ConfigError: an unknown GPU, or settings that cannot work, all of them at once.
        DataError, ModelError: data or base cannot be read.
    """
    from ..planning.cards import find_card
    from ..planning.plan import Plan, shape_of
    from ..planning.time import UTILISATION, like_alpaca

    card = find_card(gpu, gpu_memory, gpu_tflops)
    named = (load_recipe(recipe) if recipe else {}).get("data")
    if data is None and named == "seeds":  # they are here
        data = named
    given = {"data": "-" if data is None else data, "output_dir": "-"}
    config = FinetuneConfig.make(recipe, **{**settings, **given})
    used = UTILISATION if utilisation is None else utilisation
    count = like_alpaca if data is None else _counted(config)
    return Plan(config, shape_of(config.base_model), card, gpus, count, price, used)


def _counted(config: FinetuneConfig) -> Count:
    """Counts the work of settings on the data of `config`, which are read and encoded once."""
    from ..data.counts import count_pack
    from ..data.plan import Planner
    from ..data.steps import StepDataset
    from ..models.load import resolve_base
    from ..planning.memory import MicroBatch
    from ..planning.prepare import prepare
    from ..planning.time import Work

    prepared = prepare(config, resolve_base(config.base_model))

    def count(changed: FinetuneConfig, tokens: int, ranks: int) -> Work:
        multiple = 1 if changed.layout == "padded" else 128
        planner = Planner(prepared.train, changed.layout, tokens, ranks, multiple)
        steps = StepDataset(planner, changed.batch_size, changed.seed, 1)
        packs = [MicroBatch(*count_pack(steps[index])) for index in range(len(steps))]
        total = changed.total_steps(steps.steps_per_epoch)
        epochs = total / steps.steps_per_epoch
        sums = (sum(values) * epochs for values in list(zip(*packs, strict=True))[:3])
        most, predicted, pairs = sums
        largest = (max(packs), max(packs, key=lambda pack: pack.predicted))
        alone = steps.packs_per_step == ranks
        source = f"{len(prepared.train):,} examples of {config.data_name} in the layout {changed.layout}"
        return Work(total, most, pairs, predicted, largest, alone, source, steps.steps_per_epoch)

    return count
