"""The `alpaca-lora` command: argv ends here.

Options are read off the public functions and off `FinetuneConfig`, so that each is written once; see options.py.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from contextlib import redirect_stderr
from dataclasses import fields
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser

from .. import adapters as adapters_room
from .. import generation, planning, selfinstruct, serving
from ..against_base import regressions
from ..config import FinetuneConfig
from ..data.lint import lint
from ..errors import AlpacaLoraError, ConfigError, RunInterrupted
from ..evaluation.answers import answer
from ..evaluation.benchmarks import benchmark
from ..evaluation.compare_models import compare, compare_report
from ..evaluation.people.rating_page import rate
from ..experiments.compare_runs import compare_runs
from ..experiments.sweep import sweep
from ..files import no_room
from ..generation.sampling import Sampling
from . import adapters, answering, experiments, judging, making_data, training
from .names import PROG
from .options import Command
from .parser import command_parser
from .streams import drop_output, prepare, printable

_GROUPS = {
    "diff": "Tuned models as differences to their base: make, apply, verify.",
    "self-instruct": "Records written by a language model: run, refilter, report.",
}
_MODEL = "adapter, merged model or base: folder, hub name, or demo"
_BASE = "folder, hub id, or demo"
_NEW = "new folder to write"
_DATA = "records: a file, a hub id, or seeds"
_SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "num_beams", "seed")
# Settings of a run that `plan` takes in place of a recipe's.
_PLANNED = (
    *(
        "base_model",
        "method",
        "objective",
        "layout",
        "batch_size",
        "cutoff_len",
        "val_set_size",
        "num_epochs",
        "max_steps",
    ),
    *(
        "max_tokens",
        "lora_r",
        "rank_pattern",
        "lora_target_modules",
        "dtype",
        "load_in_8bit",
        "gradient_checkpointing",
        "optimizer",
    ),
    *("fsdp", "cpu_offload"),
)
# Settings of a run that a sweep takes, each with one value or several.
_SWEPT = [entry.name for entry in fields(FinetuneConfig) if entry.name not in ("output_dir", "resume", "eval_steps")]
_COMMANDS: dict[str, Command] = {
    "finetune": Command(training.tune, (training.tune,)),
    "merge": Command(adapters.merge, (adapters_room.merge,), {"adapter": "folder of a LoRA adapter", "out": _NEW}),
    "diff make": Command(
        adapters.diff_make,
        (adapters_room.diff_make,),
        {"base_model": _BASE, "tuned": "the tuned model", "out": _NEW},
    ),
    "diff apply": Command(
        adapters.diff_apply,
        (adapters_room.diff_apply,),
        {"diff": "what diff make wrote", "base_model": _BASE, "out": _NEW},
    ),
    "diff verify": Command(
        adapters.diff_verify,
        (adapters_room.diff_verify,),
        {"diff": "what diff make wrote", "base_model": "the base", "result": "what diff apply wrote"},
    ),
    "extract": Command(
        adapters.extract,
        (adapters_room.extract_lora,),
        {"base_model": _BASE, "tuned": "a fully fine-tuned model", "out": _NEW},
    ),
    "export": Command(
        adapters.export, (adapters_room.export,), {"folder": "a merged or fully fine-tuned model", "out": _NEW}
    ),
    "push": Command(
        adapters.push,
        (adapters_room.push,),
        {"folder": "a finished run, or what merge, extract or export wrote", "repo": "its name there, OWNER/NAME"},
    ),
    "generate": Command(
        answering.generate,
        (generation.stream,),
        {"model": _MODEL, "instruction": "what to do"},
        {Sampling: _SAMPLING},
        hidden=frozenset({"adapter"}),
    ),
    "self-instruct run": Command(
        making_data.self_instruct_run, (selfinstruct.self_instruct,), {"out": "folder of the run"}
    ),
    "self-instruct refilter": Command(making_data.refilter, (selfinstruct.refilter,), {"out": "folder of the run"}),
    "self-instruct report": Command(
        making_data.report, (selfinstruct.self_instruct_report,), {"out": "folder of the run"}
    ),
    "chat": Command(
        answering.chat,
        (generation.chat,),
        {"model": _MODEL},
        {Sampling: {"max_new_tokens": 512, "temperature": 0.0, "top_p": 1.0, "seed": None}},
    ),
    "serve": Command(answering.serve, (serving.serve,), {"model": _MODEL}),
    "answer": Command(
        judging.answer,
        (answer,),
        {
            "model": f"{_MODEL.removesuffix(', or demo')}, demo, or a server's model",
            "instructions": "a file of them, or probe: packaged questions on known limits",
            "out": "new .json file",
        },
    ),
    "compare": Command(
        judging.compare,
        (judging.compare_options, compare, rate),
        {"a": "a file of a model's answers", "b": "a file of another model's answers"},
    ),
    "compare-report": Command(judging.report, (compare_report,), {"folder": "folder of a comparison"}),
    "benchmark": Command(judging.benchmark, (benchmark,), {"model": _MODEL}),
    "compare-runs": Command(
        experiments.compare_runs, (compare_runs,), {"runs": "folders of finished runs, two or more"}
    ),
    "sweep": Command(
        partial(experiments.sweep, lambda name, text: _setting(name, text)),
        (sweep,),
        {},
        {FinetuneConfig: _SWEPT},
        hidden=frozenset({"grid", "write"}),
        as_texts=True,
    ),
    "inspect": Command(
        training.inspect,
        (planning.inspect, training.inspect_options),
        {"data": _DATA},
        {FinetuneConfig: ("objective", "prompt_template", "cutoff_len", "train_on_inputs", "new_tokens", "columns")},
    ),
    "regressions": Command(
        partial(training.regressions, lambda text: _setting("data", text)),
        (regressions,),
        {"model": "adapter, merged or fully fine-tuned folder"},
    ),
    "lint": Command(making_data.lint, (lint,), {"data": _DATA}),
    "plan": Command(training.plan, (planning.plan,), {}, {FinetuneConfig: dict.fromkeys(_PLANNED)}),
    "recipes": Command(
        training.recipes, (training.recipes,), {"name": "the recipe to print; all are listed if left out"}
    ),
}


def main(argv: list[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one message and exit code 1 (2 for wrong options)."""
    if argv is None:
        prepare()
    warnings.formatwarning = lambda message, *place, **more: f"{PROG}: {printable(str(message))}\n"
    # On CPUs bitsandbytes misses a faster kernel for a product this library does not use, and says so at each start.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        arguments = _parser().parse_args(sys.argv[1:] if argv is None else argv)
        command, given = arguments.command, arguments[arguments.command]
        if command in _GROUPS:
            command, given = f"{command} {given.command}", given[given.command]
        values = given.as_dict()
        if command == "finetune":
            values.pop("config")
            training.tune(FinetuneConfig(**values))
        else:
            _COMMANDS[command].run(**values)
        sys.stdout.flush()
        if lost := getattr(sys.stdout, "lost", None):
            said = f"{PROG}: what was printed is lost: {lost.strerror}. Give standard output another place."
            if command != "finetune":
                sys.exit(said)
            print(said, file=sys.stderr)  # the run itself is there
    except BrokenPipeError:  # the reader of what is printed has gone: `alpaca-lora recipes | head -3`
        drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except RunInterrupted as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"{PROG}: {error}", file=sys.stderr)
        sys.exit(128 + error.signal if error.signal else 0)  # 0: as it was told to
    except AlpacaLoraError as error:
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        sys.exit(f"{PROG}{rank}: {printable(str(error))}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            sys.exit(f"{PROG}: {printable(str(error.filename))[:60]}...: the name is too long for a path. Check it.")
        if not (reason := no_room(error)):
            raise
        kept = "Make room and give the same command again; what was finished before is kept."
        sys.exit(f"{PROG}: cannot be written: {printable(reason)}. {kept}")
    except KeyboardInterrupt:
        print(f"\n{PROG}: interrupted", file=sys.stderr)
        sys.exit(130)


def _setting(name: str, text: str) -> Any:
    """A setting as `finetune` reads it, for another command."""
    needed = [f"--{other}=-" for other in ("data", "output_dir") if other != name]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return getattr(_parser().parse_args(["finetune", f"--{name}={text}", *needed]).finetune, name)
    except SystemExit as error:
        raise ConfigError(said.getvalue().rpartition("error: ")[2].strip()) from error


def _parser() -> ArgumentParser:
    return command_parser(_COMMANDS, _GROUPS, "finetune")
