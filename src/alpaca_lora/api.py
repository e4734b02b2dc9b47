"""The library's functions: what notebooks call and the command line wraps.

from alpaca_lora import finetune
run = finetune(base_model="demo", data="seeds", output_dir="out", batch_size=10, max_steps=3)
run.generate("Name three fruits.")
run.merge("merged")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import FinetuneConfig
from .errors import AdapterError, ConfigError

if TYPE_CHECKING:
    from .data.report import DataReport
    from .inference.local import LocalModel
    from .training.prepare import PreparedData


@dataclass(frozen=True)
class Run:
    """A finished run; everything it knows is in its folder, so `Run(folder)` works later too."""

    output_dir: Path

    @property
    def adapter_dir(self) -> Path:
        """Folder of the adapter."""
        return self.output_dir

    @property
    def history(self) -> list[dict[str, Any]]:
        """A dict an optimizer step and evaluation, as in history.jsonl."""
        from .training.history import read_history

        return read_history(self.output_dir)

    @property
    def samples(self) -> list[dict[str, str]]:
        """`sample_instructions` with the answers before and after training."""
        return self._file["samples"]

    @property
    def metrics(self) -> dict[str, Any]:
        """Losses before and after, steps, tokens and seconds."""
        return self._file["metrics"]

    def plot(self) -> Any:
        """A matplotlib Figure of training and validation loss."""
        from .training.history import plot_history

        return plot_history(self.history, self.output_dir.name)

    def generate(self, instruction: str, input: str = "", **sampling: Any) -> str:
        """The tuned model's answer; `sampling` as for `generate`."""
        return generate(self._model, instruction, input, **sampling)

    def merge(self, out: str | Path) -> Path:
        """Merge the adapter into its base; see `merge`."""
        return merge(self.output_dir, out)

    @property
    def _file(self) -> dict[str, Any]:
        return json.loads((self.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))

    @cached_property
    def _model(self) -> LocalModel:
        return load(self.output_dir)


def finetune(config: FinetuneConfig | None = None, *, recipe: str | None = None, **overrides: Any) -> Run:
    """Fine-tune a base model with LoRA.

    Args:
        config: A whole config; or, instead,
        recipe: a packaged recipe's name or a YAML file, and
        **overrides: any field of `FinetuneConfig`; they win over the recipe.

    Returns:
        The run; its folder holds the adapter, history.jsonl, loss.png, a model card and alpaca_lora.json.

    Raises:
        ConfigError: wrong settings, all of them at once.
        DataError: records that cannot be used.
        ModelError: a base that cannot be used.
    """
    if config is None:
        config = FinetuneConfig.make(recipe, **overrides)
    elif recipe or overrides:
        raise ConfigError("finetune: give either a config, or a recipe and settings, not both.")
    return _finetune(config)


def load(path: str | Path, *, base_model: str | None = None, prompt_template: str | None = None) -> LocalModel:
    """Load an adapter folder, a merged folder or a base for generation; see `LocalModel.load`."""
    from .inference.local import LocalModel

    return LocalModel.load(path, base_model=base_model, prompt_template=prompt_template)


def generate(model: str | Path | LocalModel, instruction: str, input: str = "", **sampling: Any) -> str:
    """The answer to one instruction.

    Args:
        model: What `load` returned, or anything it takes.
        instruction: What to do.
        input: Context, may be empty.
        **sampling: Fields of `Sampling`: max_new_tokens, temperature, top_p, top_k, repetition_penalty, num_beams,
            seed.
    """
    from .inference.local import Sampling

    loaded = load(model) if isinstance(model, str | Path) else model
    return loaded.generate(instruction, input, Sampling(**sampling))


def stream(model: str | Path | LocalModel, instruction: str, input: str = "", **sampling: Any) -> Iterator[str]:
    """As `generate`, in pieces as they are made."""
    from .inference.local import Sampling

    loaded = load(model) if isinstance(model, str | Path) else model
    return loaded.stream(instruction, input, Sampling(**sampling))


def merge(adapter: str | Path, out: str | Path, *, base_model: str | None = None) -> Path:
    """Merge an adapter into its full-precision base and write a plain transformers folder.

    Args:
        adapter: Folder of a LoRA adapter.
        out: New or empty folder.
        base_model: Where the base is now, if not where the adapter says.

    Returns:
        `out`. Its alpaca_lora.json tells the largest logit difference that was measured.

    Raises:
        AdapterError: not an adapter, another base, or logits that differ by more than float32's rounding explains
            (1e-4, or 1e-5 of the largest logit).
    """
    import torch

    from .adapters.merge import merge_into_folder
    from .adapters.store import is_adapter
    from .inference.local import LocalModel

    if not is_adapter(adapter):
        raise AdapterError(
            f"{adapter}: is not an adapter folder (no adapter_config.json). Give the folder finetune wrote."
        )
    loaded = LocalModel.load(adapter, base_model=base_model, dtype="float32")
    loaded.model.to(torch.device("cpu"))
    merge_into_folder(loaded.model, loaded.encoder, loaded.contract, Path(out))
    return Path(out)


