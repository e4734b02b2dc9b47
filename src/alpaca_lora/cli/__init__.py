"""The `alpaca-lora` command: argv ends here, one function a command.

Options of `finetune` are the fields of `FinetuneConfig`, built by jsonargparse from the dataclass.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, NoReturn

from ..config import FinetuneConfig, called_here, load_recipe, recipe_names, recipe_path
from ..errors import AlpacaLoraError, RunInterrupted
from .adapters import diff_apply, diff_make, diff_verify, export, extract, merge
from .answers import chat, generate, serve
from .judging import answer, compare
from .names import PROG
from .plans import plan
from .records import lint, self_instruct_refilter, self_instruct_report, self_instruct_run
from .training import finetune, inspect, recipes

_GROUPS = {
    "diff": "Tuned models as differences to their base: make, apply, verify.",
    "self-instruct": "Records written by a language model: run, refilter, report.",
}
# Each command's function, and what is given without an option's name.
_COMMANDS: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "finetune": (finetune, {}),
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
    warnings.formatwarning = lambda message, *place, **more: f"{PROG}: {message}\n"
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
            finetune(FinetuneConfig(**values))
        else:
            _COMMANDS[command][0](**values)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of what is printed has gone: `alpaca-lora recipes | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        sys.exit(128 + signal.SIGPIPE)
    except RunInterrupted as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"{PROG}: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)
    except AlpacaLoraError as error:
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        sys.exit(f"{PROG}{rank}: {error}")
    except KeyboardInterrupt:
        print(f"\n{PROG}: interrupted", file=sys.stderr)
        sys.exit(130)


def _parser() -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings  # type: ignore[attr-defined]

    from .. import __version__

    class _Config(ActionConfigFile):  # type: ignore[misc]
        """A config file, or the name of a packaged recipe."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            load_recipe(values)  # says what is wrong with a file that is no YAML, or not UTF-8
            super().__call__(parser, cfg, str(recipe_path(values)), option_string)

    class _Parser(ArgumentParser):  # type: ignore[misc]
        """Names the nearest option where one is unknown."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
            unknown = re.match(r"unrecognized arguments: --([\w-]+)|.* does not accept option '([^']+)'", message)
            parser = getattr(ex, "subcommand_parser", None) or self
            known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
            near = called_here(unknown[1] or unknown[2], known) if unknown else ""
            super().error(message + ("." + near if near else ""), ex)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    about = "Stanford Alpaca as one library; every speed-up is exact."
    parser = _Parser(prog=PROG, description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", help="one of:")
    places = {"": commands}
    for name, (function, positional) in _COMMANDS.items():
        group, _, own = name.rpartition(" ")
        if group not in places:
            above = _Parser(prog=f"{PROG} {group}", description=_GROUPS[group], allow_abbrev=False)
            commands.add_subcommand(group, above, help=_GROUPS[group])
            places[group] = above.add_subcommands(dest="command", metavar="ACTION", title="actions", help="one of:")
        summary = (function.__doc__ or "").split("\n")[0]
        optional = {word for word in positional if signature(function).parameters[word].default is not Parameter.empty}
        words = [f"[{word.upper()}]" if word in optional else word.upper() for word in positional]
        usage = " ".join([PROG, name, *words, "[options]"])
        sub = _Parser(prog=f"{PROG} {name}", usage=usage, description=summary, allow_abbrev=False)
        if function is finetune:
            files = f"a YAML file of settings, or a packaged recipe: {', '.join(recipe_names())}; options after it win"
            sub.add_argument("--config", "--recipe", action=_Config, help=files)
            sub.add_class_arguments(FinetuneConfig)
        else:
            for word in positional:
                sub.add_argument(word, type=str, nargs="?" if word in optional else None, help=positional[word])
            sub.add_function_arguments(function, skip=set(positional))
        for action in sub._actions:
            if action.default is False:  # a switch may stand alone: --force is --force true
                action.nargs, action.const = "?", True
        places[group].add_subcommand(own, sub, help=summary)
    return parser
