"""What is typed after a command's name, in the one form that the parser reads: --name=value, each option once.

In: words as a shell passes them, and the type of each option. Out: the same words with files of settings first (options
win over them), repeated lists joined, and names as they are documented. What could only be read by dropping something
the user typed is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from ..errors import ConfigError, same_word

# Text is taken as it is: it may be empty or begin with ~, and its commas are its own.
TEXTS = ("new_tokens", "domain", "input", "instruction", "language", "sample_instructions")
# Lists of names may be given with commas; a path or a text may hold one of its own.
_NAMES = ("lora_target_modules", "report_to", "targets", "tasks")
# What names sources, of which a mapping says more.
SOURCES = ("data", "val_data")
_SWITCH = dict.fromkeys(("true", "yes", "on", "1"), "true") | dict.fromkeys(("false", "no", "off", "0"), "false")
_EARLIER = {"max_tokens": "token_budget"}
"""Earlier names of options, for commands in which the name is not another option's."""
_OPTION = re.compile(r"--[A-Za-z][\w.-]*(=.*)?", re.DOTALL)


def canonical(
    words: Sequence[str], types: Mapping[str, Any], positionals: Sequence[str] = (), files: Sequence[str] = ()
) -> list[str]:
    """The words with each known option as one --name=value.

    Args:
        words: After the command's name.
        types: The type of each option, by name.
        positionals: What is given without an option's name, in order.
        files: Options that name a file of settings; they may be repeated, and the later wins.

    Raises:
        ConfigError: an option of one value given twice, one without a value, or one that is no list or mapping although
            it takes these.

    >>> canonical(["d.json", "--lora-r", "4", "--also", "a", "--also=b"], {"lora_r": int, "also": list[str]}, ["data"])
    ['--lora_r=4', '--also=["a", "b"]', 'd.json']
    """
    settings: list[str] = []
    given: dict[str, list[str]] = {}
    unknown: list[str] = []
    places: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            places += left
            break
        name, value = _option(word, types)
        if not name:
            dashed = word.startswith("-") and " " not in word and not word[1:2].isdigit()
            (unknown if dashed or unknown else places).append(word)
            continue
        if value is None:
            bare = bool in alternatives(types[name]) and not (left and _for_switch(left[0], types[name], positionals))
            value = "true" if bare else _next(name, types[name], left)
        if not value and name not in TEXTS:
            raise ConfigError(f"--{name} is empty. Give {forms(types[name], name)}, or leave the option out.")
        if name in files:
            settings.append(f"--{name}={value}")
        else:
            given.setdefault(name, []).append(value)
    for place, (name, value) in enumerate(zip(positionals, places, strict=False)):
        if not value and name not in TEXTS:
            raise ConfigError(f"{name} is empty. Give a name or a path.")
        if name in SOURCES and value.lstrip()[:1] in ("[", "{"):
            entries = _entries(name, value)
            places[place] = json.dumps(entries, ensure_ascii=False)
    options = [f"--{name}={_joined(name, values, types[name])}" for name, values in given.items()]
    dashes = ["--"] if any(place.startswith("-") for place in places) else []
    return [*settings, *options, *unknown, *dashes, *places]


def forms(kind: Any, name: str = "") -> str:
    """What an option of this type accepts, in words: `a whole number or auto`."""
    words: list[str] = []
    members = alternatives(kind)
    for one in members:
        if get_origin(one) is Literal:
            words += map(str, get_args(one))
        elif one is bool:
            words += ["true", "false"]
        elif is_list(one):
            words.append(_list_forms(name))
        elif get_origin(one) is dict:
            ranks = int in get_args(one)
            words.append(f"pairs such as {'v_proj=16,q_proj=4' if ranks else 'instruction=question,output=answer'}")
        elif one in (int, float):
            words.append("a whole number" if one is int else "a number")
        elif one is str and not any(map(is_list, members)):
            words.append("a text" if name in TEXTS else "a name or a path")
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def is_list(kind: Any) -> bool:
    """Whether it collects values; data of any type does."""
    return get_origin(kind) is list or kind is Any


def _list_forms(name: str) -> str:
    if name in _NAMES:
        return "names with commas between them"
    return f"a {'text' if name in TEXTS else 'name or a path'}, or several by giving --{name} again"


