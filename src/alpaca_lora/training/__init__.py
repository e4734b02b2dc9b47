"""Training: the exact step, and a run around it, which pipeline.py tells from top to bottom.

from alpaca_lora import finetune
run = finetune(base_model="demo", data="seeds", output_dir="out", batch_size=10, max_steps=3)
run.generate("Name three fruits.")
run.merge("merged")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..errors import ConfigError
from .run import Run


def finetune(config: FinetuneConfig | None = None, *, recipe: str | None = None, **overrides: Any) -> Run:
    """Fine-tune a base model: LoRA or QLoRA beside frozen weights, or all weights.

    Args:
        config: A whole config; or, instead,
        recipe: a packaged recipe's name or a YAML file, and
        **overrides: any field of `FinetuneConfig`; they win over the recipe.

    Returns:
        The run; its folder holds the adapter (the whole model with `method="full"`), history.jsonl, loss.png, a model
        card and alpaca_lora.json.

    Raises:
        ConfigError: wrong settings, all of them at once.
        DataError: records that cannot be used.
        ModelError: a base that cannot be used.
        TrainingError: losses that are no numbers, a full disk, no memory for a single example.
        RunInterrupted: Ctrl-C, SIGTERM or `stop_after`; the run has a checkpoint and `resume="auto"` continues it.
    """
    if config is None:
        config = FinetuneConfig.make(recipe, **overrides)
    elif recipe or overrides:
        raise ConfigError("finetune: give either a config, or a recipe and settings, not both.")
    from .output_dir import output_dir_locked
    from .pipeline import run_pipeline  # torch comes with it: wrong settings are told before

    with output_dir_locked(Path(config.output_dir)):
        return run_pipeline(config)
