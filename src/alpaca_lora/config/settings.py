"""The settings of a run: one frozen dataclass, every field documented with its unit.

Names follow alpaca-lora's `finetune.py` if they mean the same. All problems are reported at once, before anything is
loaded.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from .data_names import plain_data
from .problems import PATHS, problems_of, unknown_settings
from .recipes import settings_from


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of one fine-tuning run.

    Raises:
        ConfigError: with every problem found, not only the first.
    """

    base_model: str = ""
    """Base model: a hub id, a folder, or `demo` (SmolLM2-135M-Instruct, a small LLaMA-architecture model). With
    `adapter` it may be left out, or say where that adapter's base is now."""

    adapter: str | None = None
    """Adapter to start from: its matrices go on training in a new run, with its base, template, rank and targets.
    Settings left at their defaults take the adapter's values; others must equal them. A recipe's are left out."""

    data: Any
    """Records: a JSON, JSONL, CSV or Parquet file (also `.gz`, `.zst`), a folder of them, a pattern (`data/*.json`), a
    hub id (`name@revision` pins it), `seeds` (the built-in 175), or a list of these, one after the other; from Python
    also a list of dicts or a datasets.Dataset. A mapping says more of a source: `{path: a.json, weight: 3}`, with
    `weight` (its share of an epoch, relative to the others'), or `count` (its records an epoch), `columns`, `split`,
    `config`, `revision`. For preferences also the folder of a comparison, with `votes` and `raters`."""

    val_data: Any = None
    """Validation records of their own, given as `data` is; none of `data` are set aside then."""

    output_dir: str
    """Folder the run writes to; it must be new or empty, unless `resume` is set."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """What trains. `lora`: small matrices beside frozen weights. `qlora`: the same beside weights in 4 bits (NF4 with
    double quantisation, arXiv 2305.14314). `full`: every weight."""

    objective: Literal["sft", "dpo", "orpo"] = "sft"
    """What is minimised. `sft`: the loss of each record's output. The others learn from records with a `chosen` and a
    `rejected` answer: `dpo` (arXiv 2305.18290), how far the chosen one's likelihood has risen over the rejected one's
    since training began; `orpo` (arXiv 2403.07691), the chosen one's loss and the odds between the two."""

    beta: float = 0.1
    """With `dpo`: the price of moving away from the model that training starts from; lower moves further. With `orpo`:
    the weight of the odds."""

    label_smoothing: float = 0.0
    """With `dpo`: the share of pairs that are taken to be the wrong way round, in [0, 0.5). For noisy votes."""

    columns: dict[str, str | None] | None = None
    """Names of the data's own columns, e.g. `{"instruction": "question", "output": "answer"}`; a column of theirs that
    is null (`{"notes": null}`) is left out on purpose."""

    prompt_template: str = "alpaca"
    """A packaged template (`alpaca`, `alpaca_legacy`, `alpaca_short`, `medalpaca`), a JSON file in alpaca-lora's
    format, `chat` for the base's own chat template, or a `.jinja` file with one."""

    train_on_inputs: bool = False
    """Supervise the prompt's tokens too."""

    cutoff_len: int = 512
    """Maximum number of tokens per example. Longer responses are cut (EOS stays). Records whose prompt alone reaches it
    are dropped and listed."""

    val_set_size: float = 0.05
    """Validation records: a count if 1 or more, a fraction of the data if below 1, none if 0. Not used with
    `val_data`."""

    batch_size: int = 128
    """Records per optimizer step, across all devices and micro-batches; a conversation is one record."""

    layout: Literal["padded", "packed", "tree"] = "tree"
    """How a step is laid out. `tree` computes prompt tokens that examples share once, `packed` shares nothing, `padded`
    is the usual rectangle. Changes memory and speed, never the numbers (with LoRA dropout, except for the draw of its
    masks)."""

    max_tokens: int | Literal["auto"] = "auto"
    """Maximum number of tokens per micro-batch, padding included. `auto`: 1,024 on a CPU, what should fit on a GPU (up
    to 16,384), and never less than `cutoff_len`. Changes memory and speed, never the numbers."""

    num_epochs: float = 3
    """Passes over the training records. An epoch is floor(records / batch_size) steps."""

    max_steps: int | None = None
    """Optimizer steps to stop after; overrides `num_epochs`."""

    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""

    lr_scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup_steps: float = 0.03
    """Warm-up: optimizer steps if 1 or more, a fraction of all steps if below 1."""

    weight_decay: float = 0.0
    """AdamW's weight decay."""

    max_grad_norm: float = 1.0
    """Gradient norm to clip at; 0 switches clipping off."""

    lora_r: int = 8
    """Rank of the LoRA matrices."""

    lora_alpha: float = 16
    """LoRA's scale: updates are multiplied by alpha / r (alpha / sqrt(r) with `use_rslora`)."""

    lora_dropout: float = 0.05
    """Dropout before the LoRA matrices, in [0, 1)."""

    lora_target_modules: list[str] | Literal["all-linear"] | None = None
    """Linear modules that get LoRA: a list of names such as `[q_proj,k_proj,v_proj,o_proj]`, `all-linear` for all but
    the head, or nothing for alpaca-lora's own choice, q_proj and v_proj."""

    rank_pattern: dict[str, int] | None = None
    """Ranks that are not `lora_r`, by module (`{"v_proj": 16}`) or the end of its path (`layers.0.self_attn.v_proj`).
    `lora_alpha` is the same for all: a module's scale is alpha / its own rank."""

    new_tokens: list[str] | None = None
    """Tokens to add to the vocabulary, e.g. `["<tool>", "</tool>"]`: found in all texts, learned with the matrices
    (only their rows of embedding and head), shown in answers."""

    use_rslora: bool = False
    """Rank-stabilised LoRA (arXiv 2312.03732)."""

    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353); slower."""

    neftune_noise_alpha: float | None = None
    """NEFTune's alpha (arXiv 2310.05914; 5 to 15 there): uniform noise of up to alpha / sqrt(L d) on the embeddings
    while training, L being the tokens of the example itself, whatever the layout, and d their size. None if left
    out."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: far less memory, for 50% more operations with LoRA and 33% more with
    `full`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """dtype of the frozen weights and of matrix multiplications. `auto`: bfloat16 on CUDA devices that support it,
    float16 on the others (T4, V100, RTX 20), float32 elsewhere. In float16 gradients are scaled; a step whose gradient
    overflows is left out, with a smaller scale from there on. What trains, its gradients and their sums over processes
    are always float32. A fully fine-tuned model is saved in this dtype."""

    compile: bool | Literal["auto"] = "auto"
    """Run the decoder layers through torch.compile: the same numbers within rounding, in less time once compiled.
    `auto`: on a CPU with a C++ compiler, for runs long enough to gain by it; not on a GPU, where it is not measured."""

    load_in_8bit: bool = False
    """Hold the frozen weights of `lora` in 8 bits (LLM.int8, arXiv 2208.07339)."""

    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW with its two moments in float32, in 8 bits (arXiv 2110.02861), or in 8 bits and in memory that is paged to
    the host under pressure."""

    fsdp: bool = False
    """Shard weights, gradients and optimizer state over all processes (FSDP2); start them with torchrun."""

    cpu_offload: bool = False
    """With `fsdp`: keep the shards in host memory. Slower, with far less GPU memory."""

    eval_steps: int = 200
    """Optimizer steps between evaluations. One before the first step and one at the end always happen."""

    early_stopping_patience: int | None = None
    """Evaluations in a row without a gain after which the run ends early; nothing: it takes all of its steps. Needs
    validation records."""

    early_stopping_threshold: float = 0.0
    """What `early_stopping_patience` takes for a gain: a validation loss lower by more than this (nats per token) than
    at the last gain, or else than before training."""

    keep: Literal["last", "best"] = "last"
    """Whose weights become the result: those of the last step, or those of the evaluation with the lowest validation
    loss (of equal ones the earliest, never the one before training). `best` saves a checkpoint at each evaluation that
    is the best so far."""

    save_steps: int = 200
    """Optimizer steps between checkpoints."""

    save_total_limit: int = 2
    """Number of newest checkpoints kept, beside the one with the lowest validation loss."""

    stop_after: int | None = None
    """Optimizer steps to stop after, with a checkpoint, though the run and its schedule are longer; `resume` goes on
    from there, to the same result. For a machine lent by the hour, or a sweep that gives up early."""

    seed: int = 42
    """Seeds the split, the order of records, LoRA's initial values, dropout and noise."""

    report_to: list[str] | str = "none"
    """Experiment trackers of transformers, e.g. `tensorboard`, `wandb,mlflow`, or `all` that are installed."""

    sample_instructions: list[str] = field(default_factory=list)
    """Instructions answered before and after training, to see what changed."""

    resume: bool | Literal["auto"] = False
    """Continue the run in `output_dir` from its newest valid checkpoint. `auto` also starts a run if there is none, and
    leaves a finished one alone, so that the same command can be repeated."""

    def __post_init__(self) -> None:
        for name in PATHS:
            value = getattr(self, name)
            if isinstance(value, Path) or (isinstance(value, str) and value.startswith("~")):
                object.__setattr__(self, name, os.path.expanduser(value))  # YAML and --name=~/x reach no shell
        for name, value in vars(self).items():
            if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
                object.__setattr__(self, name, value.item())  # np.int64(4) is 4
        problems = list(problems_of(self))
        if problems:
            raise ConfigError(problems)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type in ("float", "float | None") and type(value) is int:
                object.__setattr__(self, entry.name, float(value))  # 16 and 16.0 are one setting, and one run

    @classmethod
    def make(cls, recipe: str | None = None, **overrides: Any) -> FinetuneConfig:
        """A config from a recipe's values and overrides; overrides win, and so does an adapter among them.

        Args:
            recipe: A packaged recipe's name, or a YAML file.
            **overrides: Any field.

        Raises:
            ConfigError: unknown recipe, or every unknown field (the nearest known one is named) and wrong value.
        """
        values = settings_from(recipe, overrides)
        known = [entry.name for entry in fields(cls)]
        problems = unknown_settings(values, known)
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
        return {**self.__dict__, "data": plain_data(self.data), "val_data": plain_data(self.val_data)}

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the run."""
        return self.max_steps or math.ceil(self.num_epochs * steps_per_epoch)

    def warmup_count(self, total_steps: int) -> int:
        """Optimizer steps of warm-up: at step k of n, counted from 0, the rate is k / n of its peak."""
        if self.lr_scheduler == "constant":
            return 0
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        # A fraction is rounded up, as transformers does, but a step is left at the full rate.
        return min(math.ceil(self.warmup_steps * total_steps), total_steps - 1)

    @property
    def lora_shape(self) -> tuple[int, list[str] | str | None, dict[str, int] | None]:
        """Rank, targets and other ranks, as `Geometry.lora_parameters` takes them."""
        return self.lora_r, self.lora_target_modules, self.rank_pattern

    @property
    def data_name(self) -> str:
        """The data's path or hub id (several are joined by " + "), or the type of an object handed over in Python."""
        named = plain_data(self.data)
        listed = named if isinstance(named, list) else [named]
        return " + ".join(str(one["path"]) if isinstance(one, dict) else str(one) for one in listed)
