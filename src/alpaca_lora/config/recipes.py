"""Recipes: named YAML files of settings, packaged or the user's own."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean, same_word
from ..textfiles import read_text_file
from .problems import shown

_MAX_BYTES = 100_000
OF_ADAPTER = (
    "base_model",
    "prompt_template",
    "lora_r",
    "lora_alpha",
    "lora_target_modules",
    "rank_pattern",
    "new_tokens",
    "use_rslora",
    "use_dora",
)
"""Settings that an adapter has decided for the run that starts from it."""


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    folder = resources.files("alpaca_lora.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_path(name: str | Path) -> Path:
    """File of a packaged recipe, or `name` itself if it is a file.

    Raises:
        ConfigError: neither.
    """
    names = recipe_names()
    if name in names:
        return Path(str(resources.files("alpaca_lora.recipes") / f"{name}.yaml"))
    if os.path.isfile(name):
        return Path(name)
    if known := same_word(str(name), names):
        return recipe_path(known)
    raise ConfigError(
        f"recipe: {str(name)!r} is neither a recipe nor a file.{did_you_mean(str(name), names)} "
        f"Recipes: {', '.join(names)}."
    )


def settings_from(recipe: str | Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values with those given in their place; an adapter that is given, see `beside_adapter`."""
    named = load_recipe(recipe) if recipe else {}
    return {**(beside_adapter(named) if given.get("adapter") else named), **given}


def beside_adapter(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values for a run from another adapter than the recipe's: without what an adapter has decided."""
    return {key: value for key, value in values.items() if key not in OF_ADAPTER}


def load_recipe(name: str | Path) -> dict[str, Any]:
    """The values of a recipe.

    Raises:
        ConfigError: unknown recipe, or a file that is not a YAML mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 3e-4 as a number, as the command line does; YAML 1.1 takes it for text. A key stands once.

        No value refers to another: ten lines of such can stand for a billion values.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                found = self.peek_event()
                raise self._error(f"*{found.anchor} stands for another value; write that value out", found.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if not isinstance(name, Hashable):
                    raise self._error("a list or mapping is no name of a setting", key.start_mark)
                if name in seen:
                    raise self._error(f"the key {shown(name)} stands twice", key.start_mark)
                seen.add(name)
            return super().construct_mapping(node, deep)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, AttributeError, TypeError) as error:  # a number too long, no such date
                kind = node.tag.rpartition(":")[2]
                raise self._error(f"{shown(node.value)} cannot be read as {kind}", node.start_mark) from error

        def _error(self, problem: str, mark: Any) -> yaml.MarkedYAMLError:
            return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    number = re.compile(r"[-+]?\d+[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    path = recipe_path(name)
    text = read_text_file(path, ConfigError, "Give a text file in UTF-8.", _MAX_BYTES)
    try:
        values = yaml.load(text, Loader)
    except RecursionError:
        problem = "it is nested too deep. Settings are plain 'setting: value' lines."
        raise ConfigError(f"recipe: {path} is not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise ConfigError(f"recipe: {path} is not valid YAML: {problem} (line {line + 1}). Correct it.") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"recipe: {path} must hold 'setting: value' lines.")
    return dict(values)
