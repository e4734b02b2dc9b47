"""LoRA matrices on a base model, through peft.

In: a causal language model and the adapter's settings. Out: a peft model whose only trainable tensors are float32 LoRA
matrices (and DoRA magnitudes).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ConfigError, did_you_mean

DEFAULT_TARGETS = ["q_proj", "v_proj"]  # alpaca-lora's choice; named so in every LLaMA-architecture model


def add_lora(
    model: Any,
    *,
    r: int,
    alpha: float,
    dropout: float,
    targets: list[str] | str | None = None,
    use_rslora: bool = False,
    use_dora: bool = False,
) -> Any:
    """Freeze `model` and put LoRA matrices beside its target modules.

    Args:
        model: A transformers causal language model.
        r: Rank.
        alpha: Updates are scaled by alpha / r, or alpha / sqrt(r) with `use_rslora` (arXiv 2106.09685, 2312.03732).
        dropout: In front of the matrices, in [0, 1).
        targets: Module names, "all-linear" (all but the head), or None for q_proj and v_proj.
        use_rslora: Rank-stabilised scale.
        use_dora: Weight-decomposed updates (arXiv 2402.09353).

    Raises:
        ConfigError: a target matches no linear module, or is the head or the embedding.
    """
    from peft import LoraConfig, get_peft_model

    names = targets if targets is not None else DEFAULT_TARGETS
    if names != "all-linear":
        check_targets(model, list(names))
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft computes with it only; a float is fine
        lora_dropout=dropout,
        target_modules=names,
        use_rslora=use_rslora,
        use_dora=use_dora,
        bias="none",
    )
    with quiet_peft():
        return get_peft_model(model, config)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Hides what users can do nothing about: peft 0.21 asks transformers 5.23 for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def check_targets(model: Any, targets: list[str]) -> None:
    """Raise ConfigError listing every target that matches no linear module, or that LoRA here refuses."""
    from torch import nn

    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = {name for name in ("lm_head", "embed_tokens") if name in targets}
    unmatched = [name for name in targets if name not in linear and name not in head]
    choices = sorted(linear - {"lm_head"})
    problems = [
        f"lora_target_modules: {name!r} matches no linear module of {type(model).__name__}."
        f"{did_you_mean(name, choices)} Linear modules: {', '.join(choices)}."
        for name in unmatched
    ]
    for name in sorted(head):
        tied = getattr(model.config, "tie_word_embeddings", False)
        reason = (
            "input embedding and head are one tensor in this model, and LoRA would change only one of its two uses"
            if tied
            else "the adapter would no longer merge and load everywhere"
        )
        problems.append(f"lora_target_modules: {name!r} is refused: {reason}. Choose from: {', '.join(choices)}.")
    if problems:
        raise ConfigError(problems)
