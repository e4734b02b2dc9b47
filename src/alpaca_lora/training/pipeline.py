"""A whole run, from top to bottom: settings, records, steps, identity, model, training, result.

The identity tells whether a folder holds this very run, to be continued. Each part is a call that can be read on its
own. No weight is loaded before settings and records are known to be usable, and a run that is refused leaves no folder
behind.
"""

from __future__ import annotations

import signal
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..config import FinetuneConfig
from ..data.steps import PackDataset, StepDataset
from ..data.tokens import Examples
from ..errors import RunInterrupted, all_of
from ..generation.model import LocalModel
from ..models.attention import IMPLEMENTATION
from ..models.distributed import from_first_rank, processes
from ..models.fingerprint import fingerprint
from ..models.load import Placement, checkpoint_activations, resolve_base
from ..planning.preparation import prepare, report_dropped
from ..planning.schedule import check_schedule
from ..planning.steps import plan_steps
from ..runs.contract import Contract, write_run_file
from ..runs.history import begin_history
from ..runs.identity import check_identity, fingerprint_of, identity_of
from .arguments import default_displays, training_arguments
from .callbacks import CheckStart, EvaluateLast, HistoryCallback, NothingLeft, ProgressBar
from .checkpoint import Checkpoints, full_disk_explained
from .fsdp import check_can_shard
from .interrupt import StopOnSignal
from .model import check_abilities, trainable_model
from .output_dir import check_output_dir, make_output_dir
from .parent_adapter import continue_from
from .resume import starting_point
from .run import Run
from .save import result_flaw, save_run
from .start import print_start
from .trackers import check_trackers
from .trainer import AlpacaTrainer


def run_pipeline(config: FinetuneConfig) -> Run:
    """One call of `finetune`, from its settings to its result; arguments, result and errors as there."""
    # Settings: what this machine can do, and the folder.
    check_abilities(config)
    config, parent = continue_from(config) if config.adapter else (config, None)
    _, _, placement, previous = all_of(  # the problems of all of them in one message
        lambda: check_can_shard(config),
        lambda: check_trackers(config.report_to),
        lambda: Placement.choose(config.dtype),
        lambda: check_output_dir(config),
    )
    output_dir = make_output_dir(config)
    is_main = processes().is_main_process

    # Records: read, split, encoded (as the adapter's were, if the run starts from one), and laid out in steps.
    base = resolve_base(config.base_model)
    data = prepare(config, base, parent.encoder(config, base) if parent else None)
    report_dropped(config, data)
    steps = plan_steps(config, data.model_config, data.train, placement)

    # Identity: a run is continued only by itself. The contract is what inference needs to know of it.
    base_fingerprint = from_first_rank(fingerprint(base) if is_main else None)  # broadcast
    if parent:
        contract = parent.contract_for(config, data.encoder, base_fingerprint, data.model_config)
    else:
        contract = Contract.of(data.encoder, config.base_model, base_fingerprint, data.model_config)
    described: dict[str, Any] = {"config": config.to_dict(), "data": data.described, "seed": config.seed}
    described |= {"parent": parent.described} if parent else {}
    identity = identity_of(config, data.records.fingerprint, asdict(contract), described.get("parent"))
    if previous:
        begun = identity_of(
            previous["config"], previous["data"]["fingerprint"], previous["contract"], previous.get("parent")
        )
        check_identity(begun, identity)
        if previous["finished"]:
            flaw = from_first_rank(result_flaw(output_dir, previous) if is_main else None)
            if flaw is None:
                processes().print(f"{output_dir} holds this run, finished; nothing is left to do.")
                return Run(output_dir)
            processes().print(f"{output_dir} holds this run, finished, but {flaw}. It is written again.")
    for sentence in check_schedule(config, steps.steps_per_epoch, data.validation is not None):
        if is_main:
            warnings.warn(sentence, stacklevel=3)  # the line that called finetune

    # Model: the base with what trains marked, and its answers before training.
    set_seed(config.seed)
    model = trainable_model(config, base, placement, partial(parent.put_on, config=config) if parent else None)
    print_start(config, model, placement, data, steps)
    answering = LocalModel(model, data.encoder, contract.stop_ids, contract)  # the same model, before and after
    untrained = [answering.generate(instruction) for instruction in config.sample_instructions]

    # Training, and what it gives.
    with full_disk_explained(output_dir):
        if is_main:
            write_run_file(output_dir, contract, finished=False, **described)
        train(config, model, placement, steps, data.validation, fingerprint_of(identity))
        model.eval()
        answers = [answering.generate(instruction) for instruction in config.sample_instructions]
        samples = [
            {"instruction": instruction, "before": old, "after": new}
            for instruction, old, new in zip(config.sample_instructions, untrained, answers, strict=True)
        ]
        save_run(output_dir, base, model, placement.dtype, data.encoder, contract, {**described, "samples": samples})
    processes().wait_for_everyone()
    return Run(output_dir)


def train(
    config: FinetuneConfig,
    model: Any,
    placement: Placement,
    steps: StepDataset,
    validation: Examples | None,
    run: str = "",
) -> AlpacaTrainer:
    """Train `model` in place; the exact step itself is in `trainer.py`.

    Args:
        config: The run's settings.
        model: A causal language model with its trainable tensors marked.
        placement: Its device, and the dtype of its matrix multiplications.
        steps: What `plan_steps` gave.
        validation: Validation examples, or None.
        run: The run's fingerprint; its checkpoints carry it.

    Returns:
        The trainer after its last step.

    Raises:
        RunInterrupted: SIGTERM or SIGINT came.
        TrainingError: a loss or gradient is no number, the disk is full, or memory is short for a single example.
    """
    if steps.planner.layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    output_dir = Path(config.output_dir)
    checkpoint = starting_point(config, run) if config.resume else None
    if processes().is_main_process:
        begin_history(output_dir, checkpoint)
    stop = StopOnSignal()
    trainer = AlpacaTrainer(
        model=model,
        args=training_arguments(config, steps, placement.dtype, validation is not None, checkpoint is None),
        train_dataset=steps,
        eval_dataset=PackDataset(replace(steps.planner, examples=validation)) if validation is not None else None,
        callbacks=[
            CheckStart(config.fsdp),
            HistoryCallback(output_dir),
            Checkpoints(output_dir, run, config.save_total_limit),  # hashes the history's copy, so comes after it
            EvaluateLast(),
            stop,
        ],
    )
    for callback in default_displays():
        trainer.remove_callback(callback)
    trainer.add_callback(ProgressBar)
    with suppress(NothingLeft), stop:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.received and trainer.state.global_step < trainer.state.max_steps:
        raise RunInterrupted(
            f"stopped by {signal.Signals(stop.received).name} after step {trainer.state.global_step} of "
            f"{trainer.state.max_steps}, with a checkpoint; the same with --resume auto (resume='auto') goes on.",
            stop.received,
        )
    return trainer
