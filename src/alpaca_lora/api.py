"""The library's functions: what notebooks call and the command line wraps.

from alpaca_lora import finetune
run = finetune(base_model="demo", data="seeds", output_dir="out", batch_size=10, max_steps=3)
run.generate("Name three fruits.")
run.merge("merged")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import FinetuneConfig
from .errors import ConfigError

if TYPE_CHECKING:
    from .adapters.export import ExportFormat
    from .adapters.extract import Extraction
    from .adapters.merge import OutputDtype
    from .data.report import DataReport
    from .inference.local import LocalModel


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
        RunInterrupted: Ctrl-C or SIGTERM; the run has a checkpoint and `resume="auto"` continues it.
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


def merge(
    adapter: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    base_model: str | None = None,
    dtype: OutputDtype = "auto",
    certify: bool = True,
) -> Path:
    """Merge an adapter into its full-precision base and write a plain transformers folder, a tensor at a time.

    Args:
        adapter: Folder of a LoRA adapter, or several, which are merged one after the other.
        out: New or empty folder.
        base_model: Where the base is now, if not where the adapter says.
        dtype: Of the merged weights: "float32", "bfloat16", or "auto", the base's own.
        certify: Compare logits with those of base + adapter. This loads the model in float32; without it, merging needs
            little memory.

    Returns:
        `out`. Its merge_certificate.json tells what was merged and what was measured.

    Raises:
        AdapterError: not an adapter, another base, a merged tensor that is not finite, or logits that differ by more
            than rounding explains (float32: 1e-4, or 1e-5 of the largest logit).
        ModelError: the base is quantised or cannot be read.
    """
    from .adapters.merge import merge_adapters

    if dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"dtype: {dtype!r} must be auto, float32 or bfloat16.")
    adapters = [adapter] if isinstance(adapter, str | Path) else list(adapter)
    merge_adapters(adapters, out, base_model=base_model, dtype=dtype, certify=certify)
    return Path(out)


def diff_make(base_model: str | Path, tuned: str | Path, out: str | Path) -> Path:
    """Write the difference between a tuned model and its base, which is of no use without that base.

    Args:
        base_model: The base: a folder, a hub id, or `demo`.
        tuned: The tuned model.
        out: New or empty folder.

    Returns:
        `out`: differences of all tensors, hashes of base, difference and result, and the tuned model's other files.
    """
    from .adapters.diff import make_diff

    return make_diff(base_model, tuned, out)


def diff_apply(diff: str | Path, base_model: str | Path, out: str | Path) -> Path:
    """Give back the tuned model, bit for bit, from a difference and its base.

    Args:
        diff: What `diff_make` wrote.
        base_model: The base.
        out: New or empty folder.

    Raises:
        AdapterError: a tensor of diff, base or result is not the one the difference was made with; it is named.
    """
    from .adapters.diff import apply_diff

    return apply_diff(diff, base_model, out)


def diff_verify(
    diff: str | Path, base_model: str | Path | None = None, result: str | Path | None = None
) -> dict[str, int]:
    """Check a difference, and a base and a result where given, against the hashes it was made with.

    Returns:
        How many tensors were checked: `diff`, `base`, `result`.

    Raises:
        AdapterError: some are not the same; they are named.
    """
    from .adapters.diff import verify_diff

    return verify_diff(diff, base_model, result)


def extract_lora(
    base_model: str | Path,
    tuned: str | Path,
    out: str | Path,
    *,
    r: int = 16,
    targets: list[str] | None = None,
) -> Extraction:
    """The LoRA adapter of rank r that comes nearest to what full fine-tuning did to a base.

    Args:
        base_model: The base.
        tuned: The fully fine-tuned model.
        out: New or empty folder for the adapter, which peft loads.
        r: Rank.
        targets: Names of linear modules; all but the head if left out.

    Returns:
        The relative error of each module and of the whole; also in the folder, as extraction.json.
    """
    from .adapters.extract import extract

    return extract(base_model, tuned, out, r=r, targets=targets)


def export(folder: str | Path, out: str | Path, *, format: ExportFormat) -> dict[str, Any]:
    """Write a merged or fully fine-tuned model for another program, with the template and stops it was trained with.

    Args:
        folder: The model; its alpaca_lora.json says template and stops.
        out: New or empty folder.
        format: "gguf-f16" or "gguf-q8_0", a file for llama.cpp and Ollama, read back and compared; "ollama", a
            Modelfile that names `folder`; "chat-template", the folder again, for servers that read chat templates.

    Returns:
        `format` and `files`; for GGUF also `logits`: the largest difference and its limit.

    Raises:
        AdapterError: an adapter, no contract, `out` is not empty, or logits beyond the limit.
        ModelError: a model or tokenizer that the format cannot hold.
        MissingDependencyError: GGUF without the gguf package.
    """
    from .adapters.export import export_model

    return export_model(folder, out, format)


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

    from .adapters.contract import Contract, write_run_file
    from .adapters.result import save_run
    from .inference.local import LocalModel
    from .models.fingerprint import fingerprint
    from .models.load import Placement, processes, resolve_base
    from .training.checkpoint import full_disk_explained
    from .training.identity import check_identity, fingerprint_of, identity_of
    from .training.model import check_abilities, trainable_model
    from .training.prepare import all_of, claim_output_dir, prepare
    from .training.run import plan_training, train
    from .training.sharding import check_can_shard, from_first_rank
    from .training.start import print_start

    check_abilities(config)
    _, placement, (output_dir, before) = all_of(
        lambda: check_can_shard(config), lambda: Placement.choose(config.dtype), lambda: claim_output_dir(config)
    )
    main = processes().is_main_process
    base = resolve_base(config.base_model)
    data = prepare(config, base)
    steps = plan_training(config, data.model_config, data.train, placement.device)

    contract = Contract.of(data.encoder, config.base_model, from_first_rank(fingerprint(base) if main else None))
    identity = identity_of(config, data.records.fingerprint, asdict(contract))
    if before:
        was = identity_of(before["config"], before["data"]["fingerprint"], before["contract"])
        check_identity(was, identity)
        if before["finished"]:
            processes().print(f"{output_dir} holds this run, finished; nothing is left to do.")
            return Run(output_dir)
    set_seed(config.seed)
    model = trainable_model(config, base, placement)
    print_start(config, model, placement, data, steps)
    local = LocalModel(model, data.encoder, contract.stop_ids, contract)
    untrained = [local.generate(instruction) for instruction in config.sample_instructions]
    described = {"config": config.to_dict(), "data": data.described, "seed": config.seed}
    if main:
        write_run_file(output_dir, contract, finished=False, **described)
    with full_disk_explained(output_dir):
        train(config, model, placement, steps, data.validation, fingerprint_of(identity))
        model.eval()
        answers = [local.generate(instruction) for instruction in config.sample_instructions]
        samples = [
            {"instruction": instruction, "before": old, "after": new}
            for instruction, old, new in zip(config.sample_instructions, untrained, answers, strict=True)
        ]
        save_run(
            output_dir, model, placement.dtype, data.encoder.tokenizer, contract, {**described, "samples": samples}
        )
    processes().wait_for_everyone()
    return Run(output_dir)
