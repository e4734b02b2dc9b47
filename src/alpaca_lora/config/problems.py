"""What can be known to be wrong from the settings alone: a sentence for each problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ..errors import did_you_mean
from .token_texts import token_problems

if TYPE_CHECKING:
    from .settings import FinetuneConfig

PATHS = ("base_model", "adapter", "output_dir", "prompt_template")
MAX_EPOCHS = 10_000  # each is planned before the first step
# Beyond every use; from somewhere above them on, arrays overflow or planning does not end.
_MAXIMA: dict[str, float] = {
    "batch_size": 1_000_000,
    "max_tokens": 100_000_000,
    "cutoff_len": 10_000_000,
    "num_epochs": MAX_EPOCHS,
    "max_steps": 10_000_000,
    "stop_after": 10_000_000,
    "warmup_steps": 10_000_000,
    "eval_steps": 1_000_000_000,
    "save_steps": 1_000_000_000,
    "save_total_limit": 1_000_000,
    "early_stopping_patience": 1_000_000,
    "val_set_size": 1_000_000_000,
    "lora_r": 65_536,
    **dict.fromkeys(
        ("learning_rate", "lora_alpha", "weight_decay", "max_grad_norm", "early_stopping_threshold", "beta"), 1e30
    ),  # float32 ends at 3e38
    "neftune_noise_alpha": 1e30,
}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return math.isfinite(value) if isinstance(value, float) else _is_int(value)


def _is_count(value: Any) -> bool:
    return _is_int(value) and value >= 1


def _is_share(value: Any) -> bool:
    return _is_number(value) and value >= 0 and (value <= 1 or value == int(value))


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)


def _are_ranks(value: object) -> bool:
    return isinstance(value, Mapping) and _are_texts([*value]) and all(map(_is_count, value.values()))


def _are_columns(value: object) -> bool:
    return isinstance(value, Mapping) and _are_texts([*value, *(key for key in value.values() if key is not None)])


# What settings must be, and whether a value is that; choices and switches are known by their types.
_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("batch_size lora_r eval_steps save_steps save_total_limit", "a whole number of at least 1", _is_count),
    ("max_tokens", "a whole number of at least 1, or auto", lambda value: value == "auto" or _is_count(value)),
    ("max_steps early_stopping_patience stop_after", "a whole number of at least 1, or left out",
     lambda value: value is None or _is_count(value)),
    ("cutoff_len", "a whole number of tokens, at least 8", lambda value: _is_int(value) and value >= 8),
    ("seed", f"a whole number from 0 to {2**32 - 1}", lambda value: _is_int(value) and 0 <= value < 2**32),
    ("learning_rate lora_alpha num_epochs", "a number above 0", lambda value: _is_number(value) and value > 0),
    ("neftune_noise_alpha", "a number above 0, or left out",
     lambda value: value is None or (_is_number(value) and value > 0)),
    ("weight_decay max_grad_norm early_stopping_threshold", "a number of at least 0",
     lambda value: _is_number(value) and value >= 0),
    ("beta", "a number above 0", lambda value: _is_number(value) and value > 0),
    ("label_smoothing", "in [0, 0.5)", lambda value: _is_number(value) and 0 <= value < 0.5),
    ("lora_dropout", "in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1),
    ("val_set_size warmup_steps", "a count, a fraction below 1, or 0", _is_share),
    ("resume compile", "true, false or auto", lambda value: isinstance(value, bool) or value == "auto"),
    ("output_dir prompt_template", "a path or a name", lambda value: isinstance(value, str) and value != ""),
    ("base_model", "a path or a name", lambda value: isinstance(value, str)),
    ("adapter", "a path or a name", lambda value: value is None or (isinstance(value, str) and value != "")),
    ("data", "a file, a folder, a hub id, 'seeds', a list of these or of dicts, or a Dataset",
     lambda value: value is not None and (not isinstance(value, str | list | tuple) or len(value) > 0)),
    ("val_data", "as data is, or left out", lambda value: not isinstance(value, str | list | tuple) or len(value) > 0),
    ("columns", "pairs of our field and your column, e.g. {'output': 'answer'}",
     lambda value: value is None or _are_columns(value)),
    ("lora_target_modules", "a list of module names, 'all-linear', or left out",
     lambda value: value in (None, "all-linear") or (_are_texts(value) and len(value) > 0)),
    ("rank_pattern", "pairs of a module's name and its rank, a whole number of at least 1, e.g. {'v_proj': 16}",
     lambda value: value is None or _are_ranks(value)),
    ("new_tokens", "a list of texts, or left out", lambda value: value is None or (_are_texts(value) and value != [])),
    ("report_to", "a tracker's name or a list of names", lambda value: isinstance(value, str) or _are_texts(value)),
    ("sample_instructions", "a list of texts", _are_texts),
)  # fmt: skip


def problems_of(config: FinetuneConfig) -> Iterator[str]:
    """A sentence for everything that is wrong."""
    for names, rule, holds in _RULES:
        for name in names.split():
            if not holds(getattr(config, name)):
                yield f"{name}: {shown(getattr(config, name))} must be {rule}."
    for name, maximum in _MAXIMA.items():
        value = getattr(config, name)
        if _is_number(value) and value > maximum:
            yield f"{name}: {shown(value)} must be at most {maximum if maximum == 1e30 else format(maximum, ',')}."
    for name, kind in get_type_hints(type(config)).items():
        value, choices = getattr(config, name), get_args(kind)
        if kind is bool and not isinstance(value, bool):
            yield f"{name}: {shown(value)} must be true or false."
        elif get_origin(kind) is Literal and value not in choices:
            yield f"{name}: {shown(value)} must be {', '.join(choices[:-1])} or {choices[-1]}."
    if config.base_model == "" and config.adapter is None:
        yield "base_model is missing. Name one: a hub id, a folder, or demo; or an adapter to continue."
    yield from _contradictions(config)


def _contradictions(config: FinetuneConfig) -> Iterator[str]:
    """Settings of `method`, memory and sharding that exclude each other."""
    if config.new_tokens and _are_texts(config.new_tokens):
        yield from token_problems(list(config.new_tokens))
        if config.method == "full" or config.fsdp:
            what = "method=full" if config.method == "full" else "fsdp"
            yield f"new_tokens: their rows are trained beside frozen weights on each device; not with {what}."
    if config.method == "full" and config.adapter is not None:
        yield (
            "adapter: method=full trains every weight and has no matrices to go on with. Merge the adapter first "
            f"(alpaca-lora merge {config.adapter} OUT) and train with base_model=OUT."
        )
    threshold = config.early_stopping_threshold
    if config.early_stopping_patience is None and _is_number(threshold) and threshold > 0:
        yield "early_stopping_threshold: does nothing without early_stopping_patience. Give that too, e.g. 3."
    yield from _objective_problems(config)
    if config.load_in_8bit and config.method != "lora":
        yield f"load_in_8bit: needs method=lora; {config.method!r} holds its weights otherwise. Leave one out."
    if config.fsdp and (config.method == "qlora" or config.load_in_8bit):
        yield (
            "fsdp: quantised weights cannot be sharded here. Use method=lora with fsdp, or leave fsdp out: torchrun "
            "then trains with a copy of the quantised model on every GPU."
        )
    if config.fsdp and config.optimizer != "adamw":
        yield f"optimizer: {shown(config.optimizer)} cannot work on sharded parameters; use adamw with fsdp."
    if config.fsdp and config.dtype == "float16":
        yield "dtype: 'float16' is not scaled over shards here; use bfloat16 or float32 with fsdp."
    if config.fsdp and config.compile is True:
        yield "compile: sharded layers are not compiled here. Leave compile or fsdp out."
    if config.val_data is not None and config.val_set_size not in (0, type(config).val_set_size):
        yield "val_set_size: sets records of data aside, and val_data gives others for validation. Leave one out."
    if config.cpu_offload and not config.fsdp:
        yield "cpu_offload: needs fsdp."
    if config.fsdp and config.sample_instructions:
        yield "sample_instructions: a sharded model cannot answer while it trains; generate from output_dir afterwards."


def _objective_problems(config: FinetuneConfig) -> Iterator[str]:
    """Settings that the objective has no use for."""
    objective, plain = config.objective, type(config)
    if objective == "sft" and config.beta != plain.beta:
        yield "beta: does nothing with objective=sft. Leave it out, or choose dpo or orpo."
    if objective != "dpo" and config.label_smoothing != 0:
        yield f"label_smoothing: does nothing with objective={objective}. Leave it out, or choose dpo."
    if objective != "sft" and config.train_on_inputs:
        yield f"train_on_inputs: {objective} compares answers; their prompts are the same. Leave it out."
    if objective != "sft" and config.neftune_noise_alpha is not None:
        yield f"neftune_noise_alpha: {objective} compares two answers of one model, without noise. Leave it out."


def shown(value: object) -> str:
    """A value as messages show it: of bounded length, even if Python refuses to write the number out."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of {int(math.log10(abs(value))) + 1:,} digits"
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


