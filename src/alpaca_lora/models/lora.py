"""LoRA matrices on a base model, through peft.

In: a causal language model and the adapter's settings. Out: a peft model whose only trainable tensors are float32 LoRA
matrices (and DoRA magnitudes).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import ConfigError, did_you_mean
from .new_tokens import begin_rows, make_room, trained_rows

DEFAULT_TARGETS = ["q_proj", "v_proj"]  # alpaca-lora's choice; named so in every LLaMA-architecture model


def add_lora(
    model: Any,
    *,
    r: int,
    alpha: float,
    dropout: float,
    targets: list[str] | str | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    use_rslora: bool = False,
    use_dora: bool = False,
    new_tokens: Mapping[int, list[int]] | None = None,
) -> Any:
    """Freeze `model` and put LoRA matrices beside its target modules.

    Args:
        model: A transformers causal language model.
        r: Rank.
        alpha: Updates are scaled by alpha / r, or alpha / sqrt(r) with `use_rslora` (arXiv 2106.09685, 2312.03732).
        dropout: In front of the matrices, in [0, 1).
        targets: Module names, "all-linear" (all but the head), or None for q_proj and v_proj.
        rank_pattern: Ranks of modules, by the end of their paths, where they are not r; the scale follows each's rank.
        use_rslora: Rank-stabilised scale.
        use_dora: Weight-decomposed updates (arXiv 2402.09353).
        new_tokens: Ids of new tokens, whose rows train, too, each with the ids that its text had without it.

    Raises:
        ConfigError: a target matches no linear module, or is the head or the embedding; a pattern fits no module.
    """
    from peft import LoraConfig, get_peft_model

    names = targets if targets is not None else DEFAULT_TARGETS
    if names != "all-linear":
        check_targets(model, list(names))
    check_pattern(linear_paths(model, names), rank_pattern or {})
    rows = None
    if new_tokens:
        make_room(model, [*new_tokens], begin=True)
        rows = trained_rows(model, [*new_tokens])
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft computes with it only; a float is fine
        lora_dropout=dropout,
        target_modules=names,
        rank_pattern=dict(rank_pattern or {}),
        use_rslora=use_rslora,
        use_dora=use_dora,
        bias="none",
        trainable_token_indices=rows,
    )
    with quiet_peft():
        wrapped = get_peft_model(model, config)
    begin_rows(wrapped, new_tokens or {})
    return wrapped


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Hides what users can do nothing about: peft 0.21 asks transformers 5.23 for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def linear_paths(model: Any, targets: list[str] | str) -> dict[str, int]:
    """Paths of the linear modules that get LoRA, each with its smaller side, the most its rank can be."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = {path: one for path, one in model.named_modules() if isinstance(one, nn.Linear) and one is not head}
    return {
        path: min(one.in_features, one.out_features)
        for path, one in linear.items()
        if targets == "all-linear" or path.rsplit(".", 1)[-1] in targets
    }


def check_pattern(paths: Mapping[str, int], pattern: Mapping[str, int]) -> None:
    """Raise ConfigError listing every pattern of ranks that fits no module, one that another fits, or one too small.

    Args:
        paths: Paths of the modules that get LoRA, each with the most its rank can be.
        pattern: Ranks by the end of a path.
    """
    names = sorted({path.rsplit(".", 1)[-1] for path in paths})
    problems, taken = [], dict[str, str]()
    for key, rank in pattern.items():
        fitting = [path for path in paths if f".{path}".endswith(f".{key}")]
        if not fitting:
            problems.append(
                f"rank_pattern: {key!r} fits no module with LoRA.{did_you_mean(key, names)} Modules: "
                f"{', '.join(names)}; or the end of one's path, such as {next(iter(paths))!r}."
            )
        elif both := next((taken[path] for path in fitting if path in taken), ""):
            # peft writes patterns in the order of their names, and takes the first that fits.
            problems.append(f"rank_pattern: {both!r} and {key!r} fit the same module. Name each module once.")
        elif (most := min(paths[path] for path in fitting)) < rank:
            problems.append(f"rank_pattern: {key!r}: {rank:,} is more than {most:,}, its smaller side. Lower it.")
        taken |= dict.fromkeys(fitting, key)
    if problems:
        raise ConfigError(problems)


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
