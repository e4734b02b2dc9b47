"""The settings of a run: one frozen dataclass, every field documented with its unit.

Names follow alpaca-lora's `finetune.py` where they mean the same. All problems are reported at once, before anything
is loaded.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError, did_you_mean
from .textfiles import read_text_file

_PATHS = ("base_model", "adapter", "output_dir", "prompt_template")
_SWITCHES = (
    "train_on_inputs",
    "use_rslora",
    "use_dora",
    "gradient_checkpointing",
    "load_in_8bit",
    "fsdp",
    "cpu_offload",
)
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit")
SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup")
MAX_EPOCHS = 10_000  # each is planned before the first step
MAX_RECIPE_BYTES = 100_000
# Beyond every use; from somewhere above them on, arrays overflow or planning does not end.
_MOST: dict[str, float] = {
    "batch_size": 1_000_000,
    "max_tokens": 100_000_000,
    "cutoff_len": 10_000_000,
    "num_epochs": MAX_EPOCHS,
    "max_steps": 10_000_000,
    "warmup_steps": 10_000_000,
    "eval_steps": 1_000_000_000,
    "save_steps": 1_000_000_000,
    "save_total_limit": 1_000_000,
    "val_set_size": 1_000_000_000,
    "lora_r": 65_536,
    **dict.fromkeys(("learning_rate", "lora_alpha", "weight_decay", "max_grad_norm"), 1e30),  # float32 ends at 3e38
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of one fine-tuning run.

    Raises:
        ConfigError: with every problem found, not only the first.
    """

    base_model: str = ""
    """Base model: a hub id, a folder, or `demo` (SmolLM2-135M-Instruct, a small LLaMA-architecture model). With
    `adapter` it may be left out; else it says where that adapter's base is now."""

    adapter: str | None = None
    """Adapter to start from: its matrices go on training, with its base, template, rank and targets, in a new run.
    Settings left at their defaults are the adapter's; others must be."""

    data: Any
    """Records: a JSON, JSONL, CSV or Parquet file, a folder of them, a pattern (`data/*.json`), a hub id, `seeds` (the
    built-in 175), or a list of these, one after the other; from Python also a list of dicts or a datasets.Dataset."""

    output_dir: str
    """Folder the run writes to; it must be new or empty, unless `resume` is set."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """What trains: `lora` small matrices beside frozen weights, `qlora` the same beside weights held in 4 bits (NF4,
    double quantisation; arXiv 2305.14314), `full` every weight."""

    columns: dict[str, str | None] | None = None
    """Names of the data's own columns, e.g. `{"instruction": "question", "output": "answer"}`; a column of theirs that
    is null (`{"notes": null}`) is left out on purpose."""

    prompt_template: str = "alpaca"
    """A packaged template (`alpaca`, `alpaca_legacy`, `alpaca_short`, `medalpaca`) or a JSON file in alpaca-lora's
    format."""

    train_on_inputs: bool = False
    """Supervise the prompt's tokens too."""

    cutoff_len: int = 512
    """Maximum number of tokens per example. Longer responses are cut (EOS stays); records whose prompt alone reaches it
    are dropped and listed."""

    val_set_size: float = 0.05
    """Validation records: a count when 1 or more, a fraction of the data when below 1, none when 0."""

    batch_size: int = 128
    """Examples in an optimizer step, over all devices and micro-batches; honoured exactly."""

    layout: Literal["padded", "packed", "tree"] = "tree"
    """How a step is laid out: `tree` computes prompt tokens that examples share once, `packed` shares nothing,
    `padded` is the usual rectangle. Changes memory and speed, never the numbers (with LoRA dropout: but for the draw
    of its masks)."""

    max_tokens: int | Literal["auto"] = "auto"
    """Maximum number of tokens per micro-batch, padding included; `auto`: 1,024 on a CPU, on a GPU what should fit, up
    to 16,384, and never less than `cutoff_len`. Changes memory and speed, never the numbers."""

    num_epochs: float = 3
    """Passes over the training records. An epoch is floor(records / batch_size) steps."""

    max_steps: int | None = None
    """Optimizer steps to stop after; overrides `num_epochs`."""

    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""

    lr_scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup_steps: float = 0.03
    """Warm-up: optimizer steps when 1 or more, a fraction of all steps when below 1."""

    weight_decay: float = 0.0
    """AdamW's weight decay."""

    max_grad_norm: float = 1.0
    """Gradient norm to clip at; 0 switches clipping off."""

    lora_r: int = 8
    """Rank of the LoRA matrices."""

    lora_alpha: float = 16
    """LoRA's scale: updates are multiplied by alpha / r (alpha / sqrt(r) with `use_rslora`)."""

    lora_dropout: float = 0.05
    """Dropout in front of the LoRA matrices, in [0, 1)."""

    lora_target_modules: list[str] | Literal["all-linear"] | None = None
    """Linear modules that get LoRA: a list of names such as `[q_proj,k_proj,v_proj,o_proj]`, `all-linear` for every
    one but the head, or nothing for alpaca-lora's own choice, q_proj and v_proj."""

    use_rslora: bool = False
    """Rank-stabilised LoRA (arXiv 2312.03732)."""

    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353); slower."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: half more operations with LoRA, a third more with `full`; far less
    memory."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of frozen weights and of matrix multiplications. `auto`: bfloat16 on CUDA devices that have it, else
    float32. What trains, its gradients and their sums over processes are always float32; a fully fine-tuned model is
    saved in this dtype."""

    load_in_8bit: bool = False
    """Hold the frozen weights of `lora` in 8 bits (LLM.int8, arXiv 2208.07339)."""

    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW with its two moments in float32, in 8 bits (arXiv 2110.02861), or in 8 bits and in memory that moves to the
    host under pressure."""

    fsdp: bool = False
    """Shard weights, gradients and optimizer state over all processes (FSDP2); start them with torchrun."""

    cpu_offload: bool = False
    """With `fsdp`: keep the shards in host memory; slower, far less GPU memory."""

    eval_steps: int = 200
    """Optimizer steps between evaluations; one before the first step and one at the end always happen."""

    save_steps: int = 200
    """Optimizer steps between checkpoints."""

    save_total_limit: int = 2
    """Newest checkpoints kept; the one with the lowest validation loss stays beside them."""

    seed: int = 42
    """Seeds the split, the order of records, LoRA's initial values and dropout."""

    report_to: list[str] | str = "none"
    """Experiment trackers of transformers, e.g. `tensorboard`, `wandb,mlflow`, or `all` that are installed."""

    sample_instructions: list[str] = field(default_factory=list)
    """Instructions answered before and after training, to see what changed."""

    resume: bool | Literal["auto"] = False
    """Continue the run in `output_dir` from its newest valid checkpoint. `auto` starts it where there is none yet and
    leaves it alone where it is finished: the same command can be run again for ever."""

    def __post_init__(self) -> None:
        for name in _PATHS:
            value = getattr(self, name)
            if isinstance(value, Path) or (isinstance(value, str) and value.startswith("~")):
                object.__setattr__(self, name, os.path.expanduser(value))  # YAML and --name=~/x reach no shell
        for name, value in vars(self).items():
            if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
                object.__setattr__(self, name, value.item())  # np.int64(4) is 4
        problems = list(_problems(self))
        if problems:
            raise ConfigError(problems)

    @classmethod
    def make(cls, recipe: str | None = None, **overrides: Any) -> FinetuneConfig:
        """A config from a recipe's values and overrides; overrides win.

        Args:
            recipe: A packaged recipe's name, or a YAML file.
            **overrides: Any field.

        Raises:
            ConfigError: unknown recipe, or every unknown field (the nearest known one is named) and wrong value.
        """
        values = {**(load_recipe(recipe) if recipe else {}), **overrides}
        known = [entry.name for entry in fields(cls)]
        problems = [f"{key!r} is not a setting.{called_here(str(key), known)}" for key in values if key not in known]
        problems += [f"{key} is missing." for key in ("data", "output_dir") if key not in values]
        if not problems:
            return cls(**values)
        stand_in = {"data": "-", "output_dir": "-"}
        try:
            cls(**{**stand_in, **{key: value for key, value in values.items() if key in known}})
        except ConfigError as error:
            problems += error.problems
        raise ConfigError(problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the run's alpaca_lora.json stores them; data that is not a path is named by its type."""
        names = [str(name) for name in self.data] if self._names_sources else self.data_name
        return {**self.__dict__, "data": names}

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the run."""
        return self.max_steps or math.ceil(self.num_epochs * steps_per_epoch)

    def warmup_count(self, total_steps: int) -> int:
        """Optimizer steps of warm-up: at step k of them, counted from 0, the rate is k / their number of its peak."""
        if self.lr_scheduler == "constant":
            return 0
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        # A fraction is rounded up, as transformers does, but a step is left at the full rate.
        return min(math.ceil(self.warmup_steps * total_steps), total_steps - 1)

    @property
    def data_name(self) -> str:
        """The data's path or hub id (of several, joined by " + "), or the type of an object handed over in Python."""
        if self._names_sources:
            return " + ".join(map(str, self.data))
        return str(self.data) if isinstance(self.data, str | Path) else f"<{type(self.data).__name__}>"

    @property
    def _names_sources(self) -> bool:
        entries = self.data if isinstance(self.data, list | tuple) else []
        return bool(entries) and all(isinstance(entry, str | Path) for entry in entries)


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    folder = resources.files(f"{__package__}.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_path(name: str | Path) -> Path:
    """File of a packaged recipe, or `name` itself where it is a file.

    Raises:
        ConfigError: neither.
    """
    names = recipe_names()
    if name in names:
        return Path(str(resources.files(f"{__package__}.recipes") / f"{name}.yaml"))
    if os.path.isfile(name):
        return Path(name)
    raise ConfigError(
        f"recipe: {str(name)!r} is neither a recipe nor a file.{did_you_mean(str(name), names)} "
        f"Recipes: {', '.join(names)}."
    )


def load_recipe(name: str | Path) -> dict[str, Any]:
    """The values of a recipe.

    Raises:
        ConfigError: unknown recipe, or a file that is not a YAML mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 3e-4 as a number, as the command line does; YAML 1.1 takes it for text. A key stands once.

        No value refers to another: ten lines of such can stand for a billion values.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                found = self.peek_event()
                raise self._error(f"*{found.anchor} stands for another value; write that value out", found.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if not isinstance(name, Hashable):
                    raise self._error("a list or mapping is no name of a setting", key.start_mark)
                if name in seen:
                    raise self._error(f"the key {shown(name)} stands twice", key.start_mark)
                seen.add(name)
            return super().construct_mapping(node, deep)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, AttributeError, TypeError) as error:  # a number too long, no such date
                kind = node.tag.rpartition(":")[2]
                raise self._error(f"{shown(node.value)} cannot be read as {kind}", node.start_mark) from error

        def _error(self, problem: str, mark: Any) -> yaml.MarkedYAMLError:
            return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    number = re.compile(r"[-+]?\d+[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    path = recipe_path(name)
    text = read_text_file(path, ConfigError, "Give a text file in UTF-8.", MAX_RECIPE_BYTES)
    try:
        values = yaml.load(text, Loader)
    except RecursionError:
        problem = "it is nested too deep. Settings are plain 'setting: value' lines."
        raise ConfigError(f"recipe: {path} is not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise ConfigError(f"recipe: {path} is not valid YAML: {problem} (line {line + 1}). Correct it.") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"recipe: {path} must hold 'setting: value' lines.")
    return dict(values)


def shown(value: object) -> str:
    """A value as messages show it: of bounded length, also where Python refuses to write the number out."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of {int(math.log10(abs(value))) + 1:,} digits"
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _problems(config: FinetuneConfig) -> Any:
    """Yield a sentence for everything that can be known to be wrong from the settings alone."""
    for name in ("batch_size", "lora_r", "eval_steps", "save_steps", "save_total_limit"):
        value = getattr(config, name)
        if not _is_int(value) or value < 1:
            yield f"{name}: {shown(value)} must be a whole number of at least 1."
    if config.max_tokens != "auto" and (not _is_int(config.max_tokens) or config.max_tokens < 1):
        yield f"max_tokens: {shown(config.max_tokens)} must be a whole number of at least 1, or auto."
    if config.layout not in ("padded", "packed", "tree"):
        yield f"layout: {shown(config.layout)} must be padded, packed or tree."
    if not _is_int(config.cutoff_len) or config.cutoff_len < 8:
        yield f"cutoff_len: {shown(config.cutoff_len)} must be a whole number of tokens, at least 8."
    if not _is_int(config.seed) or not 0 <= config.seed < 2**32:
        yield f"seed: {shown(config.seed)} must be a whole number from 0 to 4294967295."
    if config.max_steps is not None and (not _is_int(config.max_steps) or config.max_steps < 1):
        yield f"max_steps: {shown(config.max_steps)} must be a whole number of at least 1, or left out."
    for name in ("learning_rate", "lora_alpha", "num_epochs"):
        value = getattr(config, name)
        if not _is_number(value) or value <= 0:
            yield f"{name}: {shown(value)} must be a number above 0."
    for name in ("weight_decay", "max_grad_norm"):
        value = getattr(config, name)
        if not _is_number(value) or value < 0:
            yield f"{name}: {shown(value)} must be a number of at least 0."
    if not _is_number(config.lora_dropout) or not 0 <= config.lora_dropout < 1:
        yield f"lora_dropout: {shown(config.lora_dropout)} must be in [0, 1)."
    for name in ("val_set_size", "warmup_steps"):
        value = getattr(config, name)
        if not _is_number(value) or value < 0 or (value > 1 and value != int(value)):
            yield f"{name}: {shown(value)} must be a count, a fraction below 1, or 0."
    for name, most in _MOST.items():
        value = getattr(config, name)
        if _is_number(value) and value > most:
            yield f"{name}: {shown(value)} must be at most {most if most == 1e30 else format(most, ',')}."
    for name in _SWITCHES:
        if not isinstance(getattr(config, name), bool):
            yield f"{name}: {shown(getattr(config, name))} must be true or false."
    if not isinstance(config.resume, bool) and config.resume != "auto":
        yield f"resume: {shown(config.resume)} must be true, false or auto."
    yield from _method_problems(config)
    if config.dtype not in ("auto", "float32", "bfloat16"):
        yield f"dtype: {shown(config.dtype)} must be auto, float32 or bfloat16."
    if config.lr_scheduler not in SCHEDULERS:
        yield f"lr_scheduler: {shown(config.lr_scheduler)} must be one of {', '.join(SCHEDULERS)}."
    for name in _PATHS:
        value = getattr(config, name)
        if name == "base_model" and value == "":
            if config.adapter is None:
                yield "base_model is missing. Name one: a hub id, a folder, or demo; or an adapter to continue."
        elif (not isinstance(value, str) or not value) and (name, value) != ("adapter", None):
            yield f"{name}: {shown(value)} must be a path or a name."
    if config.data is None or (isinstance(config.data, str | list | tuple) and not config.data):
        kinds = "a file, a folder, a hub id, 'seeds', a list of these or of dicts, or a Dataset"
        yield f"data: {shown(config.data)} must be {kinds}."
    columns = config.columns
    named = [*columns, *(key for key in columns.values() if key is not None)] if isinstance(columns, Mapping) else None
    if columns is not None and (named is None or not _are_texts(named)):
        yield f"columns: {shown(columns)} must be pairs of our field and your column, e.g. {{'output': 'answer'}}."
    targets = config.lora_target_modules
    if targets is not None and targets != "all-linear" and (not _are_texts(targets) or not targets):
        yield f"lora_target_modules: {shown(targets)} must be a list of module names, 'all-linear', or left out."
    if not isinstance(config.report_to, str) and not _are_texts(config.report_to):
        yield f"report_to: {shown(config.report_to)} must be a tracker's name or a list of names."
    if not _are_texts(config.sample_instructions):
        yield f"sample_instructions: {shown(config.sample_instructions)} must be a list of texts."


def _method_problems(config: FinetuneConfig) -> Any:
    """What `method` and how it is held and sharded contradict."""
    if config.method not in ("lora", "qlora", "full"):
        yield f"method: {config.method!r} must be lora, qlora or full."
    if config.optimizer not in OPTIMIZERS:
        yield f"optimizer: {shown(config.optimizer)} must be one of {', '.join(OPTIMIZERS)}."
    if config.method == "full" and config.adapter is not None:
        yield (
            "adapter: method=full trains every weight and has no matrices to go on with. Merge the adapter first "
            f"(alpaca-lora merge {config.adapter} OUT) and train with base_model=OUT."
        )
    if config.load_in_8bit and config.method != "lora":
        yield f"load_in_8bit: needs method=lora; {config.method!r} holds its weights otherwise. Leave one out."
    if config.fsdp and (config.method == "qlora" or config.load_in_8bit):
        yield (
            "fsdp: quantised weights cannot be sharded here. Use method=lora with fsdp, or leave fsdp out: torchrun "
            "then trains with a copy of the quantised model on every GPU."
        )
    if config.fsdp and config.optimizer != "adamw":
        yield f"optimizer: {shown(config.optimizer)} cannot work on sharded parameters; use adamw with fsdp."
    if config.cpu_offload and not config.fsdp:
        yield "cpu_offload: needs fsdp."
    if config.fsdp and config.sample_instructions:
        yield "sample_instructions: a sharded model cannot answer while it trains; generate from output_dir afterwards."


_ELSEWHERE = {  # names of alpaca-lora, stanford_alpaca and TRL whose nearest word here would be another setting
    **dict.fromkeys(("max_length", "max_seq_length", "model_max_length"), "cutoff_len"),
    **dict.fromkeys(("micro_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"), "max_tokens"),
    **dict.fromkeys(("packing", "group_by_length", "padding_free"), "layout"),
    **dict.fromkeys(("bf16", "fp16"), "dtype"),
    "resume_from_checkpoint": "resume",
}


def called_here(name: str, known: list[str]) -> str:
    """What an unknown setting is called among the `known`, as a sentence to append, or "" when none is near."""
    if _ELSEWHERE.get(name) in known:
        return f" Here it is {_ELSEWHERE[name]!r}, see docs/migrating.md."
    return did_you_mean(name, known)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_int(value)
