"""A whole run, from top to bottom: settings, records, steps, identity, model, training, result.

The identity tells whether a folder holds this very run, to be continued. Each part is a call that can be read on its
own. No weight is loaded before settings and records are known to be usable, and a run that is refused leaves no folder
behind.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..config import FinetuneConfig
from ..data.step_dataset import PackDataset, StepDataset
from ..data.tokens import Examples
from ..errors import all_of
from ..generation.model import LocalModel
from ..models.attention import IMPLEMENTATION
from ..models.distributed import from_first_rank, processes
from ..models.fingerprint import fingerprint
from ..models.hub import commit_of
from ..models.load import Placement, checkpoint_activations, load_tokenizer, resolve_base
from ..models.new_tokens import pieces_of
from ..planning.preparation import prepare, report_dropped
from ..planning.schedule import check_schedule
from ..planning.steps import plan_steps
from ..runs.checkpoints import step_of
from ..runs.contract import Contract
from ..runs.eval_records import EvalRecords, append_losses
from ..runs.identity import check_identity, fingerprint_of
from ..runs.run_file import RunFile
from ..runs.whole_model import check_weights
from .arguments import show_only, training_arguments
from .best_model import ActOnEvaluation, is_over, load_best
from .callbacks import CheckStart, EvaluateLast, HistoryCallback, NothingLeft, ProgressBar
from .checkpoint import Checkpoints, full_disk_explained
from .compiled_layers import CompiledLayers, compiles
from .fast_path import fast_path
from .fsdp import check_can_shard
from .interrupt import StopOnSignal
from .model import check_abilities, trainable_model
from .neftune import EmbeddingNoise
from .output_dir import check_output_dir, make_output_dir
from .parent_adapter import continue_from
from .preference_trainer import trainer_for
from .regressions import against_base
from .resume import at_its_commit, begin_files, is_whole, starting_point
from .run import Run
from .save import save_run
from .start import print_start
from .tracker_runs import TrackerRuns, tracker_id_of
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
        lambda: Placement.choose(config.dtype, float16=not config.fsdp),
        lambda: check_output_dir(config),
    )
    output_dir = make_output_dir(config)
    is_main = processes().is_main_process

    # Records: read, split, encoded (as the adapter's were, if the run starts from one), and laid out in steps.
    base = resolve_base(at_its_commit(config.base_model, previous))
    data = prepare(config, base, parent.encoder(config, base) if parent else None)
    report_dropped(config, data)
    steps = plan_steps(config, data.model_config, data.train, placement, data.mixture)

    # Identity: a run is continued only by itself. The contract is what inference needs to know of it.
    if is_main:
        check_weights(base)
    base_fingerprint = from_first_rank(fingerprint(base) if is_main else None)  # broadcast
    if parent:
        contract = parent.contract_for(config, data.encoder, base, base_fingerprint, data.model_config)
    else:
        contract = Contract.of(data.encoder, config.base_model, base_fingerprint, data.model_config, commit_of(base))
    run_file = RunFile(
        contract,
        finished=False,
        config=config.to_dict(),
        data=data.described,
        seed=config.seed,
        parent=parent.described if parent else None,
        tracker_id=tracker_id_of(config, previous.tracker_id if previous else ""),
    )
    if previous:
        check_identity(previous.identity, run_file.identity)
        if is_whole(output_dir, previous):
            return Run(output_dir)
    for sentence in check_schedule(config, steps.steps_per_epoch, data.validation is not None) if is_main else []:
        warnings.warn(sentence, stacklevel=3)  # the line that called finetune

    # Model: the base with what trains marked, and its answers before training.
    set_seed(config.seed)
    continued = partial(parent.put_on, config=config) if parent else None
    new_tokens = pieces_of(load_tokenizer(base), data.encoder.tokenizer, config.new_tokens or [])
    model = trainable_model(config, base, placement, continued, new_tokens)
    print_start(config, model, placement, data, steps)
    answering = LocalModel(model, data.encoder, contract.stop_ids, contract)  # the same model, before and after
    untrained = [answering.generate(instruction) for instruction in config.sample_instructions]

    # Training, and what it gives.
    with full_disk_explained(output_dir):
        if is_main:
            run_file.write(output_dir)
        run = fingerprint_of(run_file.identity)
        train(config, model, placement, steps, data.validation, data.eval_records, run, run_file.tracker_id)
        model.eval()
        answers = [answering.generate(instruction) for instruction in config.sample_instructions]
        samples = [
            {"instruction": instruction, "before": old, "after": new}
            for instruction, old, new in zip(config.sample_instructions, untrained, answers, strict=True)
        ]
        run_file = replace(run_file, samples=samples, regressions=against_base(config, model, data, steps.planner))
        planned = config.total_steps(steps.steps_per_epoch)
        save_run(output_dir, base, model, placement.dtype, data.encoder, run_file, planned)
    processes().wait_for_everyone()
    return Run(output_dir)


def train(
    config: FinetuneConfig,
    model: Any,
    placement: Placement,
    steps: StepDataset,
    validation: Examples | None,
    eval_records: EvalRecords | None = None,
    run: str = "",
    tracker_id: str = "",
) -> AlpacaTrainer:
    """Train `model` in place; the exact step itself is in `trainer.py`.

    Args:
        config: The run's settings.
        model: A causal language model with its trainable tensors marked.
        placement: Its device, and the dtype of its matrix multiplications.
        steps: What `plan_steps` gave.
        validation: Validation examples, or None.
        eval_records: Their records; None keeps no losses by record.
        run: The run's fingerprint; its checkpoints carry it.
        tracker_id: What trackers tell the run by.

    Returns:
        The trainer after its last step; the model has the weights to keep.

    Raises:
        RunInterrupted: SIGTERM or SIGINT came, or the step of `stop_after`.
        TrainingError: a loss or gradient is no number, the disk is full, or memory is short for a single example.
    """
    if steps.planner.layout != "padded":  # attention that reads a pack's mask; see models/attention.py
        model.set_attn_implementation(IMPLEMENTATION)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    output_dir = Path(config.output_dir)
    checkpoint = starting_point(config, run) if config.resume else None
    if processes().is_main_process:
        begin_files(config, checkpoint, eval_records)
    stop = StopOnSignal(config.stop_after)
    on = compiles(config, placement.device, sum(tensor.numel() for tensor in model.parameters()), steps)
    compiled = CompiledLayers(on, config.compile is True, model, steps.planner)
    trackers = TrackerRuns(config, tracker_id, step_of(checkpoint) if checkpoint else 0)
    trainer = trainer_for(config, stop.told)(
        model=model,
        args=training_arguments(config, steps, placement.dtype, validation is not None, checkpoint is None, tracker_id),
        train_dataset=steps,
        eval_dataset=PackDataset(replace(steps.planner, examples=validation)) if validation is not None else None,
        keep_losses=partial(append_losses, output_dir) if eval_records else None,
        noise=EmbeddingNoise.wanted(config, model, steps.planner),
        callbacks=[
            CheckStart(config),
            HistoryCallback(config),
            ActOnEvaluation(config),
            Checkpoints(output_dir, run, config.save_total_limit),  # hashes the history's copy, so comes after it
            EvaluateLast(),
            compiled,
            stop,
            *trackers.callbacks(),
        ],
    )
    show_only(ProgressBar, trainer)
    with suppress(NothingLeft), stop, fast_path(config, model, placement), compiled, trackers:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not is_over(config):
        stop.raise_if_stopped(trainer.state)
    if config.keep == "best":
        load_best(trainer, config, run)
    return trainer
