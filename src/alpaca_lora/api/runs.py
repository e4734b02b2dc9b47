"""Training, and what it gives back."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import FinetuneConfig
from ..errors import ConfigError
from .adapters import merge
from .models import generate, load

if TYPE_CHECKING:
    from ..generation.model import LocalModel
    from ..models.load import Placement
    from ..runs.plots import Plot
    from ..training.prepare import PreparedData


@dataclass(frozen=True)
class Run:
    """A finished run; everything it knows is in its folder, so `Run(folder)` works later too."""

    output_dir: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", Path(self.output_dir))  # a text will do

    @property
    def adapter_dir(self) -> Path:
        """Folder of the adapter."""
        return self.output_dir

    @property
    def history(self) -> list[dict[str, Any]]:
        """A dict an optimizer step and evaluation, as in history.jsonl."""
        from ..runs.history import read_history

        return read_history(self.output_dir)

    @property
    def samples(self) -> list[dict[str, str]]:
        """`sample_instructions` with the answers before and after training."""
        return self._file["samples"]

    @property
    def metrics(self) -> dict[str, Any]:
        """Losses before and after, steps, tokens and seconds.

        Raises:
            ConfigError: the run has not ended yet, or the folder holds none.
        """
        if "metrics" not in self._file:
            raise ConfigError(f"{self} Metrics are of finished runs; `history` has what is there.")
        return self._file["metrics"]

    def to_pandas(self) -> Any:
        """The history as a DataFrame: a row an optimizer step and an evaluation."""
        import pandas

        return pandas.DataFrame(self.history)

    def plot(self) -> Plot:
        """A matplotlib Figure of training and validation loss."""
        from ..runs.plots import plot_history

        return plot_history(self.history, self.output_dir.name)

    def generate(self, instruction: str, input: str = "", **sampling: Any) -> str:
        """The tuned model's answer; `sampling` as for `generate`."""
        return generate(self._model, instruction, input, **sampling)

    def merge(self, out: str | Path, **options: Any) -> Path:
        """Merge the adapter into its base; `options` as for `merge`."""
        return merge(self.output_dir, out, **options)

    def _repr_html_(self) -> str:
        from ..runs.run_card import run_card

        return run_card(self.output_dir)

    def __str__(self) -> str:
        from ..runs.run_card import run_line

        return run_line(self.output_dir)

    @property
    def _file(self) -> dict[str, Any]:
        from ..runs.contract import read_run_file

        content = read_run_file(self.output_dir)
        if content is None:
            raise ConfigError(f"{self.output_dir}: holds no run (no alpaca_lora.json).")
        return content

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
    from ..training.prepare import output_dir_locked

    with output_dir_locked(Path(config.output_dir)):
        return _finetune(config)


def _finetune(config: FinetuneConfig) -> Run:
    from transformers import set_seed

    from ..generation.model import LocalModel
    from ..models.distributed import from_first_rank, processes
    from ..models.fingerprint import fingerprint
    from ..models.load import Placement, resolve_base
    from ..planning.schedule import check_schedule
    from ..runs.contract import Contract, write_run_file
    from ..runs.identity import check_identity, fingerprint_of, identity_of
    from ..training.checkpoint import full_disk_explained
    from ..training.fsdp import check_can_shard
    from ..training.model import check_abilities, trainable_model
    from ..training.parent_adapter import continue_from
    from ..training.prepare import all_of, check_output_dir, make_output_dir, prepare, report_losses
    from ..training.run import plan_training, train
    from ..training.save import result_flaw, save_run
    from ..training.start import print_start
    from ..training.trackers import check_trackers

    check_abilities(config)
    config, parent = continue_from(config) if config.adapter else (config, None)
    _, _, placement, before = all_of(
        lambda: check_can_shard(config),
        lambda: check_trackers(config.report_to),
        lambda: Placement.choose(config.dtype),
        lambda: check_output_dir(config),
    )
    output_dir = make_output_dir(config)
    main = processes().is_main_process
    base = resolve_base(config.base_model)
    data = prepare(config, base, parent.encoder(config, base) if parent else None)
    report_losses(config, data)
    steps = plan_training(
        config, data.model_config, data.train, placement.device, _auto_tokens(config, data, placement)
    )

    base_fingerprint = from_first_rank(fingerprint(base) if main else None)
    if parent:
        contract = parent.contract_for(config, data.encoder, base_fingerprint, data.model_config)
    else:
        contract = Contract.of(data.encoder, config.base_model, base_fingerprint, data.model_config)
    described: dict[str, Any] = {"config": config.to_dict(), "data": data.described, "seed": config.seed}
    described |= {"parent": parent.described} if parent else {}
    identity = identity_of(config, data.records.fingerprint, asdict(contract), described.get("parent"))
    if before:
        was = identity_of(before["config"], before["data"]["fingerprint"], before["contract"], before.get("parent"))
        check_identity(was, identity)
        if before["finished"]:
            flaw = from_first_rank(result_flaw(output_dir, before) if main else None)
            if flaw is None:
                processes().print(f"{output_dir} holds this run, finished; nothing is left to do.")
                return Run(output_dir)
            processes().print(f"{output_dir} holds this run, finished, but {flaw}. It is written again.")
    said = check_schedule(config, steps.steps_per_epoch, data.validation is not None)
    if main:
        for sentence in said:
            warnings.warn(sentence, stacklevel=3)  # the line that called finetune
    set_seed(config.seed)
    model = trainable_model(config, base, placement, partial(parent.put_on, config=config) if parent else None)
    print_start(config, model, placement, data, steps)
    local = LocalModel(model, data.encoder, contract.stop_ids, contract)
    untrained = [local.generate(instruction) for instruction in config.sample_instructions]
    with full_disk_explained(output_dir):
        if main:
            write_run_file(output_dir, contract, finished=False, **described)
        train(config, model, placement, steps, data.validation, fingerprint_of(identity))
        model.eval()
        answers = [local.generate(instruction) for instruction in config.sample_instructions]
        samples = [
            {"instruction": instruction, "before": old, "after": new}
            for instruction, old, new in zip(config.sample_instructions, untrained, answers, strict=True)
        ]
        save_run(output_dir, base, model, placement.dtype, data.encoder, contract, {**described, "samples": samples})
    processes().wait_for_everyone()
    return Run(output_dir)


def _auto_tokens(config: FinetuneConfig, data: PreparedData, placement: Placement) -> int:
    """Tokens of a micro-batch that use the device well: on a CPU a fixed number, on a GPU what should fit."""
    from ..models.distributed import from_first_rank, processes
    from ..models.geometry import Dtype, Geometry
    from ..planning.budget import auto_tokens
    from ..planning.memory import MemoryModel
    from ..training.run import CPU_TOKENS

    if placement.device.type != "cuda" or config.max_tokens != "auto":
        return CPU_TOKENS
    import torch

    dtype: Dtype = "bfloat16" if placement.dtype == torch.bfloat16 else "float32"
    formula = MemoryModel(config, Geometry.of(data.model_config), dtype, processes().num_processes)
    free_bytes, _ = torch.cuda.mem_get_info(placement.device)
    return from_first_rank(auto_tokens(formula, free_bytes))  # ranks may differ in what is free, not in their packs
