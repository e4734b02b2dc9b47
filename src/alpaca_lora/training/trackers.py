"""Experiment trackers: which are asked for, and whether each could start, asked before anything is loaded or made."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..models.distributed import processes


def tracker_names(report_to: str | list[str]) -> list[str]:
    """Names of transformers' trackers: of a list, a text with commas, `none`, or `all` for what is installed.

    Raises:
        ConfigError: with every name that is none.
    """
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    entries = report_to.split(",") if isinstance(report_to, str) else report_to
    names = list(dict.fromkeys(name.strip() for name in entries))
    if names in ([], ["none"]):
        return []
    if names == ["all"]:
        try:
            names = get_available_reporting_integrations()
        except Exception as error:  # a broken package raises anything
            raise ConfigError(f"report_to: 'all': {_first_cause(error)}. Name the trackers you want.") from error
        return names
    known = list(INTEGRATION_TO_CALLBACK)
    problems = [
        f"report_to: {name!r} stands beside others. Leave it out, or give it alone."
        if name in ("none", "all")
        else f"report_to: {name!r} is no tracker.{did_you_mean(name.lower(), known)} "
        f"Trackers: {', '.join(known)}; or none, or all."
        for name in names
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)
    return names


def check_trackers(report_to: str | list[str]) -> None:
    """Make each tracker once, as the Trainer will, and ask those that need a key for it.

    Raises:
        ConfigError: with every tracker that is unknown, is not installed, cannot be imported, or has no key.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    names, problems = tracker_names(report_to), []
    if not names and "all" in report_to:
        warnings.warn("report_to: 'all', but no tracker is installed; nothing is reported.", stacklevel=2)
    for name in names:
        try:
            INTEGRATION_TO_CALLBACK[name]()
            if name in _KEYS and processes().is_main_process:  # no other rank reports
                _KEYS[name](importlib.import_module(name))
        except Exception as error:  # a broken package raises anything
            problems.append(
                f"report_to: {name!r} cannot be used here: {_first_cause(error)}. Mend that, or leave {name} out."
            )
    if problems:
        raise ConfigError(problems)


def _first_cause(error: BaseException) -> str:
    """What went wrong, in one line; of imports the first that failed, for another package is often tried after it."""
    while isinstance(error, ImportError) and isinstance(error.__context__, ImportError):
        error = error.__context__
    line = " ".join(str(error).split())
    return (line or type(error).__name__).rstrip(".")


def _comet(package: Any) -> None:
    values = package.config.get_config()
    if values["comet.api_key"] is None and values["comet.start.online"] is not False:
        raise ConfigError("no key: set COMET_API_KEY, or COMET_START_ONLINE=false to report into a file")


def _clearml(package: Any) -> None:
    importlib.import_module("clearml.backend_api").Session()  # raises where neither keys nor its offline mode are set


_KEYS: dict[str, Callable[[Any], Any]] = {
    # Asks on a terminal; raises where there is none and no key; does nothing in its offline and disabled modes.
    "wandb": lambda package: package.login(),
    "comet_ml": _comet,
    "clearml": _clearml,
}
