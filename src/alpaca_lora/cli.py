"""The `alpaca-lora` command: argv ends here, one function a command.

Options of `finetune` are the fields of `FinetuneConfig`, built by jsonargparse from the dataclass.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .config import FinetuneConfig, recipe_names, recipe_path
from .errors import AlpacaLoraError, did_you_mean

PROG = "alpaca-lora"


def finetune(config: FinetuneConfig) -> None:
    """Fine-tune a base model on instruction records."""
    from . import api

    run = api.finetune(config)
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process reports
        return
    metrics = run.metrics
    for sample in run.samples:
        print(f"\n### {sample['instruction']}\n--- before\n{sample['before']}\n--- after\n{sample['after']}")
    print(f"\n{metrics['steps']} steps in {metrics['train_seconds']:.0f} s, last loss {metrics['loss']:.4f}", end="")
    if metrics["eval_loss_before"] is not None:
        print(f", validation loss {metrics['eval_loss_before']:.4f} -> {metrics['eval_loss_after']:.4f}", end="")
    here = _command()
    print(
        f".\nAdapter, history, loss.png and model card: {run.output_dir}\n\nNext:\n"
        f'  {here} generate {run.output_dir} "Write a haiku about the sea."\n'
        f"  {here} merge {run.output_dir} {run.output_dir}-merged"
    )


def merge(adapter: str, out: str, base_model: str | None = None) -> None:
    """Merge an adapter into its base: a plain transformers folder that loads without peft.

    Args:
        adapter: Folder of a LoRA adapter.
        out: New folder to write.
        base_model: Where the base is now, if not where the adapter says.
    """
    from . import api

    print(f"Merged folder: {api.merge(adapter, out, base_model=base_model)}")
    print(f'Next:\n  {_command()} generate {out} "Write a haiku about the sea."')


def generate(
    model: str,
    instruction: str,
    input: str = "",
    prompt_template: str | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    num_beams: int = 1,
    seed: int | None = None,
) -> None:
    """Answer one instruction, streaming.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        instruction: What to do.
        input: Context.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of the answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        top_p: Sample from the likeliest tokens that together have this probability.
        top_k: Sample from this many likeliest tokens; 0 is no limit.
        repetition_penalty: Above 1 makes tokens already used less likely.
        num_beams: Beams of a beam search; 1 is none.
        seed: Makes sampling repeatable.
    """
    from . import api

    loaded = api.load(model, prompt_template=prompt_template)
    pieces = api.stream(
        loaded,
        instruction,
        input,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        num_beams=num_beams,
        seed=seed,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def inspect(
    data: str,
    base_model: str,
    prompt_template: str = "alpaca",
    cutoff_len: int = 512,
    train_on_inputs: bool = False,
    columns: dict[str, str] | None = None,
    examples: int = 3,
) -> None:
    """Show what training would see: counts, lengths, truncation, and examples with supervised tokens in green.

    Args:
        data: Records: a file, a hub id, or `seeds`.
        base_model: Its tokenizer is used; no weights are loaded.
        prompt_template: A packaged template or a JSON file.
        cutoff_len: Most tokens an example may have.
        train_on_inputs: Supervise the prompt too.
        columns: Names of the data's own columns.
        examples: Examples to show.
    """
    from rich.console import Console

    from . import api

    report = api.inspect(
        data,
        base_model,
        prompt_template=prompt_template,
        cutoff_len=cutoff_len,
        train_on_inputs=train_on_inputs,
        columns=columns,
    )
    console = Console(highlight=False)
    console.print(str(report), markup=False, soft_wrap=True)
    for text in report.examples_shown(examples):
        console.print()
        console.print(text, soft_wrap=True)


def _command() -> str:
    """How this program was called, for commands to copy: `.venv/bin/alpaca-lora`, say."""
    return sys.argv[0] if sys.argv[0].endswith(PROG) else PROG


# Each command's function, and what is given without an option's name.
_COMMANDS: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "finetune": (finetune, {}),
    "merge": (merge, {"adapter": "folder of a LoRA adapter", "out": "new folder to write"}),
    "generate": (
        generate,
        {"model": "adapter, merged or base folder, hub id, or demo", "instruction": "what to do"},
    ),
    "inspect": (inspect, {"data": "records: a file, a hub id, or seeds"}),
}


def main(argv: list[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one message and exit code 1 (2 for wrong options)."""
    try:
        arguments = _parser().parse_args(argv)
        command = arguments.command
        values = arguments[command].as_dict()
        if command == "finetune":
            values.pop("config")
            finetune(FinetuneConfig(**values))
        else:
            _COMMANDS[command][0](**values)
    except AlpacaLoraError as error:
        sys.exit(f"{PROG}: {error}")
    except KeyboardInterrupt:
        print(f"\n{PROG}: interrupted; a run goes on from its newest checkpoint with --resume true", file=sys.stderr)
        sys.exit(130)


def _parser() -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings  # type: ignore[attr-defined]

    from . import __version__

    class _Config(ActionConfigFile):  # type: ignore[misc]
        """A config file, or the name of a packaged recipe."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            super().__call__(parser, cfg, str(recipe_path(values)), option_string)

    class _Parser(ArgumentParser):  # type: ignore[misc]
        """Names the nearest option where one is unknown."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
            unknown = re.match(r"unrecognized arguments: --([\w-]+)|.* does not accept option '([^']+)'", message)
            parser = getattr(ex, "subcommand_parser", None) or self
            known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
            near = did_you_mean(unknown[1] or unknown[2], known) if unknown else ""
            super().error(message + ("." + near if near else ""), ex)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    about = "Stanford Alpaca as one library; every speed-up is exact."
    parser = _Parser(prog=PROG, description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", help="one of:")
    for name, (function, positional) in _COMMANDS.items():
        summary = (function.__doc__ or "").split("\n")[0]
        usage = " ".join([PROG, name, *(word.upper() for word in positional), "[options]"])
        sub = _Parser(prog=f"{PROG} {name}", usage=usage, description=summary, allow_abbrev=False)
        if function is finetune:
            files = f"a YAML file of settings, or a packaged recipe: {', '.join(recipe_names())}; options after it win"
            sub.add_argument("--config", "--recipe", action=_Config, help=files)
            sub.add_class_arguments(FinetuneConfig)
        else:
            for word in positional:
                sub.add_argument(word, type=str, help=positional[word])
            sub.add_function_arguments(function, skip=set(positional))
        commands.add_subcommand(name, sub, help=summary)
    return parser
