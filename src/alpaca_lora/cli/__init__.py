"""The `alpaca-lora` command: argv ends here.

Options are read off the public functions and off `FinetuneConfig`, so that each is written once; see options.py.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import warnings

from jsonargparse import ArgumentParser

from .. import adapters as adapters_room
from .. import evaluation, generation, planning, selfinstruct, serving
from ..config import FinetuneConfig
from ..data.lint import lint
from ..errors import AlpacaLoraError, RunInterrupted
from ..files import no_room
from ..generation.sampling import Sampling
from . import adapters, answers, judging, records, training
from .names import PROG
from .options import Command
from .parser import command_parser
from .terminal import drop_output, prepare, printable

_GROUPS = {
    "diff": "Tuned models as differences to their base: make, apply, verify.",
    "self-instruct": "Records written by a language model: run, refilter, report.",
}
_MODEL = "adapter, merged or base folder, hub id, or demo"
_BASE = "folder, hub id, or demo"
_NEW = "new folder to write"
_DATA = "records: a file, a hub id, or seeds"
_SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "num_beams", "seed")
# What `plan` may be told of a run, in place of a recipe's.
_PLANNED = (
    *("base_model", "method", "layout", "batch_size", "cutoff_len", "val_set_size", "num_epochs", "max_steps"),
    *("max_tokens", "lora_r", "lora_target_modules", "dtype", "load_in_8bit", "gradient_checkpointing", "optimizer"),
    *("fsdp", "cpu_offload"),
)
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
    "generate": Command(
        answers.generate,
        (generation.stream,),
        {"model": _MODEL, "instruction": "what to do"},
        {Sampling: _SAMPLING},
        hidden=frozenset({"adapter"}),
    ),
    "self-instruct run": Command(
        records.self_instruct_run, (selfinstruct.self_instruct,), {"out": "folder of the run"}
    ),
    "self-instruct refilter": Command(records.refilter, (selfinstruct.refilter,), {"out": "folder of the run"}),
    "self-instruct report": Command(records.report, (selfinstruct.self_instruct_report,), {"out": "folder of the run"}),
    "chat": Command(
        answers.chat,
        (generation.chat,),
        {"model": _MODEL},
        {Sampling: {"max_new_tokens": 512, "temperature": 0.0, "top_p": 1.0, "seed": None}},
    ),
    "serve": Command(answers.serve, (serving.serve,), {"model": _MODEL}),
    "answer": Command(
        judging.answer,
        (evaluation.answer,),
        {
            "model": f"{_MODEL.removesuffix(', or demo')}, demo, or a server's model",
            "instructions": "a file of them, or probe: packaged questions on known limits",
            "out": "new .json file",
        },
    ),
    "compare": Command(
        judging.compare,
        (judging.compare_options, evaluation.compare, evaluation.rate),
        {"a": "a model's answers, or the word report", "b": "another's, or the folder to report on"},
    ),
    "inspect": Command(
        training.inspect,
        (planning.inspect, training.inspect_options),
        {"data": _DATA},
        {FinetuneConfig: ("prompt_template", "cutoff_len", "train_on_inputs", "columns")},
    ),
    "lint": Command(records.lint, (lint,), {"data": _DATA}),
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
        arguments = _parser().parse_args(argv)
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
        sys.exit(128 + error.signal)
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


def _parser() -> ArgumentParser:
    return command_parser(_COMMANDS, _GROUPS, "finetune")
