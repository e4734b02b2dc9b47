"""alpaca_lora: Stanford Alpaca as one library; every speed-up is exact.

Public names load on first use, so importing the package costs milliseconds and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .adapters.extract import Extraction
    from .api import (
        answer,
        chat,
        compare,
        compare_answers,
        compare_preferences,
        compare_report,
        diff_apply,
        diff_make,
        diff_verify,
        export,
        extract_lora,
        generate,
        inspect,
        lint,
        load,
        merge,
        plan,
        plot_runs,
        rate,
        refilter,
        self_instruct,
        self_instruct_report,
        serve,
        stream,
    )
    from .config import FinetuneConfig
    from .data.records import Record, load_records
    from .errors import AlpacaLoraError, RunInterrupted
    from .generation.model import LocalModel
    from .generation.sampling import Sampling
    from .prompts import Template
    from .training.finetune import finetune
    from .training.run import Run

_HOMES = {
    "adapters.extract": ("Extraction",),
    "api": (
        "answer",
        "chat",
        "compare",
        "compare_answers",
        "compare_preferences",
        "compare_report",
        "diff_apply",
        "diff_make",
        "diff_verify",
        "export",
        "extract_lora",
        "generate",
        "inspect",
        "lint",
        "load",
        "merge",
        "plan",
        "plot_runs",
        "rate",
        "refilter",
        "self_instruct",
        "self_instruct_report",
        "serve",
        "stream",
    ),
    "config": ("FinetuneConfig",),
    "data.records": ("Record", "load_records"),
    "errors": ("AlpacaLoraError", "RunInterrupted"),
    "generation.model": ("LocalModel",),
    "generation.sampling": ("Sampling",),
    "prompts": ("Template",),
    "training.finetune": ("finetune",),
    "training.run": ("Run",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlpacaLoraError",
    "Extraction",
    "FinetuneConfig",
    "LocalModel",
    "Record",
    "Run",
    "RunInterrupted",
    "Sampling",
    "Template",
    "answer",
    "chat",
    "compare",
    "compare_answers",
    "compare_preferences",
    "compare_report",
    "diff_apply",
    "diff_make",
    "diff_verify",
    "export",
    "extract_lora",
    "finetune",
    "generate",
    "inspect",
    "lint",
    "load",
    "load_records",
    "merge",
    "plan",
    "plot_runs",
    "rate",
    "refilter",
    "self_instruct",
    "self_instruct_report",
    "serve",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
