"""scipy, statsmodels and krippendorff, of the extra `judge`: imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import MissingDependencyError


def load_package(name: str) -> Any:
    """The module `name`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"the statistics need {name.partition('.')[0]}. Run: pip install 'alpaca-lora[judge]'"
        ) from error
