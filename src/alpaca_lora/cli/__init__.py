"""The `alpaca-lora` command: argv ends here, one function a command.

Options of `finetune` are the fields of `FinetuneConfig`, built by jsonargparse from the dataclass.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable

from jsonargparse import ArgumentParser

from ..config import FinetuneConfig
from ..errors import AlpacaLoraError, RunInterrupted
from ..files import no_room
from .adapters import diff_apply, diff_make, diff_verify, export, extract, merge
from .answers import chat, generate, serve
from .judging import answer, compare
from .names import PROG
from .parser import command_parser
from .plans import plan
from .records import lint, self_instruct_refilter, self_instruct_report, self_instruct_run
from .terminal import drop_output, prepare, printable
from .training import inspect, recipes, tune

_GROUPS = {
    "diff": "Tuned models as differences to their base: make, apply, verify.",
    "self-instruct": "Records written by a language model: run, refilter, report.",
}
# Each command's function, and what is given without an option's name.
_COMMANDS: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "finetune": (tune, {}),
    "merge": (merge, {"adapter": "folder of a LoRA adapter", "out": "new folder to write"}),
    "diff make": (
        diff_make,
        {"base_model": "folder, hub id, or demo", "tuned": "the tuned model", "out": "new folder to write"},
    ),
    "diff apply": (
        diff_apply,
        {"diff": "what diff make wrote", "base_model": "folder, hub id, or demo", "out": "new folder to write"},
    ),
    "diff verify": (
        diff_verify,
        {"diff": "what diff make wrote", "base_model": "the base", "result": "what diff apply wrote"},
    ),
    "extract": (
        extract,
        {"base_model": "folder, hub id, or demo", "tuned": "a fully fine-tuned model", "out": "new folder to write"},
    ),
    "export": (export, {"folder": "a merged or fully fine-tuned model", "out": "new folder to write"}),
    "generate": (
        generate,
        {"model": "adapter, merged or base folder, hub id, or demo", "instruction": "what to do"},
    ),
    "self-instruct run": (self_instruct_run, {"out": "folder of the run"}),
    "self-instruct refilter": (self_instruct_refilter, {"out": "folder of the run"}),
    "self-instruct report": (self_instruct_report, {"out": "folder of the run"}),
    "chat": (chat, {"model": "adapter, merged or base folder, hub id, or demo"}),
    "serve": (serve, {"model": "adapter, merged or base folder, hub id, or demo"}),
    "answer": (
        answer,
        {
            "model": "adapter, merged or base folder, hub id, demo, or a server's model",
            "instructions": "a file of them, or probe: packaged questions on known limits",
            "out": "new .json file",
        },
    ),
    "compare": (
        compare,
        {"a": "a model's answers, or the word report", "b": "another's, or the folder to report on"},
    ),
    "inspect": (inspect, {"data": "records: a file, a hub id, or seeds"}),
    "lint": (lint, {"data": "records: a file, a hub id, or seeds"}),
    "plan": (plan, {}),
    "recipes": (recipes, {"name": "the recipe to print; all are listed if left out"}),
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
            tune(FinetuneConfig(**values))
        else:
            _COMMANDS[command][0](**values)
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