def inspect(data: Any, base_model: str, **settings: Any) -> DataReport:
    """What training would see, before any training: counts, lengths, truncation, supervised tokens, examples.

    Args:
        data: Records, as for `finetune`.
        base_model: Its tokenizer and config are used; no weights are loaded.
        **settings: Other fields of `FinetuneConfig`: prompt_template, cutoff_len, columns, batch_size, ...

    Raises:
        ConfigError, DataError, ModelError: as `finetune` would.
    """
    from .data.report import DataReport
    from .models.load import resolve_base
    from .training.prepare import prepare

    config = FinetuneConfig.make(data=data, base_model=base_model, output_dir=".", **{"val_set_size": 0, **settings})
    prepared = prepare(config, resolve_base(base_model))
    return DataReport(prepared.records, prepared.train, prepared.encoder)


def _finetune(config: FinetuneConfig) -> Run:
    from transformers import set_seed

    from .adapters.contract import Contract, read_contract, write_run_file
    from .adapters.store import save_adapter
    from .inference.local import LocalModel
    from .models.load import Placement, fingerprint, load_model, processes, resolve_base
    from .models.lora import add_lora
    from .training.prepare import claim_output_dir, prepare
    from .training.run import plan_training, train

    placement = Placement.choose(config.dtype)
    output_dir = claim_output_dir(config)
    base = resolve_base(config.base_model)
    data = prepare(config, base)
    steps = plan_training(config, data.model_config, data.train, placement.device)

    model = load_model(base, placement)
    contract = Contract.of(data.encoder, config.base_model, fingerprint(model))
    if config.resume and read_contract(output_dir) != contract:
        raise ConfigError(
            f"resume: the base model, its tokenizer or the template of {output_dir} is another now. "
            "Restore it, or start a new run in a new output_dir."
        )
    set_seed(config.seed)
    model = add_lora(
        model,
        r=config.lora_r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=config.lora_target_modules,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )
    _print_start(config, model, data)
    local = LocalModel(model, data.encoder, contract.stop_ids, contract)
    before = [local.generate(instruction) for instruction in config.sample_instructions]
    described = {"config": config.to_dict(), "data": data.described, "seed": config.seed}
    main = processes().is_main_process
    if main:
        write_run_file(output_dir, contract, finished=False, **described)
    train(config, model, steps, data.validation)
    model.eval()
    after = [local.generate(instruction) for instruction in config.sample_instructions]
    described["samples"] = [
        {"instruction": instruction, "before": old, "after": new}
        for instruction, old, new in zip(config.sample_instructions, before, after, strict=True)
    ]
    if main:
        save_adapter(model, output_dir)
        data.encoder.tokenizer.save_pretrained(output_dir)
        _write_results(output_dir, contract, described)
    processes().wait_for_everyone()
    return Run(output_dir)


def _print_start(config: FinetuneConfig, model: Any, data: PreparedData) -> None:
    from .models.load import processes

    trainable, total = model.get_nb_trainable_parameters()
    state = processes()
    state.print(
        f"{config.base_model} on {state.num_processes} x {state.device.type}, "
        f"{str(model.dtype).removeprefix('torch.')}; {trainable:,} of {total:,} parameters train.\n"
        f"{len(data.train):,} records ({int(data.train.supervised.sum()):,} supervised tokens), "
        f"{len(data.validation) if data.validation else 0:,} to validate, {config.batch_size} a step."
    )


def _write_results(output_dir: Path, contract: Any, described: dict[str, Any]) -> None:
    """loss.png, the model card and alpaca_lora.json of a finished run."""
    from .adapters.card import model_card
    from .adapters.contract import write_run_file
    from .training.history import plot_history, read_history

    history = read_history(output_dir)
    steps = [line for line in history if "loss" in line]
    evaluations = [line["eval_loss"] for line in history if "eval_loss" in line]
    metrics = {
        "steps": steps[-1]["step"],
        "loss": steps[-1]["loss"],
        "eval_loss_before": evaluations[0] if evaluations else None,
        "eval_loss_after": evaluations[-1] if evaluations else None,
        "supervised_tokens": sum(line["supervised_tokens"] for line in steps),
        "computed_tokens": sum(line["computed_tokens"] for line in steps),
        "train_seconds": round(sum(line["seconds"] for line in steps), 3),
    }
    plot_history(history, f"{described['config']['base_model']} on {described['data']['source']}").savefig(
        output_dir / "loss.png", dpi=120
    )
    content = {**described, "metrics": metrics}
    (output_dir / "README.md").write_text(model_card(content), encoding="utf-8")
    write_run_file(output_dir, contract, finished=True, **content)
