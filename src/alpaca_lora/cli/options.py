"""A command's options, read off public functions and dataclasses, so that each is written once.

In: functions and dataclasses. Out: name, type, default and help of each option. Types are the annotations', as far as a
shell can give them; help is what docstrings say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from inspect import Parameter, signature
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, Union, get_origin

from docstring_parser import parse, parse_from_object

from .command_line import alternatives

REQUIRED = Parameter.empty


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    type: Any
    default: Any
    help: str
    many: bool = False
    """Whether it is `*words`: one or more, given without the option's name."""


@dataclass(frozen=True)
class Command:
    """A command: what it runs, and what its options are read off.

    Attributes:
        run: Called with the options' values by name.
        functions: Whose parameters are the options; the first one's docstring is the command's.
        positional: Help of what is given without an option's name, by name.
        fields: More options: of a dataclass, the names of fields, with other defaults if given.
        hidden: Parameters that are no options.
        as_texts: Leave the fields' values as they are typed, or None; the command reads them itself.
    """

    run: Callable[..., None]
    functions: tuple[Callable[..., Any], ...]
    positional: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[type, Mapping[str, Any] | Iterable[str]] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset({"key", "token", "ready", "write"})
    as_texts: bool = False

    @property
    def summary(self) -> str:
        """The command in a line."""
        return (self.functions[0].__doc__ or "").split("\n")[0]

    @property
    def options(self) -> dict[str, Option]:
        """Its options by name, those given without a name included."""
        found: dict[str, Option] = {}
        for function in self.functions:
            for option in options_of(function):
                if option.name not in self.hidden:
                    found.setdefault(option.name, option)
        for kind, chosen in self.fields.items():
            every = {option.name: option for option in options_of_fields(kind)}
            defaults = chosen if isinstance(chosen, Mapping) else {}
            for name in chosen:
                option = every[name]
                if self.as_texts:
                    option = Option(name, str, None, option.help)
                default = defaults.get(name, option.default)
                found.setdefault(
                    name, Option(name, option.type | None if default is None else option.type, default, option.help)
                )
        return found


def options_of(function: Callable[..., Any]) -> list[Option]:
    """A function's parameters; `**more` is none."""
    helps = {entry.arg_name: entry.description or "" for entry in parse(function.__doc__ or "").params}
    module = vars(sys.modules[function.__module__])
    return [
        Option(
            name,
            _for_shell(_evaluated(parameter.annotation, module)),
            _default(parameter.default),
            helps.get(name, helps.get(f"*{name}", "")),
            parameter.kind is Parameter.VAR_POSITIONAL,
        )
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is not Parameter.VAR_KEYWORD
    ]


def options_of_fields(kind: Any) -> list[Option]:
    """A dataclass's fields."""
    helps = {entry.arg_name: entry.description or "" for entry in parse_from_object(kind).params}
    module = vars(sys.modules[kind.__module__])
    return [
        Option(
            entry.name,
            _for_shell(_evaluated(entry.type, module)),
            REQUIRED if entry.default is MISSING else entry.default,
            helps.get(entry.name, ""),
        )
        for entry in fields(kind)
    ]


class _Elsewhere(dict):  # type: ignore[type-arg]
    """Names that only a type checker imports stand for what no shell can give."""

    def __missing__(self, name: str) -> Any:
        import builtins

        return getattr(builtins, name, _NotHere)


class _NotHere:
    """A type that no shell can give."""

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


def _evaluated(annotation: Any, module: Mapping[str, Any]) -> Any:
    return eval(annotation, {}, _Elsewhere(module)) if isinstance(annotation, str) else annotation


def _for_shell(kind: Any) -> Any:
    """The type without what a shell cannot give: a path is a text, a sequence may be one entry."""
    found: list[Any] = []
    for one in alternatives(kind):
        if one is Any or get_origin(one) is Sequence:
            found += [list[str], str]
        elif one is Path or get_origin(one) is PathLike:
            found.append(str)
        elif one is not _NotHere and one is not NoneType and get_origin(one) is not Callable:
            found.append(one)
    found = list(dict.fromkeys(found))
    if NoneType in alternatives(kind):
        found.append(None)
    if not found:
        return str
    return found[0] if len(found) == 1 else Union[tuple(found)]  # noqa: UP007


def _default(value: Any) -> Any:
    return [] if value == () else value
