"""What training broke: a tuned model against its base on texts that it was not trained for.

loading.py      a model and its base         texts.py        the packaged texts, as examples
measure.py      what is measured on which    divergence.py   two models on the same tokens
general.jsonl   100 texts and 50 questions, of fourteen kinds
"""

from __future__ import annotations

import warnings
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..generation.model import LocalModel
    from ..runs.regressions import Regressions


def regressions(
    model: str | PathLike[str] | LocalModel,
    *,
    data: Any = None,
    base_model: str | None = None,
    prompt_template: str | None = None,
) -> Regressions:
    """Measure what training changed beside its task: a tuned model against its base, on packaged general texts.

    An adapter is switched off to give the base; beside a merged or fully fine-tuned model the base is loaded, too. A
    LoRA run measures this at its end by itself; its alpaca_lora.json and model card have the result.

    Args:
        model: Adapter folder, merged or fully fine-tuned folder; or what `load` returned.
        data: Records to measure on as well, an evaluation set for example: as `finetune` takes them. At most 50 of
            them are used, evenly spread.
        base_model: Path or hub id of the base, if it is not where the model says.
        prompt_template: For models without a contract; `alpaca` if left out.

    Returns:
        KL divergence, change of the loss, and likeliest tokens, with intervals; `print` shows a table. It warns where
        the divergence on the general texts is above 0.25 nats per token.

    Raises:
        ConfigError: the base is not known, or is not the one trained on.
        DataError: records that cannot be used.
        AdapterError, ModelError: as `load`.
    """
    from .loading import examples_of, layout_of, loaded_pair
    from .measure import measure

    pair, encoder = loaded_pair(model, base_model, prompt_template)
    records = None if data is None else examples_of(encoder, data, pair.positions)
    with layout_of(pair) as planned:
        found = measure(pair, encoder, planned, records)
    if found.warning:
        warnings.warn(found.warning, stacklevel=2)
    return found