_ELSEWHERE = {  # names of other tools -> ours, where the nearest word here would be another setting, or none is near
    "model_name_or_path model model_name": ("base_model",),
    "train_dataset dataset datasets dataset_name train_file": ("data",),
    "eval_dataset": ("val_data", "val_set_size"),
    "eval_strategy evaluation_strategy": ("val_set_size", "eval_steps"),
    "formatting_func dataset_text_field": ("prompt_template",),
    "completion_only_loss": ("train_on_inputs",),
    "max_length max_seq_length model_max_length sequence_len": ("cutoff_len",),
    "micro_batch_size": ("max_tokens",),
    "per_device_train_batch_size gradient_accumulation_steps": ("batch_size", "max_tokens"),
    "packing packing_strategy group_by_length padding_free sample_packing": ("layout",),
    "peft_config": ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
    "lora_modules_to_save modules_to_save": ("new_tokens",),
    "load_in_4bit quantization_config model_init_kwargs": ("method=qlora", "load_in_8bit"),
    "optim": ("optimizer",),
    "bf16 fp16 tf32 torch_dtype": ("dtype",),
    "load_best_model_at_end": ("keep",),
    "resume_from_checkpoint": ("resume", "adapter"),
    "warmup_ratio": ("warmup_steps",),
    "wandb_project wandb_run_name wandb_watch wandb_log_model": ("report_to",),
    "fsdp_config fsdp_transformer_layer_cls_to_wrap": ("fsdp",),
    "add_eos_token assistant_only_loss truncation_mode eos_token pad_token deepspeed logging_steps cache_dir": (),
}
_CALLED = {name: ours for names, ours in _ELSEWHERE.items() for name in names.split()}


def called_here(name: str, known: list[str]) -> str:
    """What an unknown setting is called among the `known`, as a sentence to append, or "" when none is near."""
    ours = _CALLED.get(name)
    if ours is None or any(one.partition("=")[0] not in known for one in ours):
        return did_you_mean(name, known)
    if not ours:
        return " Nothing here is set by that, see docs/migrating.md."
    return f" Here it is {' or '.join(map(repr, ours))}, see docs/migrating.md."


def unknown_settings(values: Iterable[object], known: list[str]) -> list[str]:
    """A sentence for each name that is not known."""
    return [f"{key!r} is not a setting.{called_here(str(key), known)}" for key in values if key not in known]