def _option(word: str, types: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name and value of an option; no name if there is no such option, no value if the next word may be it."""
    if not _OPTION.fullmatch(word):
        return "", None
    typed, equals, value = word[2:].partition("=")
    name, dot, key = typed.partition(".")
    name = name.replace("-", "_")
    name = name if name in types else _EARLIER.get(name, name)
    if dot:  # --columns.output=answer; with a space it is left to the parser
        pairs = name in types and any(get_origin(one) is dict for one in alternatives(types[name]))
        return (name, f"{key}={value}") if pairs and equals else ("", None)
    if name not in types and not equals and bool in alternatives(types.get(name.removeprefix("no_"))):
        return name.removeprefix("no_"), "false"
    return (name, value if equals else None) if name in types else ("", None)


def _for_switch(word: str, kind: Any, positionals: Sequence[str]) -> bool:
    """Whether a word after a switch is its value: `--force true`, but not `--force model`."""
    choices = [choice for one in alternatives(kind) if get_origin(one) is Literal for choice in get_args(one)]
    return word.lower() in _SWITCH or word in choices or not (positionals or _OPTION.fullmatch(word))


def _next(name: str, kind: Any, left: list[str]) -> str:
    if not left or _OPTION.fullmatch(left[0]):
        raise ConfigError(f"--{name} has no value{f': {left[0]} follows' if left else ''}. Give {forms(kind, name)}.")
    return left.pop(0)


def _joined(name: str, values: list[str], kind: Any) -> str:
    """One value of all that were given."""
    members = alternatives(kind)
    choices = [choice for one in members if get_origin(one) is Literal for choice in get_args(one)]
    values = [same_word(value, choices) or value for value in values]
    if NoneType in members and str not in members:
        values = ["null" if value.lower() == "none" else value for value in values]
    if any(get_origin(one) is dict for one in members):
        return values[0] if values == ["null"] else json.dumps(_mapping(name, values, kind), ensure_ascii=False)
    if any(map(is_list, members)):
        entries = [entry for value in values for entry in _entries(name, value)]
        single = str in members or Any in members or any(values[0] in get_args(one) for one in members)
        if len(values) == 1 and (values == ["null"] or (entries == values and single)):
            return values[0]
        return json.dumps(entries, ensure_ascii=False)
    if len(values) > 1:
        shown = " and ".join(filter(None, [", ".join(map(repr, values[:-1])), repr(values[-1])]))
        raise ConfigError(f"--{name} is given {len(values)} times, as {shown}, and takes one value. Leave one.")
    return _SWITCH.get(values[0].lower(), values[0]) if bool in members else values[0]


def _entries(name: str, value: str) -> list[Any]:
    """Entries of a list: `[a, b]`, for names also `a,b`, for data also `{path: a}`; else the one that is given."""
    written = _written(value, list)
    if written is not None:
        return written
    if name in SOURCES and value.lstrip()[:1] in ("[", "{"):
        if (source := _written(value, dict)) is None:
            raise ConfigError(
                f"{name}: {value!r} cannot be read. Write {{path: a.json, weight: 3}} or [a.json, b.json]."
            )
        return [source]
    return [entry for entry in map(str.strip, value.split(",")) if entry] if name in _NAMES else [value]


def _mapping(name: str, values: list[str], kind: Any) -> dict[str, Any]:
    """`{a: b}` or `a=b,c=null`, of all that was given; a comma that no key follows belongs to the value."""
    found: dict[str, Any] = {}
    numbers = any(int in get_args(one) for one in alternatives(kind))
    for value in values:
        written = _written(value, dict)
        pairs = (
            written.items()
            if written is not None
            else [
                (key.strip(), None if own in ("null", "None") else own)
                for key, equals, own in (part.partition("=") for part in re.split(r",(?=\s*[\w.]+=)", value))
                if equals
            ]
        )
        if not pairs:
            raise ConfigError(f"--{name}: {value!r} has no '='. Give {forms(kind)}.")
        for key, own in pairs:
            own = int(own) if numbers and isinstance(own, str) and own.isdecimal() else own
            own = None if own in ("None", "null") else own  # as messages write it for Python, and as YAML does
            if found.setdefault(key, own) != own:
                raise ConfigError(f"--{name}: {key} is given twice, as {found[key]!r} and as {own!r}. Leave one.")
    return found


def _written(value: str, kind: type) -> Any:
    """A list or mapping written in YAML or JSON, or None."""
    if value.lstrip().startswith("[" if kind is list else "{"):
        with suppress(yaml.YAMLError):
            try:
                written = yaml.safe_load(value)
            except RecursionError:
                raise ConfigError(f"{value[:20]}... is nested too deep. Give a flat list or pairs.") from None
            except ValueError as error:  # a number too long, a date that does not exist
                raise ConfigError(f"{value[:20]}... cannot be read: {error}.") from None
            return written if isinstance(written, kind) else None
    return None
