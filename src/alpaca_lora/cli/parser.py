"""The parser of all commands, by jsonargparse; what it says is one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, NoReturn, get_type_hints

import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    set_loader,
    set_parsing_settings,
)

from .. import __version__
from ..config import (
    FinetuneConfig,
    beside_adapter,
    called_here,
    load_recipe,
    recipe_names,
    recipe_path,
    unknown_settings,
)
from ..errors import ConfigError, did_you_mean, same_word
from .command_line import SOURCES, alternatives, canonical, forms, is_list
from .names import PROG
from .options import REQUIRED, Command

_FILES = ("config", "recipe")


def command_parser(commands: Mapping[str, Command], groups: Mapping[str, str], settings: str) -> ArgumentParser:
    """The parser of a command line.

    Args:
        commands: By their words.
        groups: Help of the first word of commands that have two.
        settings: The command whose options are the fields of `FinetuneConfig`.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    set_loader("yaml", _load, (yaml.YAMLError,))
    about = "Stanford Alpaca as one library; every speed-up is exact."
    parser = _Parser(prog=PROG, description=about, allow_abbrev=False)
    parser.commands = {name: list(command.positional) for name, command in commands.items()}
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    places = {"": parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", help="one of:")}
    for name, command in commands.items():
        group, _, own = name.rpartition(" ")
        if group not in places:
            above = _Parser(prog=f"{PROG} {group}", description=groups[group], allow_abbrev=False)
            places[""].add_subcommand(group, above, help=groups[group])
            places[group] = above.add_subcommands(dest="command", metavar="ACTION", title="actions", help="one of:")
        places[group].add_subcommand(own, _command(name, command, name == settings), help=command.summary)
    return parser


def _command(name: str, command: Command, takes_settings: bool) -> _Parser:
    """The parser of one command."""
    options = command.options
    optional = {word for word in command.positional if options[word].default is not REQUIRED}
    words = [f"[{word.upper()}]" if word in optional else word.upper() for word in command.positional]
    words += ["..."] if any(options[word].many for word in command.positional) else []
    usage = " ".join([PROG, name, *words, "[options]"])
    sub = _Parser(prog=f"{PROG} {name}", usage=usage, description=command.summary, allow_abbrev=False)
    sub.positionals = list(command.positional)
    if takes_settings:
        files = f"a YAML file of settings, or a packaged recipe: {', '.join(recipe_names())}; options win over it, "
        files += "and of several the later over the earlier"
        sub.add_argument(*(f"--{word}" for word in _FILES), action=_Config, help=files)
        sub.add_class_arguments(FinetuneConfig)
        sub.types = {**get_type_hints(FinetuneConfig), **dict.fromkeys(_FILES, str)}
    else:
        for word, said in command.positional.items():
            sub.add_argument(
                word,
                type=_sources if word in SOURCES else str,
                nargs="+" if options[word].many else "?" if word in optional else None,
                help=said,
            )
        for word, option in options.items():
            if word not in command.positional:
                given = {"required": True} if option.default is REQUIRED else {"default": option.default}
                sub.add_argument(f"--{word}", type=option.type, help=option.help, **given)
                sub.types = {**sub.types, word: option.type}
    for action in sub._actions:
        if action.default is False:  # a switch may stand alone: --force is --force true
            action.nargs, action.const = "?", True
        members = alternatives(sub.types.get(action.dest))
        if any(is_list(one) or getattr(one, "__origin__", None) is dict for one in members):
            action.help = f"{action.help or ''} Accepts {forms(sub.types[action.dest], action.dest)}."
    return sub


def _sources(given: Any) -> Any:
    """A name, or the list that `canonical` made of what was typed; jsonargparse asks again with what it got."""
    return json.loads(given) if isinstance(given, str) and given.startswith("[") else given


class _Config(ActionConfigFile):  # type: ignore[misc]
    """A config file, or the name of a packaged recipe."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        inside = load_recipe(values)  # says what is wrong with it as YAML
        for word in _FILES:
            if word in inside:
                name = recipe_path(values)
                raise ConfigError(
                    f"{name}: {word} is not a setting of a file. Give it on the command line, before this one: "
                    f"--{word} {inside[word]} --config {name}"
                )
        if problems := unknown_settings(inside, [entry.name for entry in fields(FinetuneConfig)]):
            parser.error("\n".join(f"{recipe_path(values)}: {problem}" for problem in problems))
        content = yaml.safe_dump(beside_adapter(inside)) if parser.adapter_given else str(recipe_path(values))
        super().__call__(parser, cfg, content, option_string)


class _Parser(ArgumentParser):  # type: ignore[misc]
    """Takes words in any usual spelling; its errors name option, value and what is accepted."""

    types: Mapping[str, Any] = {}
    adapter_given = False  # on the command line, beside whatever files say
    positionals: Sequence[str] = ()
    commands: Mapping[str, Sequence[str]] = {}  # of all commands, what is given without an option's name

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:  # type: ignore[override]
        if self.types and args is not None:
            try:
                args = canonical(args, self.types, self.positionals, _FILES if _FILES[0] in self.types else ())
            except ConfigError as error:
                self.error(str(error))
            self.adapter_given = any(word.partition("=")[0] == "--adapter" for word in args)
        if self.commands and args:
            args = self._command(list(args))
        return super().parse_args(args, *more, **options)

    def _command(self, args: list[str]) -> list[str]:
        """The words with a command's name as it is documented."""
        if args[:2] == ["compare", "report"]:
            args[:2] = ["compare-report"]
        names = {word for name in self.commands for word in name.split()[:1]}
        return [same_word(args[0], names) or args[0], *args[1:]]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        parser = getattr(ex, "subcommand_parser", None) or self
        super().error(_sentence(message, parser), ex)


def _sentence(message: str, parser: Any) -> str:
    """One sentence for a message of jsonargparse or argparse; one that is not known stays as it is."""
    known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
    if message.startswith("unrecognized arguments: "):
        unknown = re.findall(r" --?([a-z][\w-]*)", message)
        hints = {name: called_here(name.replace("-", "_"), known) for name in unknown}
        said = "".join(f" {name}:{hint}" if len(hints) > 1 else hint for name, hint in hints.items() if hint)
        return f"{message}.{said}" if said else message
    if found := re.match(r".* does not accept option '([^']+)'", message):
        near = called_here(found[1].replace("-", "_"), known)
        return message + ("." + near if near else "")
    if found := re.match(r"argument \w+: invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
        choices = re.findall(r"[\w-]+", found[2])
        return f"{found[1][:60]!r} is no command.{did_you_mean(found[1], choices)} Choose from: {', '.join(choices)}."
    if found := re.match(r'expected "(.*?)\.?command" to be one of', message):
        below = [name for name in parser.commands if name.startswith(found[1])]
        words = dict.fromkeys(name.removeprefix(found[1]).split()[0] for name in below)
        return f"{found[1] or PROG}: give one of: {', '.join(words)}."
    if found := re.match(r"the following arguments are required: (.*)", message):
        command, _, _ = found[1].split(", ")[0].rpartition(".")
        command, places = command.replace(".", " "), parser.commands.get(command.replace(".", " "), ())
        names = [name.rpartition(".")[2] for name in found[1].split(", ")]
        lacking = " and ".join(name.upper() if name in places else f"--{name}" for name in names)
        return f"{command}: {lacking} {'is' if len(names) == 1 else 'are'} missing. See {PROG} {command} --help."
    if found := re.search(r'Parser key "([\w.]+)":\s+Exceeds the limit', message):
        return f"{found[1]}: the number has more digits than any that could be meant. Give a smaller one."
    if found := re.search(r'Parser key "([\w.]+)":.*(?:Got value|Given value): (.*)\Z', message, re.DOTALL):
        name = found[1].rpartition(".")[2]
        if name in parser.types:
            return f"{name}: {found[2]!r} must be {forms(parser.types[name], name)}."
    return message


def _load(text: str) -> Any:
    """A value, or a file of settings: JSON as JSON, since YAML forbids some characters that a text may hold."""
    from jsonargparse._loaders_dumpers import yaml_load

    try:
        if text.lstrip()[:1] in ("[", "{"):
            with suppress(ValueError):
                return json.loads(text)
        return yaml_load(text)
    except (RecursionError, ValueError) as error:  # nested too deep, a number too long, a date that does not exist
        raise yaml.YAMLError(f"cannot be read: {error}") from error
